#!/usr/bin/env bash
# config/monitoring: first the files (promtool, the alerts' unit tests, yamllint, dashboards and documentation against the rules), then
# for real. A throw-away PostgreSQL with a standby, pgweir under load, postgres_exporter on both servers, and Prometheus with the delivered
# configuration: every expression of every dashboard must have data, what every alert reads must be there, and a full pool must make its
# alert fire and clear. Prints `ok`/`FAIL` lines, ends with `N passed, N failed`. Logs stay in target/monitoring-logs when something failed.
#
# usage: tests/monitoring.sh [files]   (files: without the live part)
#   PGWEIR_BIN names the pooler (default target/release/pgweir). What must be installed: tests/needs.sh test.
set -uo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/throwaway.sh
source "$HERE/throwaway.sh"

CONFIG=$ROOT_DIR/config/monitoring
PYTHON=$TARGET_DIR/venv/bin/python
KEEP_LOGS_IN=$TARGET_DIR/monitoring-logs
POOL_SIZE=10
CLIENTS=4
CERTIFICATE_DAYS=10 # few enough for an alert
START_SECONDS_MAX=60
CHECK_SECONDS_MAX=500

# check COMMAND...: runs check.py and counts its lines; its other output is shown as it is.
check() {
  local status=0 word rest failed_before=$failed
  timeout "$CHECK_SECONDS_MAX" "$PYTHON" "$HERE/monitoring/check.py" "$@" >"$WORK/check.out" 2>&1 </dev/null || status=$?
  while read -r word rest; do
    case $word in ok | FAIL) result "$word" "$rest" ;; *) say "$word $rest" ;; esac
  done <"$WORK/check.out"
  if ((status != 0 && failed == failed_before)); then result FAIL "check.py $1: ended with status $status"; fi
}

quietly() { "$@" >"$WORK/log/quietly.log" 2>&1 </dev/null || { cat "$WORK/log/quietly.log"; return 1; }; }

