# shellcheck shell=bash
# Prometheus sees every target, the exporter sees the replicas, and an alert fires and clears. Asked more often than in use, so that the
# test need not wait for minutes.

part_monitoring() {
  rm -rf "$WORK/monitoring"
  cp -R "${MONITORING_CONFIG:-$ROOT_DIR/config/monitoring}" "$WORK/monitoring"
  sed -i -E 's/(scrape_interval|evaluation_interval): [0-9]+s/\1: 3s/; s/scrape_timeout: .*/scrape_timeout: 3s/' "$WORK/monitoring/prometheus.yml"
  sed -i -E 's/group_wait: .*/group_wait: 1s/; s/group_interval: .*/group_interval: 2s/' "$WORK/monitoring/alertmanager.yml"
  set_env MONITORING_CONFIG "$WORK/monitoring"
  set_env BACKUP_ENGINE pgbackrest
  set_env BACKUP_S3_ENDPOINT https://s3:9000
  set_env BACKUP_S3_BUCKET backups
  set_env BACKUP_S3_CA_FILE /run/secrets/ca.crt
  check "primary, pooler, a replica, backups" up postgres pgweir client s3 replica1 backup || return
  install_monitoring_functions
  check "Prometheus, Alertmanager, postgres_exporter" up prometheus alertmanager postgres_exporter || return
  check "every target is up" within 90 all_targets_are_up
  check "every rule is evaluated" within 60 rules_are_well
  check "as many rules as the files hold" equals "$(rules_in_files)" rules_in_prometheus
  check "the replica is seen" within 60 prometheus_has 'postgres_replication_lag_bytes{application_name="replica1", state="streaming"}'
  check "what needs functions of ours is seen" within 60 prometheus_has 'postgres_statement_calls_total{datname="app"} and on() postgres_checkpoints_timed_total'
  check "no query of the exporter fails" within 60 prometheus_has 'pg_exporter_last_scrape_error == 0'
  as_user app pgweir:6432 app 'SELECT 1' >/dev/null
  check "the pooler is seen" within 60 prometheus_has 'pgweir_ready == 1 and on() pgbouncer_pools_server_idle_connections{database="app"} > 0'
  check "a full backup is seen" within 240 prometheus_has 'backup_last_success_timestamp_seconds{engine="pgbackrest", type="full"}'
  check "and its size" within 30 prometheus_has 'backup_last_size_bytes{engine="pgbackrest", type="full"} > 1e6'
  check "a restore test is seen" within 240 prometheus_has 'backup_restore_test_last_result == 1'
  check "PostgreSQL's certificate is seen" within 30 prometheus_has 'postgres_tls_certificate_expiry_timestamp_seconds > time()'
  check "no alert of the restore test" alert_is RestoreTestFailed absent
  compose stop s3 >/dev/null 2>&1
  check "a restore test without the bucket fails" fails compose exec -T -e ARCHIVE_SECONDS=10 backup backup test-restore
  check "the alert fires" within 120 alert_is RestoreTestFailed active
  check "the bucket is back" up s3
  check "a restore test with it succeeds" compose exec -T backup backup test-restore
  check "the alert clears" within 120 alert_is RestoreTestFailed absent
}

# What the exporter's queries call, in the database that it connects to.
install_monitoring_functions() { as_superuser postgres app "$(<"$WORK/monitoring/postgres_exporter.sql")" >/dev/null; }

get() { compose exec -T client curl --silent --fail --max-time 5 "$@"; }
query() { get --get --data-urlencode "query=$1" http://prometheus:9090/api/v1/query; }
prometheus_has() { [[ $(query "$1" | jq '.data.result | length') -gt 0 ]]; }

rules() { get http://prometheus:9090/api/v1/rules | jq "[.data.groups[].rules[]] | $1"; }
rules_are_well() { [[ $(rules 'map(select(.health != "ok" or .lastError)) | length') == 0 ]]; }
rules_in_prometheus() { rules length; }
rules_in_files() { cat "$WORK"/monitoring/rules/*.yml | grep -cE '^ *- (alert|record):'; }

all_targets_are_up() {
  local targets
  targets=$(get http://prometheus:9090/api/v1/targets | jq --raw-output '.data.activeTargets[] | "\(.labels.job) \(.health) \(.lastError)"' | sort)
  say "$targets"
  [[ $targets == $'backup up \npgweir up \npostgresql up \nprometheus up ' ]]
}

# alert_is NAME active|absent: as Alertmanager has it.
alert_is() {
  local found
  found=$(get "http://alertmanager:9093/api/v2/alerts?filter=alertname%3D%22$1%22&active=true" | jq length)
  case $2 in active) ((found > 0)) ;; absent) ((found == 0)) ;; esac
}
