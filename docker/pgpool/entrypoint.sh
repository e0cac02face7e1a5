#!/usr/bin/env bash
# Writes what holds passwords into memory, and starts Pgpool-II.
set -euo pipefail
umask 0077
SECRETS_DIR=${SECRETS_DIR:-/run/secrets}
RUN_DIR=/run/pgpool

# line NAME USER: of pool_passwd; Pgpool proves itself to PostgreSQL by SCRAM and needs the password for it.
line() { printf '%s:TEXT%s\n' "$2" "$(<"$SECRETS_DIR/$1")"; }

{
  line app_password app
  line monitor_password monitor
} >"$RUN_DIR/pool_passwd"
install -m 0600 "$SECRETS_DIR/server.crt" "$RUN_DIR/server.crt"
install -m 0600 "$SECRETS_DIR/server.key" "$RUN_DIR/server.key"
{
  cat /etc/pgweir-pgpool/pgpool.conf
  printf "sr_check_password = '%s'\nhealth_check_password = '%s'\n" "$(<"$SECRETS_DIR/monitor_password")" "$(<"$SECRETS_DIR/monitor_password")"
} >"$RUN_DIR/pgpool.conf"
printf 'hostssl all all all scram-sha-256\n' >"$RUN_DIR/pool_hba.conf"
exec pgpool -n -f "$RUN_DIR/pgpool.conf" -a "$RUN_DIR/pool_hba.conf"
