#!/usr/bin/env bash
# Real drivers through the pooler: psql, pgbench, psycopg 3, asyncpg, JDBC and tokio-postgres, each in every pool mode it is valid
# in, with one worker and with two, against one throw-away cluster. Prints one line per check, `ok SETUP/DRIVER/CHECK` or
# `FAIL …`, and ends with `N passed, N failed`. Where something failed the logs stay in target/driver-logs.
#
# usage: tests/drivers/run.sh [--only DRIVER[,DRIVER…]] [SETUP…]
#   DRIVER  psql pgbench psycopg asyncpg jdbc tokio
#   SETUP   session session-2w transaction transaction-2w transaction-tls statement
#           (-2w: two workers; left out for PgBouncer, which has none. -tls: verified TLS on both sides, two workers)
#   PGWEIR_BIN names the pooler (default target/release/pgweir). What must be installed: tests/needs.sh test.
set -uo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/throwaway.sh
source "$HERE/../throwaway.sh"

DRIVERS=psql,pgbench,psycopg,asyncpg,jdbc,tokio
SETUPS=(session session-2w transaction transaction-2w transaction-tls statement)
LOGS=$TARGET_DIR/driver-logs
DRIVER_SECONDS_MAX=600
MAX_PREPARED=40 # fewer than the checks use, so that statements are evicted

# collect DRIVER: reads the output of a driver's own runner from a file; its lines `ok|FAIL|skip NAME…` become results, all
# else is its log. A runner that says nothing, or breaks off, has failed.
collect() {
  local driver=$1 status=$2 log=$3 seen_before=$((passed + failed)) failed_before=$failed word rest
  while read -r word rest; do
    case $word in ok | FAIL | skip) result "$word" "$setup/$driver/$rest" ;; esac
  done <"$log"
  if ((status != 0 && failed == failed_before)); then result FAIL "$setup/$driver: ended with status $status, see its log"; fi
  if ((passed + failed == seen_before)); then result FAIL "$setup/$driver: no check ran"; fi
}

# bounded DRIVER COMMAND...: runs a driver's own runner, within the time limit, and collects its results.
bounded() {
  local driver=$1 log=$WORK/log/$setup-$1.log status=0
  shift
  timeout --kill-after=10 "$DRIVER_SECONDS_MAX" "$@" </dev/null >"$log" 2>&1 || status=$?
  collect "$driver" "$status" "$log"
}

driver_psql() { bounded psql env "${LIBPQ_TLS[@]}" bash "$HERE/psql.sh"; }
driver_pgbench() { bounded pgbench env "${LIBPQ_TLS[@]}" bash "$HERE/pgbench.sh"; }
driver_psycopg() { bounded psycopg "$PYTHON" "$HERE/psycopg_checks.py"; }
driver_asyncpg() { bounded asyncpg "$PYTHON" "$HERE/asyncpg_checks.py"; }
driver_jdbc() { bounded jdbc java -Xss1m -Xmx512m -cp "$WORK/java:$JDBC_JAR" JdbcChecks; }
driver_tokio() {
  # A second TLS library would prove little that this file is about.
  if [[ $setup == *-tls ]]; then result skip "$setup/tokio: it speaks no TLS here"; return; fi
  local modules=(every_mode)
  [[ $MODE == statement ]] || modules+=(with_transactions)
  [[ $MODE == session ]] && modules+=(session_only)
  # shellcheck disable=SC2016  # for the inner shell
  bounded tokio bash -c '"$0" --ignored --test-threads=4 "$@" | sed -E -u "s/^test (.*) \.\.\. ok$/ok \1/; s/^test (.*) \.\.\. FAILED$/FAIL \1/"
    exit "${PIPESTATUS[0]}"' "$TOKIO_TEST" "${modules[@]}"
}

# What a driver needs before any mode is started; a driver that cannot run is a failure, not a skip.
prepare_psql() { :; }
prepare_pgbench() {
  direct postgres -c 'CREATE DATABASE bench OWNER weir' &&
    pgbench -q -i -s 10 -h "$WORK/run" -p "$PG_PORT" -U weir bench 2>&1
}
prepare_psycopg() { PYTHON=$TARGET_DIR/venv/bin/python && "$PYTHON" -c 'import psycopg, sys; print(psycopg.__version__)'; }
prepare_asyncpg() { PYTHON=$TARGET_DIR/venv/bin/python && "$PYTHON" -c 'import asyncpg; print(asyncpg.__version__)'; }
prepare_jdbc() {
  JDBC_JAR=/usr/share/java/postgresql.jar
  [[ -f $JDBC_JAR ]] || { say "no $JDBC_JAR"; return 1; }
  mkdir -p "$WORK/java" && javac -Xlint:all -d "$WORK/java" -cp "$JDBC_JAR" "$HERE/JdbcChecks.java" 2>&1
}
prepare_tokio() {
  TOKIO_TEST=$(cd "$ROOT_DIR" && cargo test --quiet --test tokio_postgres --no-run --message-format=json 2>"$WORK/log/cargo.log" |
    sed -n 's/.*"executable":"\([^"]*tokio_postgres-[^"]*\)".*/\1/p' | tail -n 1)
  [[ -x $TOKIO_TEST ]] || { cat "$WORK/log/cargo.log"; return 1; }
}

