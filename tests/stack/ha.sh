# shellcheck shell=bash
# What stands in single quotes is expanded in a container.
# shellcheck disable=SC2016
# Patroni and etcd, and the pooler that follows the leader: switchover and the leader's sudden death while writers write. A row whose
# INSERT was acknowledged must be there afterwards.

WRITERS=4

part_ha() {
  local started
  started=$(now_ms)
  check "three of etcd, three of PostgreSQL, a pooler that follows" up pgweir-ha client || return
  measured "start of an empty cluster" "$(seconds_since "$started")" "compose up pgweir-ha with empty volumes, until the pooler is started"
  check "two replicas stream" within 90 equals 2 streaming_count
  check "one of them is synchronous" within 60 has_synchronous_standby
  check "members and etcd are known by address" equals 0 names_in_patroni
  check "data checksums" equals on on_leader 'SHOW data_checksums'
  check "slots are active" within 30 equals 2 on_leader 'SELECT count(*) FROM pg_replication_slots WHERE active'
  check "the watchdog is set where there is a device" watchdog_is_right
  on_leader 'SET ROLE admin; CREATE TABLE app.acknowledged (writer int, n int, PRIMARY KEY (writer, n))' >/dev/null
  check "writes go through the pooler" within 30 as_user app pgweir-ha:6432 app 'INSERT INTO acknowledged VALUES (0, 0)'
  check "reads of app_ro come from replicas" within 60 equals t as_user app pgweir-ha:6432 app_ro 'SELECT pg_is_in_recovery()'

  part_ha_event switchover switch_over leader_is_new
  check "the old leader follows the new one" within 60 equals 2 streaming_count
  part_ha_event "SIGKILL of the leader's container" kill_leader leader_is_new
  check "the killed member comes back as a replica" within 120 killed_member_streams
  part_ha_event "SIGKILL of the leader's postmaster" kill_postmaster somebody_leads
  check "all members are well" within 120 equals 2 streaming_count
  part_ha_reinit
}

# The runbook: a member is copied anew from the leader; what was in its data directory is gone.
part_ha_reinit() {
  local member
  member=$(cluster | jq --raw-output '[.members[] | select(.role != "leader")][0].name')
  compose exec -T "$member" bash -c 'touch "$PGDATA/mark"'
  check "a member is copied anew when that is asked for" compose exec -T "$member" patronictl -c /run/postgresql/patroni.yml reinit --force pgweir "$member"
  check "its old data is gone" within 120 compose exec -T "$member" bash -c '[[ -s $PGDATA/PG_VERSION && ! -e $PGDATA/mark ]]'
  check "and it streams" within 120 equals 2 streaming_count
}

any_member() {
  local member
  for member in pg1 pg2 pg3; do
    if [[ $(docker inspect --format '{{.State.Running}}' "$(container "$member")" 2>/dev/null) == true ]]; then printf '%s' "$member"; return; fi
  done
}

