#!/usr/bin/env bash
# Operations under load. First 500 clients with prepared statements on 20 servers, while the console does RELOAD, RECONNECT and
# PAUSE/RESUME over and over: not one client may see an error. Then PostgreSQL is killed under load and started again: the pooler
# must go on serving, with its pool back at full size and nothing leaked. Prints `ok`/`FAIL` lines, ends with `N passed, N failed`.
#
# usage: tests/soak.sh [SECONDS]   (default 60; PostgreSQL is killed once per 20 seconds, at least once)
set -uo pipefail
# shellcheck source=tests/throwaway.sh
source "$(dirname "${BASH_SOURCE[0]}")/throwaway.sh"

SOAK_SECONDS=${1:-60}
CLIENTS=500
POOL_SIZE=20
CRASH_CLIENTS=100
KEEP_LOGS_IN=$TARGET_DIR/soak-logs
CONSOLE_SECONDS_MAX=20

# bench CLIENTS SECONDS LOG: reads through the pooler; fails when pgbench does or anything is written to stderr.
bench() {
  timeout $(($2 + 60)) pgbench -n -S -M prepared -c "$1" -j 2 -T "$2" -h 127.0.0.1 -p "$POOLER_PORT" -U weir soak \
    >"$3" 2>"$3.err" </dev/null && [[ ! -s $3.err ]] && grep -q '^number of failed transactions: 0 ' "$3"
}

processed() { sed -n 's/^number of transactions actually processed: \([0-9]*\).*/\1/p' "$1"; }

# operator COMMAND: one console command that must succeed within its time; failures are kept.
operator() {
  timeout "$CONSOLE_SECONDS_MAX" psql -X -q -v ON_ERROR_STOP=1 \
    "host=127.0.0.1 port=$POOLER_PORT user=weir_admin password=console dbname=pgbouncer" -c "$1" >"$WORK/console.out" 2>&1 ||
    say "$1: $(cat "$WORK/console.out")" >>"$WORK/log/console-failed.log"
}

# Round after round of what an operator may do while clients are at work, until there is a file $WORK/stop.
operate() {
  while [[ ! -e $WORK/stop ]]; do
    operator RELOAD
    sleep 0.2
    operator RECONNECT
    sleep 0.3
    operator PAUSE
    sleep 0.2
    operator RESUME
    sleep 0.3
    say round >>"$WORK/rounds"
  done
}

# load: clients that come back after every failure, until there is a file $WORK/stop.
load() {
  while [[ ! -e $WORK/stop ]]; do
    bench "$CRASH_CLIENTS" 3 "$WORK/load.log" || sleep 0.2
  done
}

# stop_loops: ends what runs until $WORK/stop, and waits for it.
stop_loops() {
  touch "$WORK/stop"
  wait "${CHILDREN[@]}"
  CHILDREN=()
  rm "$WORK/stop"
}

under_operation() {
  local log=$WORK/log/operated.log rounds
  child operate
  verdict "$CLIENTS clients on $POOL_SIZE servers for $SOAK_SECONDS s of RELOAD, RECONNECT, PAUSE and RESUME" \
    bench "$CLIENTS" "$SOAK_SECONDS" "$log"
  stop_loops
  head -n 5 "$log.err"
  rounds=$(wc -l <"$WORK/rounds")
  say "# $(processed "$log") transactions, $rounds rounds of console commands"
  verdict "every console command succeeded" test ! -e "$WORK/log/console-failed.log"
  verdict "the console kept answering" test "$rounds" -ge $((SOAK_SECONDS / 10))
  settled "after the operations"
}

under_crashes() {
  local crash crashes=$((SOAK_SECONDS / 20))
  for ((crash = 1; crash <= (crashes > 0 ? crashes : 1); crash++)); do
    child load
    sleep 3
    cluster_kill
    sleep 2
    cluster_start
    verdict "crash $crash: served again" wait_until 20 "a query to be served" one_query
    sleep 3
    stop_loops
    verdict "crash $crash: no error afterwards" bench "$CRASH_CLIENTS" 3 "$WORK/log/after-crash-$crash.log"
    settled "crash $crash"
  done
}

one_query() { [[ $(pooled -c 'SELECT 42') == 42 ]]; }

pooled() {
  timeout 20 psql -X -qAt "host=127.0.0.1 port=$POOLER_PORT user=weir password=weir dbname=soak" "$@" 2>>"$WORK/log/pooled.log"
}

server_processes() {
  direct postgres -c "SELECT count(*) FROM pg_stat_activity WHERE usename = 'weir' $*"
}

# settled WHEN: nothing waits or is held, and every one of the pool's servers can still be had, but not one more.
settled() {
  verdict "$1: pools at rest" wait_until 20 "the pools to be at rest" pools_at_rest "$POOL_SIZE" "$WORK/log/pools.txt"
  verdict "$1: no more than $POOL_SIZE server processes" test "$(server_processes)" -le "$POOL_SIZE"
  verdict "$1: the pool reaches its full size" full_size
  verdict "$1: pools at rest again" wait_until 20 "the pools to be at rest" pools_at_rest "$POOL_SIZE" "$WORK/log/pools.txt"
}

# Twice as many clients as servers, sleeping in PostgreSQL: exactly the pool's size of them may sleep at a time, and all get there.
full_size() {
  local n most=0 now done_before sleepers=()
  done_before=$SECONDS
  for ((n = 0; n < 2 * POOL_SIZE; n++)); do
    pooled -c 'SELECT pg_sleep(2)' >/dev/null &
    sleepers+=($!)
  done
  while ((SECONDS - done_before < 15)) && kill -0 "${sleepers[@]}" 2>/dev/null; do
    now=$(server_processes "AND state = 'active' AND query LIKE '%pg_sleep(2)%'")
    ((now > most)) && most=$now
    sleep 0.2
  done
  for n in "${sleepers[@]}"; do wait "$n" || { say "# a sleeper failed"; return 1; }; done
  say "# up to $most servers at work at a time"
  ((most == POOL_SIZE))
}

main() {
  export PGPASSWORD=weir
  throwaway_begin
  rm -rf "$KEEP_LOGS_IN"
  cluster_create 100
  cluster_users soak
  pgbench -i -q -s 5 -h "$WORK/run" -p "$PG_PORT" -U weir soak >"$WORK/log/init.log" 2>&1 || die "pgbench could not make its tables"
  pooler_ini transaction "$POOL_SIZE" "server_login_retry = 1"
  pooler_start
  under_operation
  under_crashes
  verdict "the pooler lived through it all" kill -0 "$POOLER_PID"
  verdict "no panic in its log" test "$(grep -c panicked "$WORK/log/pooler.log")" -eq 0
  results
}

main
