# shellcheck shell=bash
# What stands in single quotes is expanded in a container.
# shellcheck disable=SC2016
# Two physical replicas: slots, rows, lag under load, reads spread by the pooler; synchronous and cascading replication.

part_replicas() {
  local started
  check "primary and pooler" up postgres pgweir client || return
  make_bench_tables postgres 2 >/dev/null
  started=$(now_ms)
  check "replicas come up" up replica1 replica2 || return
  measured "two replicas, copied and streaming" "$(seconds_since "$started")" "compose up of both with empty volumes, until healthy"
  check "both slots are active" within 30 equals $'replica1|t\nreplica2|t' as_superuser postgres app \
    'SELECT slot_name, active FROM pg_replication_slots ORDER BY 1'
  check "replicas say what they hold back" equals on as_superuser replica1 app 'SHOW hot_standby_feedback'
  check "replication is encrypted" equals 2 as_superuser postgres app \
    'SELECT count(*) FROM pg_stat_replication JOIN pg_stat_ssl USING (pid) WHERE ssl'
  as_superuser postgres app 'SET ROLE admin; CREATE TABLE app.marks (n int)' >/dev/null
  check "a row" as_user app pgweir:6432 app 'INSERT INTO marks VALUES (42)'
  check "is on replica1" within 10 equals 42 as_superuser replica1 app 'SELECT n FROM app.marks'
  check "is on replica2" within 10 equals 42 as_superuser replica2 app 'SELECT n FROM app.marks'
  check "a replica does not write" refused "read-only transaction" as_superuser replica1 app 'INSERT INTO app.marks VALUES (1)'

  part_replicas_reads
  part_replicas_lag
  part_replicas_synchronous
  part_replicas_cascade
  part_replicas_lost
}

addresses_of_reads() { # addresses_of_reads COUNT: where so many reads were served, each address once
  compose exec -T client bash -c 'for _ in $(seq "$1"); do
    PGPASSWORD=$(</run/secrets/app_password) psql --no-psqlrc -Atq "host=pgweir port=6432 user=app dbname=app_ro" -c "SELECT inet_server_addr() FROM pg_sleep(0.2)" &
    done; wait' _ "$1" | sort -u
}

address_of() { compose exec -T "$1" hostname -i | tr -d '\r'; }

both_replicas_serve() { [[ $(addresses_of_reads 8) == "$( (address_of replica1; address_of replica2) | sort -u)" ]]; }

part_replicas_reads() {
  check "reads of app_ro are spread over both replicas" within 30 both_replicas_serve
  check "app stays on the primary" equals f as_user app pgweir:6432 app 'SELECT pg_is_in_recovery()'
  compose stop replica1 >/dev/null 2>&1
  check "a dead replica is passed over" within 30 reads_from_alone replica2
  up replica1 >/dev/null 2>&1
  check "one that is back is used again" within 60 both_replicas_serve_anew
}

reads_from_alone() { [[ $(addresses_of_reads 4) == "$(address_of "$1")" ]]; }

# Connections that are there are kept; RECONNECT makes the pooler take both into account at once.
both_replicas_serve_anew() { compose_console 'RECONNECT app_ro' >/dev/null && both_replicas_serve; }

