# shellcheck shell=bash
# Backups to an S3 server that checks signatures, point-in-time recovery, and the restore test; once for each engine.

part_backup() {
  part_backup_engine pgbackrest
  if [[ -n ${WALG:-} ]]; then
    fresh_env
    down
    part_backup_engine walg
  else
    say "not run: backup with WAL-G, for want of a binary (WALG=/path/to/wal-g)"
  fi
}

part_backup_engine() {
  local engine=$1 started before after
  set_env BACKUP_ENGINE "$engine"
  set_env BACKUP_S3_ENDPOINT https://s3:9000
  set_env BACKUP_S3_BUCKET backups
  set_env BACKUP_S3_CA_FILE /run/secrets/ca.crt
  check "$engine: S3 server, primary" up s3 postgres client || return
  check "$engine: a wrong key is refused" wrong_key_is_refused
  make_bench_tables postgres 2 >/dev/null
  as_superuser postgres app 'SET ROLE admin; CREATE TABLE app.kept (n int); INSERT INTO app.kept SELECT generate_series(1, 1000)' >/dev/null

  started=$(now_ms)
  check "$engine: a full backup" backup push full || return
  measured "$engine: full backup" "$(seconds_since "$started")" "backup push full, $(as_superuser postgres app "SELECT pg_size_pretty(sum(pg_database_size(datname))) FROM pg_database") of databases, to an S3 server on the same machine"
  as_superuser postgres app "INSERT INTO app.kept SELECT generate_series(1001, 2000)" >/dev/null
  check "$engine: a differential backup" backup push differential
  check "$engine: both are listed" backups_are_listed "$engine"
  check "$engine: WAL is archived" within 60 equals t as_superuser postgres app 'SELECT archived_count > 0 FROM pg_stat_archiver'
  check "$engine: verify" backup verify
  check "$engine: prune" backup prune
  check "$engine: the bucket holds nothing that can be read" bucket_is_encrypted

  part_backup_scheduler "$engine"

  # After the backup: rows, the time, a mistake.
  as_superuser postgres app "INSERT INTO app.kept SELECT generate_series(2001, 3000)" >/dev/null
  before=$(as_superuser postgres app 'SELECT clock_timestamp()')
  as_superuser postgres app 'SELECT pg_sleep(1.1)' >/dev/null
  as_superuser postgres app 'DROP TABLE app.kept; SET ROLE admin; CREATE TABLE app.later (n int)' >/dev/null
  after=$(as_superuser postgres app 'SELECT pg_walfile_name(pg_switch_wal())')
  check "$engine: the mistake's WAL is archived" within 60 equals t as_superuser postgres app "SELECT last_archived_wal >= '$after' FROM pg_stat_archiver"
  check "$engine: a running server is not overwritten" refused "PostgreSQL is running" backup restore --replace

  started=$(now_ms)
  recover "$engine" pitr "$before" || return
  check "$engine: the rows are back" within 60 equals 3000 as_superuser postgres app 'SELECT count(*) FROM app.kept'
  check "$engine: writes go on" within 60 equals f as_superuser postgres app 'SELECT pg_is_in_recovery()'
  measured "$engine: recovery to a point in time" "$(seconds_since "$started")" "from the stop of PostgreSQL until it takes writes again"
  check "$engine: what came later is not there" equals '' as_superuser postgres app "SELECT to_regclass('app.later')"
  check "$engine: a backup of the new timeline" backup push full

  as_superuser postgres app "INSERT INTO app.kept VALUES (3001)" >/dev/null
  after=$(as_superuser postgres app 'SELECT pg_walfile_name(pg_switch_wal())')
  check "$engine: its WAL is archived" within 60 equals t as_superuser postgres app "SELECT last_archived_wal >= '$after' FROM pg_stat_archiver"
  started=$(now_ms)
  check "$engine: all data is lost" lose_everything
  recover "$engine" restore || return
  check "$engine: everything is back" within 60 equals 3001 as_superuser postgres app 'SELECT count(*) FROM app.kept'
  check "$engine: and takes writes" within 60 equals f as_superuser postgres app 'SELECT pg_is_in_recovery()'
  measured "$engine: full restore onto an empty volume" "$(seconds_since "$started")" "from the loss of the volume until it takes writes again"
}

backup() { compose exec -T postgres backup "$@"; }

backups_are_listed() {
  local list
  list=$(backup list)
  case $1 in
    pgbackrest) grep -q 'full backup' <<<"$list" && grep -q 'diff backup' <<<"$list" ;;
    walg) (($(grep -c base_ <<<"$list") >= 2)) ;;
  esac
}

wrong_key_is_refused() {
  refused "403 (Forbidden)" compose exec -T -e SECRETS_DIR=/tmp/wrong postgres bash -c 'mkdir -p /tmp/wrong; cp /run/secrets/* /tmp/wrong
    rm -f /tmp/wrong/backup_s3_secret; echo 0123456789012345678901234567890123456789 >/tmp/wrong/backup_s3_secret; backup push full'
}

# Neither names of tables nor what a page of PostgreSQL begins with.
bucket_is_encrypted() { ! compose exec -T s3 grep -rqlF 'CREATE TABLE' /data && [[ $(compose exec -T s3 find /data -type f | wc -l) -gt 5 ]]; }

# The service takes over: it makes what is due, tests the restore, and tells Prometheus.
part_backup_scheduler() {
  local engine=$1
  check "$engine: the scheduler's service comes up" up backup
  check "$engine: it makes a full backup and tests the restore" within 240 metric_is backup_restore_test_last_result 1
  check "$engine: it tells of the backup" metric_is backup_last_result 1
  check "$engine: and when it was" backup_is_young
  local started
  started=$(now_ms)
  check "$engine: a restore test by hand" restore_test_by_hand
  measured "$engine: restore test" "$(seconds_since "$started")" "docker/scripts/test-restore"
  check "$engine: but not two at a time" refused "another restore test is running" \
    compose exec -T backup flock /var/lib/backup-scratch/.lock backup test-restore
  compose stop backup >/dev/null 2>&1
}

restore_test_by_hand() {
  timeout 300 "$ROOT_DIR/docker/scripts/test-restore" --file "$WORK/compose.test.yaml" --env-file "$WORK/env"
}

metrics() { compose exec -T client curl --silent --fail http://backup:9188/metrics; }
metric_is() { metrics | grep -q "^$1{.*} $2\$"; }
backup_is_young() {
  metrics | awk -v now="$(date +%s)" '/^backup_last_success_timestamp_seconds/ { found = 1; if (now - $2 > 600) exit 1 } END { exit !found }'
}

# recover ENGINE restore|pitr [TIME]: as the runbook tells.
recover() {
  local engine=$1
  shift
  check "$engine: $1: PostgreSQL sleeps" env_up PG_MAINTENANCE=1 postgres || return
  check "$engine: $1" backup "$@" --replace || return
  check "$engine: $1: PostgreSQL wakes" env_up PG_MAINTENANCE=0 postgres
}

lose_everything() {
  compose rm --force --stop --volumes postgres && compose rm --force --stop backup && docker volume rm "${PROJECT}_postgres-data"
}