cluster() { compose exec -T "$(any_member)" curl --silent --max-time 3 http://127.0.0.1:8008/cluster; }
leader() { cluster | jq --raw-output '.members[] | select(.role == "leader" and .state == "running") | .name'; }
streaming_count() { cluster | jq '[.members[] | select(.role != "leader" and .state == "streaming")] | length'; }
has_synchronous_standby() { [[ $(cluster | jq '[.members[] | select(.role == "sync_standby")] | length') == 1 ]]; }
on_leader() { as_superuser "$(leader)" app "$1"; }
names_in_patroni() { compose exec -T pg1 grep -cE '(connect_address|hosts):.*[a-z]{3}' /run/postgresql/patroni.yml || true; }

watchdog_is_right() {
  local wanted=off
  if compose exec -T pg1 test -w /dev/watchdog; then wanted=automatic; fi
  compose exec -T pg1 grep -A1 '^watchdog:' /run/postgresql/patroni.yml | grep -q "mode: $wanted"
}

switch_over() { compose exec -T "$old_leader" patronictl -c /run/postgresql/patroni.yml switchover --leader "$old_leader" --force pgweir; }
kill_leader() { docker kill --signal KILL "$(container "$old_leader")"; }
kill_postmaster() { compose exec -T "$old_leader" bash -c 'kill -KILL "$(head -n 1 "$PGDATA/postmaster.pid")"'; }

# An engine does not start again what was killed by hand.
killed_member_streams() { compose up --detach --no-build --no-deps "$old_leader" >/dev/null 2>&1; [[ $(streaming_count) == 2 ]]; }

leader_is_new() { local now; now=$(leader); [[ -n $now && $now != "$old_leader" ]]; }

# Where PostgreSQL alone died Patroni may start it again in its place, or let another lead: both are right.
somebody_leads() { [[ -n $(leader) ]]; }

# part_ha_event NAME COMMAND CONDITION: happens while the writers write, after which this must hold.
part_ha_event() {
  local event=$1 dir=/tmp/writers at writer
  old_leader=$(leader)
  compose exec -T client bash -c "rm -rf $dir; mkdir $dir"
  for ((writer = 1; writer <= WRITERS; writer++)); do
    compose exec -T --detach client /stack/inside/writer.sh "$((writer + event_number * WRITERS))" pgweir-ha "$dir"
  done
  event_number=$((event_number + 1))
  check "$event: writers write" within 30 acknowledged_after 0 "$WRITERS" || return
  at=$(now_ms)
  check "$event happens" "$2" || return
  check "$event: ${3//_/ }" within 90 "$3"
  check "$event: every writer's rows are acknowledged again" within 90 acknowledged_after "$(now_ms)" "$WRITERS"
  compose exec -T client touch "$dir/stop"
  check "$event: the writers end" within 100 writers_ended
  compose exec -T client bash -c "cat $dir/acknowledged.*" >"$WORK/acknowledged"
  compose exec -T client bash -c "cat $dir/errors.* 2>/dev/null" >"$WORK/errors" || true
  measured "$event: longest time without an acknowledged write" "$(longest_gap "$at")" "$WRITERS sessions of single-row INSERTs through the pooler"
  measured "$event: errors the writers saw" "$(grep -cE 'ERROR|FATAL|error:' "$WORK/errors" || true) in $WRITERS sessions" "of $(wc -l <"$WORK/acknowledged") acknowledged rows"
  check "$event: no acknowledged row is lost" within 30 nothing_lost "$dir"
}
event_number=0 old_leader=

# acknowledged_after MS COUNT: so many writers had a row acknowledged after that time.
acknowledged_after() {
  [[ $(compose exec -T client bash -c "tail -qn 1 /tmp/writers/acknowledged.* 2>/dev/null" | awk -v after="$1" '$2 > after' | wc -l) == "$2" ]]
}

writers_ended() { fails compose exec -T client bash -c 'grep -qsz "[w]riter[.]sh" /proc/[0-9]*/cmdline'; }

# Over all writers, beginning at the event.
longest_gap() {
  awk '{ print $2 }' "$WORK/acknowledged" | sort -n | awk -v at="$1" \
    '$1 >= at - 1000 { if (last && $1 - last > gap) gap = $1 - last; last = $1 } END { printf "%.1f s", gap / 1000 }'
}

# Every acknowledged row is in the table, which the leader shows.
nothing_lost() {
  local missing
  compose exec -T client bash -c "for f in $1/acknowledged.*; do awk -v w=\"\${f##*.}\" '{ print w \"|\" \$1 }' \"\$f\"; done" | sort >"$WORK/acknowledged.rows"
  on_leader 'SELECT writer, n FROM app.acknowledged' | sort >"$WORK/present.rows"
  missing=$(comm -23 "$WORK/acknowledged.rows" "$WORK/present.rows" | wc -l)
  [[ -s $WORK/acknowledged.rows && $missing == 0 ]] || { say "$missing acknowledged rows are missing"; return 1; }
}