# The largest lag in bytes and in time that was seen while pgbench wrote.
part_replicas_lag() {
  local worst
  bench pgweir --no-vacuum --client=8 --jobs=2 --time=15 --rate=200 app >"$WORK/lag.bench" 2>&1 &
  local load=$!
  worst=$(as_superuser postgres app "CREATE TEMP TABLE seen (ms numeric, bytes bigint);
    DO \$\$ BEGIN FOR i IN 1..60 LOOP
      INSERT INTO seen SELECT 1000 * coalesce(extract(epoch FROM replay_lag), 0), pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn) FROM pg_stat_replication;
      COMMIT; PERFORM pg_sleep(0.2); END LOOP; END \$\$;
    SELECT round(max(ms)), round(percentile_cont(0.5) WITHIN GROUP (ORDER BY ms)::numeric, 1), max(bytes), count(*) FROM seen")
  wait "$load" || true
  check "pgbench wrote meanwhile" grep -q 'number of failed transactions: 0' "$WORK/lag.bench"
  IFS='|' read -r max_ms median_ms bytes count <<<"$worst"
  measured "lag of replicas, median / worst" "$median_ms / $max_ms ms" "pg_stat_replication.replay_lag every 0.2 s, pgbench at 200 transactions/s through the pooler; worst $bytes bytes"
  check "the lag was seen, of both replicas" test "${count:-0}" -ge 100
  check "the median lag is under 500 ms" awk -v ms="$median_ms" 'BEGIN { exit !(ms < 500) }'
}

part_replicas_synchronous() {
  check "synchronous: any one of two" env_up PG_SYNCHRONOUS_STANDBY_NAMES='ANY 1 (replica1, replica2)' postgres
  check "both are in the quorum" within 30 equals $'quorum\nquorum' as_superuser postgres app 'SELECT sync_state FROM pg_stat_replication'
  check "a commit goes on with one replica down" commits_with_one_down
  check "both replicas hang" freeze replica1 replica2
  check "and waits for a replica when both hang" fails timeout 5 docker exec "$(container postgres)" psql -U postgres -d app -c 'INSERT INTO app.marks VALUES (43)'
  check "both replicas go on" thaw replica1 replica2
  check "asynchronous again" env_up PG_SYNCHRONOUS_STANDBY_NAMES= postgres
  check "both are asynchronous" within 30 equals $'async\nasync' as_superuser postgres app 'SELECT sync_state FROM pg_stat_replication'
}

# freeze SERVICE..., thaw SERVICE...: a busy kernel may need more than one try.
freeze() {
  local service
  for service; do within 30 set_paused true pause "$service" || return; done
}

thaw() {
  local service
  for service; do within 30 set_paused false unpause "$service" || return; done
}

# set_paused STATE COMMAND SERVICE
set_paused() {
  local id
  id=$(container "$3")
  [[ $(docker inspect --format '{{.State.Paused}}' "$id") == "$1" ]] || docker "$2" "$id"
}

commits_with_one_down() {
  local status=0
  freeze replica1 || return
  timeout 20 docker exec "$(container postgres)" psql -U postgres -d app -c 'INSERT INTO app.marks VALUES (44)' || status=$?
  thaw replica1 || return
  return "$status"
}

part_replicas_cascade() {
  check "cascade: replica2 follows replica1" recreate_replica2 replica1
  check "replica1 sends to replica2" within 30 equals replica2 as_superuser replica1 app 'SELECT application_name FROM pg_stat_replication'
  as_superuser postgres app 'INSERT INTO app.marks VALUES (45)' >/dev/null
  check "rows get through both" within 20 equals 45 as_superuser replica2 app 'SELECT n FROM app.marks WHERE n = 45'
  as_superuser postgres app "SELECT pg_drop_replication_slot('replica2')" >/dev/null
  check "back to the primary" recreate_replica2 postgres
  check "replica2's slot is there again" within 30 equals t as_superuser postgres app "SELECT active FROM pg_replication_slots WHERE slot_name = 'replica2'"
}

recreate_replica2() {
  set_env REPLICA2_UPSTREAM "$1"
  compose rm --force --stop --volumes replica2 && docker volume rm "${PROJECT}_replica2-data" && up replica2
}

# The runbook for a lost replica: its slot is still there, and is replaced.
part_replicas_lost() {
  check "a replica whose volume is lost is copied anew" recreate_replica2 postgres
  check "with a slot" within 30 equals t as_superuser postgres app "SELECT active FROM pg_replication_slots WHERE slot_name = 'replica2'"
  check "and has the rows" within 20 equals 42 as_superuser replica2 app 'SELECT n FROM app.marks WHERE n = 42'
}
