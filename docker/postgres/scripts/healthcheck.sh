#!/usr/bin/env bash
# Healthy: PostgreSQL accepts connections, or was asked to sleep. Takes milliseconds; opens no session.
set -euo pipefail
if [[ -e /run/postgresql/maintenance ]]; then exit 0; fi
exec pg_isready --quiet --host=/run/postgresql --timeout=2