files() {
  verdict "promtool: prometheus.yml" quietly promtool check config "$CONFIG/prometheus.yml"
  verdict "promtool: rules" quietly promtool check rules "$CONFIG"/rules/*.yml
  verdict "promtool: unit tests of pgweir's alerts" quietly promtool test rules "$HERE/monitoring/pgweir.yml"
  verdict "promtool: unit tests of PostgreSQL's alerts" quietly promtool test rules "$HERE/monitoring/postgresql.yml"
  verdict "yamllint" quietly "$TARGET_DIR/venv/bin/yamllint" -s -d '{extends: default, rules: {line-length: {max: 250}}}' "$CONFIG" "$HERE/monitoring"
  check files
}

# PostgreSQL as the queries want it: statistics of statements, archiving, and a standby.
start_postgres() {
  cluster_create 100
  direct postgres -c "ALTER SYSTEM SET shared_preload_libraries = pg_stat_statements" -c "ALTER SYSTEM SET archive_mode = on" \
    -c "ALTER SYSTEM SET archive_command = true" -c "ALTER SYSTEM SET wal_keep_size = '1GB'" || die "cannot set up the primary"
  echo 'local replication all trust' >>"$PG_DATA/pg_hba.conf"
  cluster_stop
  cluster_start
  cluster_users app
  direct app -c 'CREATE EXTENSION pg_stat_statements' -f "$CONFIG/postgres_exporter.sql" \
    -c "CREATE ROLE monitor LOGIN IN ROLE pg_monitor CONNECTION LIMIT 10" || die "cannot set up what the exporter needs"
  pgbench -i -q -s 2 -h "$WORK/run" -p "$PG_PORT" -U weir app >"$WORK/log/init.log" 2>&1 || die "pgbench could not make its tables"
  REPLICA_PORT=$(free_port)
  (as_server pg_basebackup -D "$WORK/replica" -R -C -S replica1 --no-sync -c fast \
    -d "host=$WORK/run port=$PG_PORT user=postgres application_name=replica1") >"$WORK/log/basebackup.log" 2>&1 ||
    { cat "$WORK/log/basebackup.log" >&2; die "no base backup for the standby"; }
  echo "port = $REPLICA_PORT" >>"$WORK/replica/postgresql.auto.conf"
  child as_server postgres -D "$WORK/replica" >"$WORK/log/replica.log" 2>&1
  wait_until "$START_SECONDS_MAX" "the standby to answer" pg_isready -q -h "$WORK/run" -p "$REPLICA_PORT" || die "the standby did not start"
}

start_pooler() {
  METRICS_PORT=$(free_port)
  openssl req -x509 -newkey rsa:2048 -nodes -days "$CERTIFICATE_DAYS" -subj /CN=127.0.0.1 -keyout "$WORK/key.pem" -out "$WORK/cert.pem" \
    >"$WORK/log/openssl.log" 2>&1 || die "openssl made no certificate"
  give_to_server_user "$WORK/key.pem"
  pooler_ini transaction "$POOL_SIZE" "metrics_port = $METRICS_PORT" "workers = 2" "max_prepared_statements = 100" \
    "client_tls_sslmode = allow" "client_tls_key_file = $WORK/key.pem" "client_tls_cert_file = $WORK/cert.pem"
  pooler_start
}

# start_exporter NAME POSTGRES_PORT: its port is in EXPORTER_PORT.
start_exporter() {
  EXPORTER_PORT=$(free_port)
  child as_server env "DATA_SOURCE_NAME=host=$WORK/run port=$2 user=monitor dbname=app sslmode=disable" prometheus-postgres-exporter \
    "--web.listen-address=127.0.0.1:$EXPORTER_PORT" "--extend.query-path=$WORK/queries.yml" >"$WORK/log/exporter-$1.log" 2>&1
  wait_until "$START_SECONDS_MAX" "the exporter $1" answers "http://127.0.0.1:$EXPORTER_PORT/metrics" || die "the exporter $1 did not start"
}

answers() { "$PYTHON" -c 'import sys, urllib.request as r; r.urlopen(sys.argv[1], timeout=5).read()' "$1" 2>/dev/null; }

# What makes backups is not part of this: a file says what it would.
start_backup_metrics() {
  mkdir "$WORK/backup"
  cp "$HERE/monitoring/backup.txt" "$WORK/backup/"
  BACKUP_PORT=$(free_port)
  child "$PYTHON" -m http.server --bind 127.0.0.1 --directory "$WORK/backup" "$BACKUP_PORT" >"$WORK/log/backup.log" 2>&1
}

start_prometheus() {
  local port
  check prepare "$WORK/prometheus" "{\"pgweir\": [\"127.0.0.1:$METRICS_PORT\"], \"backup\": [\"127.0.0.1:$BACKUP_PORT\"],
    \"postgresql\": [\"127.0.0.1:$PRIMARY_EXPORTER\", \"127.0.0.1:$REPLICA_EXPORTER\"]}"
  mkdir "$WORK/prometheus/data"
  give_to_server_user -R "$WORK/prometheus"
  port=$(free_port)
  PROMETHEUS=http://127.0.0.1:$port
  child as_server prometheus "--config.file=$WORK/prometheus/prometheus.yml" "--storage.tsdb.path=$WORK/prometheus/data" \
    "--web.listen-address=127.0.0.1:$port" >"$WORK/log/prometheus.log" 2>&1
  wait_until "$START_SECONDS_MAX" "Prometheus" answers "$PROMETHEUS/-/ready" || die "Prometheus did not start"
}

# Reads, writes and logins, until there is a file $WORK/stop.
load() {
  local pooled=(-n -h 127.0.0.1 -p "$POOLER_PORT" -U weir)
  while [[ ! -e $WORK/stop ]]; do
    timeout 60 pgbench "${pooled[@]}" -M prepared -c "$CLIENTS" -T 5 -R 200 app &&
      timeout 60 pgbench "${pooled[@]}" -S -C -c 2 -t 5 app
  done >>"$WORK/log/load.log" 2>&1 </dev/null
}

pooled() { timeout 300 psql -X -qAt "host=127.0.0.1 port=$POOLER_PORT user=weir password=weir dbname=app" "$@"; }

# A full pool: as many clients that keep a server as the pool may have, and two that then have to wait.
fill_pool() {
  SLEEPERS=()
  for ((n = 0; n < POOL_SIZE + 2; n++)); do
    pooled -c 'SELECT pg_sleep(280)' >>"$WORK/log/sleepers.log" 2>&1 </dev/null &
    SLEEPERS+=($!)
    CHILDREN+=($!)
  done
}

empty_pool() {
  direct postgres -c "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(280)%' AND pid <> pg_backend_pid()" >/dev/null
  kill "${SLEEPERS[@]}" 2>/dev/null
}

live() {
  export PGPASSWORD=weir
  start_postgres
  start_pooler
  cp "$CONFIG/postgres_exporter_queries.yml" "$WORK/queries.yml"
  start_exporter primary "$PG_PORT" && PRIMARY_EXPORTER=$EXPORTER_PORT
  start_exporter standby "$REPLICA_PORT" && REPLICA_EXPORTER=$EXPORTER_PORT
  start_backup_metrics
  start_prometheus
  child load
  check expressions "$PROMETHEUS"
  check alert "$PROMETHEUS" PgweirCertificateExpiring firing
  check alert "$PROMETHEUS" PgweirClientsWaiting gone
  fill_pool
  check alert "$PROMETHEUS" PgweirClientsWaiting firing
  check alert "$PROMETHEUS" PgweirPoolFull firing
  check alert "$PROMETHEUS" PgweirLongestWait firing
  empty_pool
  check alert "$PROMETHEUS" PgweirClientsWaiting gone
  check alert "$PROMETHEUS" PgweirLongestWait gone
  touch "$WORK/stop"
  pooler_stop
  check alert "$PROMETHEUS" PgweirTargetDown firing
}

main() {
  throwaway_begin
  rm -rf "$KEEP_LOGS_IN"
  files
  if [[ ${1:-} != files ]]; then live; fi
  results
}

main "$@"