# setup_pooler: starts the pooler for $setup. Few servers for many clients, and each transaction on another server than the last,
# so that whatever should follow the client from server to server has to.
setup_pooler() {
  local workers=1 tls=()
  [[ $setup == *-2w || $setup == *-tls ]] && workers=2
  MODE=${setup%%-*}
  POOL_SIZE=4
  [[ $MODE == session ]] && POOL_SIZE=10
  POOLER_PORT=$(free_port)
  export PGWEIR_MODE=$MODE PGWEIR_POOL_SIZE=$POOL_SIZE PGWEIR_PORT=$POOLER_PORT PGWEIR_TLS_CA=''
  export PGWEIR_DSN="postgresql://weir:weir@127.0.0.1:$POOLER_PORT/check"
  LIBPQ_TLS=()
  if [[ $setup == *-tls ]]; then
    PGWEIR_TLS_CA=$WORK/tls/ca.pem
    PGWEIR_DSN+="?sslmode=verify-full&sslrootcert=$PGWEIR_TLS_CA"
    LIBPQ_TLS=(PGSSLMODE=verify-full "PGSSLROOTCERT=$PGWEIR_TLS_CA")
    tls=("client_tls_sslmode = require" "client_tls_key_file = $WORK/tls/key.pem" "client_tls_cert_file = $WORK/tls/cert.pem"
      "server_tls_sslmode = verify-full" "server_tls_ca_file = $WORK/tls/ca.pem")
    cluster_tls on
  fi
  pooler_ini "$MODE" "$POOL_SIZE" "max_prepared_statements = $MAX_PREPARED" "server_round_robin = 1" \
    "min_pool_size = $POOL_SIZE" "$(is_pgbouncer || echo "workers = $workers")" "${tls[@]}"
  pooler_start
}

end_setup() {
  pooler_stop
  mv "$WORK/log/pooler.log" "$WORK/log/$setup-pooler.log"
  if [[ $setup == *-tls ]]; then cluster_tls off; fi
}

# An authority and a certificate of its own for 127.0.0.1, which the pooler and PostgreSQL share.
make_certificates() {
  local dir=$WORK/tls
  mkdir "$dir"
  (
    cd "$dir" || exit
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj '/CN=throw-away authority' -keyout ca-key.pem -out ca.pem &&
      openssl req -newkey rsa:2048 -nodes -subj '/CN=127.0.0.1' -keyout key.pem -out request.pem &&
      printf 'subjectAltName = IP:127.0.0.1\nbasicConstraints = CA:FALSE\n' >extensions &&
      openssl x509 -req -in request.pem -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 2 -extfile extensions -out cert.pem
  ) >"$WORK/log/openssl.log" 2>&1 || { cat "$WORK/log/openssl.log" >&2; die "openssl made no certificates"; }
  chmod 600 "$dir/key.pem"
  give_to_server_user "$dir/key.pem"
}

# cluster_tls on|off: whether PostgreSQL offers TLS.
cluster_tls() {
  direct postgres -c "ALTER SYSTEM SET ssl_cert_file = '$WORK/tls/cert.pem'" -c "ALTER SYSTEM SET ssl_key_file = '$WORK/tls/key.pem'" \
    -c "ALTER SYSTEM SET ssl = $1" -c 'SELECT pg_reload_conf()' >/dev/null
  wait_until 10 "ssl = $1" tls_is "$1" || die "PostgreSQL did not turn TLS $1"
}

tls_is() { [[ $(direct postgres -c 'SHOW ssl') == "$1" ]]; }

# After everything: nobody waits, nobody holds a server, and the pools are within their size.
check_afterwards() {
  local pools=$WORK/log/$setup-pools.txt
  if wait_until 20 "the pools to be at rest" pools_at_rest "$POOL_SIZE" "$pools" 2>/dev/null; then result ok "$setup/pools at rest"
  else result FAIL "$setup/pools at rest: see $(basename "$pools")"
  fi
  if kill -0 "$POOLER_PID" 2>/dev/null; then result ok "$setup/pooler alive"; else result FAIL "$setup/pooler alive"; fi
}

main() {
  local only=$DRIVERS setup driver
  if [[ ${1:-} == --only ]]; then only=$2; shift 2; fi
  if (($# > 0)); then SETUPS=("$@"); fi
  throwaway_begin
  rm -rf "$LOGS"
  cluster_create 100
  cluster_users check
  make_certificates
  export PGWEIR_DIRECT_DSN="postgresql:///check?host=$WORK/run&port=$PG_PORT&user=postgres"
  export WORK PG_PORT PGPASSWORD=weir
  say "pooler: $PGWEIR_BIN ($("$PGWEIR_BIN" -V 2>&1 | head -n 1)), $("$PG_BIN/postgres" --version)"
  local ready=()
  for driver in ${only//,/ }; do
    # In this shell, not a subshell: preparing sets variables.
    if "prepare_$driver" >"$WORK/log/prepare-$driver.log" 2>&1; then ready+=("$driver"); else
      cat "$WORK/log/prepare-$driver.log"
      result FAIL "prepare/$driver"
    fi
  done
  for setup in "${SETUPS[@]}"; do
    if [[ $setup == *-2w ]] && is_pgbouncer; then say "skip $setup: workers are pgweir's own"; continue; fi
    setup_pooler
    for driver in "${ready[@]}"; do
      local began=$SECONDS
      "driver_$driver"
      say "# $setup/$driver took $((SECONDS - began)) s"
    done
    check_afterwards
    end_setup
  done
  if ((failed > 0)); then keep_logs "$LOGS"; fi
  results
}

main "$@"
