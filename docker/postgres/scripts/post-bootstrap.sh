#!/usr/bin/env bash
# Patroni runs this once, on the first leader: roles, database and schema, the same as on a single primary.
set -euo pipefail
LIB=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
# shellcheck source=utils.sh
. "$LIB/utils.sh"
# shellcheck source=environment.sh
. "$LIB/environment.sh"
# shellcheck source=runtime.sh
. "$LIB/runtime.sh"
# shellcheck source=init.sh
. "$LIB/init.sh"
set_defaults
export PGHOST=$RUN_DIR PGPASSFILE=$RUN_DIR/.pgpass
# The passwords must not reach the log.
export PGOPTIONS='-c log_min_duration_statement=-1 -c log_min_error_statement=panic -c synchronous_commit=local'
run_sql
