# shellcheck shell=bash
# An empty volume becomes a cluster. All work is done in a directory beside PGDATA, which takes its name when nothing is missing: an
# interrupted start leaves no half cluster behind. Sourced; needs utils.sh, environment.sh and runtime.sh.

SQL_DIR=${SQL_DIR:-/usr/local/share/pgweir-postgres/sql}

is_initialised() { [[ -s $PGDATA/PG_VERSION ]]; }

# A data directory of another major version needs an upgrade, not a start.
check_version() {
  local found
  found=$(<"$PGDATA/PG_VERSION")
  [[ $found == "$PG_VERSION" ]] || die "the data directory is of PostgreSQL $found, this image has $PG_VERSION: see the runbook on major upgrades"
}

init_primary() {
  local fresh=$PGDATA.init
  rm -rf "$fresh"
  log "making a cluster"
  initdb --pgdata="$fresh" --username=postgres --pwfile="$SECRETS_DIR/postgres_password" --auth=scram-sha-256 \
    --data-checksums --encoding=UTF8 --locale-provider=builtin --builtin-locale=C.UTF-8 --locale=C.UTF-8 >/dev/null
  PGDATA=$fresh write_config
  start_locally "$fresh"
  PGHOST=$RUN_DIR/init run_sql
  pg_ctl --pgdata="$fresh" --mode=fast --wait --silent stop
  mv "$fresh" "$PGDATA"
}

# By a socket of its own alone, where neither healthcheck nor pooler looks: what is not finished is not healthy. And nothing that would write
# the passwords into a log.
start_locally() {
  mkdir -p "$RUN_DIR/init"
  pg_ctl --pgdata="$1" --wait --timeout=60 --silent --log=/dev/null start \
    --options="-c listen_addresses='' -c unix_socket_directories=$RUN_DIR/init -c archive_mode=off -c synchronous_standby_names='' -c log_min_duration_statement=-1 \
    -c log_min_error_statement=panic -c shared_preload_libraries=pg_stat_statements"
}

# Roles, database and schema. Also run by Patroni on the first leader.
run_sql() {
  local name
  for name in app monitor replicator pgweir_auth; do
    export "${name^^}_PASSWORD=$(secret "${name}_password")"
  done
  if has_secret rewind_password; then
    REWIND_PASSWORD=$(secret rewind_password)
    export REWIND_PASSWORD
  fi
  export PG_DATABASE PG_APP_USER
  sql_file postgres "$SQL_DIR/10-roles.sql"
  sql_file "$PG_DATABASE" "$SQL_DIR/20-schema.sql"
  sql_file "$PG_DATABASE" "$SQL_DIR/30-auth-query.sql"
  if has_secret rewind_password; then sql_file postgres "$SQL_DIR/40-rewind.sql"; fi
  if [[ $PG_EXAMPLES == 1 ]]; then sql_file "$PG_DATABASE" "$SQL_DIR/50-partitions.sql"; fi
}

# sql_file DATABASE FILE
sql_file() {
  log "running ${2##*/}"
  psql --no-psqlrc --quiet --username=postgres --dbname="$1" --set=ON_ERROR_STOP=1 --file="$2" >/dev/null
}

upstream_accepts() { pg_isready --quiet --host="$PG_UPSTREAM_HOST" --port="$PG_UPSTREAM_PORT" --timeout=3; }

# replication_command COMMAND: of the replication protocol, at the upstream.
replication_command() {
  psql "$(upstream_conninfo) dbname=postgres replication=true" --no-psqlrc --quiet --tuples-only --no-align --command="$1"
}

# Whether there is a slot of this name already, as after a replica's volume was lost.
slot_exists() {
  local found
  found=$(replication_command "READ_REPLICATION_SLOT $PG_SLOT") || die "cannot ask $PG_UPSTREAM_HOST for the slot $PG_SLOT"
  [[ $found == physical* ]]
}

drop_slot() { replication_command "DROP_REPLICATION_SLOT $PG_SLOT"; }

# The slot is made before the copy begins, and holds WAL from then on: pg_basebackup makes one only after the copy has begun, when a
# checkpoint (as of another copy) may have taken away what it needs. One that is there may have been given up, so it is replaced.
make_slot() {
  if slot_exists; then until_true 60 drop_slot || die "the slot $PG_SLOT is in use: by another replica of the same name?"; fi
  replication_command "CREATE_REPLICATION_SLOT $PG_SLOT PHYSICAL (RESERVE_WAL)" >/dev/null || die "cannot make the slot $PG_SLOT"
}

init_replica() {
  local fresh=$PGDATA.init
  rm -rf "$fresh"
  log "waiting for $PG_UPSTREAM_HOST"
  until_true 120 upstream_accepts || die "$PG_UPSTREAM_HOST:$PG_UPSTREAM_PORT does not accept connections"
  make_slot
  log "copying $PG_UPSTREAM_HOST, slot $PG_SLOT"
  pg_basebackup --pgdata="$fresh" --dbname="$(upstream_conninfo)" --wal-method=stream --checkpoint=fast --slot="$PG_SLOT" \
    || die "the copy failed"
  # Settings of the other server's ALTER SYSTEM are not ours, nor is an old target of recovery.
  rm -f "$fresh/recovery.signal"
  touch "$fresh/standby.signal"
  mv "$fresh" "$PGDATA"
}
