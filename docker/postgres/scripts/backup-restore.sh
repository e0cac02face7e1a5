# shellcheck shell=bash
# From the bucket back to a server: in place, or into a scratch server to see that it can be done.

SCRATCH_DIR=${SCRATCH_DIR:-/var/lib/backup-scratch}
SCRATCH_PORT=5499
# How long the restore test waits for the WAL that it needs to reach the bucket, and for the restored server.
ARCHIVE_SECONDS=${ARCHIVE_SECONDS:-120}
RESTORE_TEST_SECONDS=${RESTORE_TEST_SECONDS:-3600}

is_running() { pg_isready --quiet --host=/run/postgresql --timeout=2; }

# restore_in_place KIND TARGET [--replace]
restore_in_place() {
  local kind=$1 target=$2 aside started=$SECONDS
  if is_running; then die "PostgreSQL is running: stop it first (PG_MAINTENANCE=1 keeps the container up without it)"; fi
  if [[ -e $PGDATA ]]; then
    [[ ${3:-} == --replace ]] || die "$PGDATA is there: --replace puts it aside"
    aside=$PGDATA.before-$(date -u +%Y%m%dT%H%M%SZ)
    log "putting $PGDATA aside as $aside"
    mv "$PGDATA" "$aside"
  fi
  mkdir -m 0700 "$PGDATA"
  "${BACKUP_ENGINE}_fetch" "$PGDATA" "$kind" "$target"
  log "restored in $((SECONDS - started)) s; start PostgreSQL, which replays the WAL"
}

# Rows and a checksum of every table outside the system's schemas, one line a table. It does not depend on the order of rows.
MANIFEST_SQL="SELECT c.oid::pg_catalog.regclass,
    (pg_catalog.xpath('/row/n/text()', x))[1], (pg_catalog.xpath('/row/h/text()', x))[1]
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace,
    pg_catalog.query_to_xml(pg_catalog.format('SELECT count(*) AS n, coalesce(sum(pg_catalog.hashtextextended(t::text, 0)::numeric), 0) AS h FROM %s t',
      c.oid::pg_catalog.regclass), false, true, '') x
  WHERE c.relkind IN ('r', 'm') AND c.relpersistence = 'p' AND n.nspname NOT LIKE 'pg\_%' AND n.nspname <> 'information_schema'
  ORDER BY 1"

# source_manifest POINT: of the running server, with a restore point of this name set while nobody may write to these tables; that
# takes as long as reading them, and gives up after 5 s of waiting for a lock.
source_manifest() {
  psql --no-psqlrc --quiet --username=postgres --dbname="$PG_DATABASE" --no-align --tuples-only --set=ON_ERROR_STOP=1 --set=point="$1" <<SQL
SET search_path = '';
SET lock_timeout = '5s';
BEGIN;
SELECT pg_catalog.format('LOCK TABLE %s IN SHARE MODE', pg_catalog.string_agg(c.oid::pg_catalog.regclass::text, ', '))
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname NOT LIKE 'pg\_%' AND n.nspname <> 'information_schema'
  HAVING count(*) > 0 \gexec
$MANIFEST_SQL;
SELECT pg_catalog.pg_create_restore_point(:'point') \g /dev/null
COMMIT;
SELECT pg_catalog.pg_walfile_name(pg_catalog.pg_switch_wal()) \g $SCRATCH_DIR/segment
SQL
}

scratch_psql() {
  psql --no-psqlrc --quiet --host="$SCRATCH_DIR" --port="$SCRATCH_PORT" --username=postgres --dbname="$PG_DATABASE" \
    --no-align --tuples-only --set=ON_ERROR_STOP=1 "$@"
}

scratch_manifest() { scratch_psql --command="SET search_path = ''" --command="$MANIFEST_SQL"; }

segment_is_archived() {
  [[ $(psql --no-psqlrc --username=postgres --dbname=postgres --no-align --tuples-only \
    --command="SELECT last_archived_wal >= '$(<"$SCRATCH_DIR/segment")' FROM pg_stat_archiver") == t ]]
}

scratch_is_ready() { [[ $(scratch_psql --command='SELECT pg_is_in_recovery()' 2>/dev/null) == f ]]; }

# A server that nobody else can reach, and that archives nothing.
start_scratch() {
  pg_ctl --pgdata="$SCRATCH_DIR/data" --no-wait --silent --log="$SCRATCH_DIR/log" start --options="-p $SCRATCH_PORT \
    -c listen_addresses='' -c unix_socket_directories=$SCRATCH_DIR -c archive_mode=off -c logging_collector=off -c log_destination=stderr \
    -c shared_buffers=64MB -c shared_preload_libraries=pg_stat_statements -c synchronous_standby_names='' -c primary_conninfo=''" 9>&-
}

stop_scratch() {
  if [[ -e $SCRATCH_DIR/data/postmaster.pid ]]; then pg_ctl --pgdata="$SCRATCH_DIR/data" --mode=fast --wait --silent stop; fi
}

compare_restored() {
  local point
  point=restore_test_$(date +%s)
  source_manifest "$point" >"$SCRATCH_DIR/source" || die "the running server could not be read"
  until_true "$ARCHIVE_SECONDS" segment_is_archived || die "the WAL of the restore point was not archived within $ARCHIVE_SECONDS s"
  mkdir -m 0700 "$SCRATCH_DIR/data"
  "${BACKUP_ENGINE}_fetch" "$SCRATCH_DIR/data" name "$point"
  start_scratch
  until_true "$RESTORE_TEST_SECONDS" scratch_is_ready || { tail -n 20 "$SCRATCH_DIR/log" >&2; die "the restored server did not get ready"; }
  scratch_manifest >"$SCRATCH_DIR/restored"
  stop_scratch
  pg_checksums --check --pgdata="$SCRATCH_DIR/data" >/dev/null || die "checksums of the restored pages are wrong"
  diff "$SCRATCH_DIR/source" "$SCRATCH_DIR/restored" >&2 || die "the restored tables differ"
  log "restore test: $(wc -l <"$SCRATCH_DIR/source") tables are the same, all checksums are right"
}

clear_scratch() {
  stop_scratch
  rm -rf "$SCRATCH_DIR/data" "$SCRATCH_DIR/source" "$SCRATCH_DIR/restored" "$SCRATCH_DIR/segment" "$SCRATCH_DIR/log"
}

# In a subshell, so that a failure anywhere in it is a failure that is recorded. One at a time: there is one scratch server.
test_restore() {
  local started status=0
  exec 9>"$SCRATCH_DIR/.lock"
  flock --nonblock 9 || die "another restore test is running"
  started=$(date +%s)
  clear_scratch
  set +e
  (set -e; compare_restored)
  status=$?
  set -e
  clear_scratch
  record_restore_test "$started" "$((status == 0))"
  return "$status"
}
