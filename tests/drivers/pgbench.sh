#!/usr/bin/env bash
# pgbench in its three query modes with 1 to 200 clients, with a connection per transaction too. Reads check, inside pgbench, that
# each reply answers its own question; TPC-B must leave balanced books with every transaction in them. Started by run.sh, with its
# environment.
set -uo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
RUN_SECONDS_MAX=120
failed=0

fail() { echo "FAIL $*"; failed=1; }
bench_sql() { psql -X -qAt -h "$WORK/run" -p "$PG_PORT" -U postgres -d bench -c "$1"; }

# run NAME CLIENTS TRANSACTIONS_EACH ARGUMENTS...: one pgbench run that must process every transaction, without a word on stderr.
run() {
  local name=$1 clients=$2 each=$3 out=$WORK/pgbench.out err=$WORK/pgbench.err wanted
  shift 3
  # While a thread of pgbench prepares for one client it does nothing for its others, who may hold all the servers meanwhile:
  # then every client needs a thread of his own.
  local threads=2
  if [[ " $* " == *" prepared "* ]]; then threads=$clients; fi
  wanted=$((clients * each))/$((clients * each))
  timeout "$RUN_SECONDS_MAX" pgbench -n -h 127.0.0.1 -p "$PGWEIR_PORT" -U weir -c "$clients" -j "$threads" -t "$each" "$@" bench \
    >"$out" 2>"$err" </dev/null
  local status=$?
  if ((status != 0)); then fail "$name: status $status: $(head -c 300 "$err" | tr '\n' ' ')"; return 1; fi
  if [[ -s $err ]]; then fail "$name: it complained: $(head -c 300 "$err" | tr '\n' ' ')"; return 1; fi
  grep -q "^number of transactions actually processed: $wanted$" "$out" ||
    { fail "$name: not all of $wanted: $(grep processed "$out")"; return 1; }
}

reads() {
  local how=$1 clients=$2 each=$3
  shift 3
  run "reads $how" "$clients" "$each" -b select-only -f "$HERE/pgbench-echo.sql" "$@" && echo "ok reads $how"
}

writes() {
  local name="tpc-b $1" clients=$2 each=$3 before after
  shift 3
  before=$(bench_sql 'SELECT count(*) FROM pgbench_history')
  run "$name" "$clients" "$each" -b tpcb-like "$@" || return
  after=$(bench_sql 'SELECT count(*) FROM pgbench_history')
  if ((after - before != clients * each)); then fail "$name: $((after - before)) rows of history"; return; fi
  if [[ $(bench_sql 'SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history)
      AND (SELECT sum(tbalance) FROM pgbench_tellers) = (SELECT sum(bbalance) FROM pgbench_branches)
      AND (SELECT sum(bbalance) FROM pgbench_branches) = (SELECT sum(delta) FROM pgbench_history)') != t ]]; then
    fail "$name: the books do not balance"
    return
  fi
  echo "ok $name"
}

for mode in simple extended prepared; do
  for clients in 1 8 64 200; do
    reads "-M $mode -c $clients" "$clients" $((clients < 64 ? 200 : 20)) -M "$mode"
    # Statement mode has no transaction blocks.
    if [[ $PGWEIR_MODE != statement ]]; then writes "-M $mode -c $clients" "$clients" $((clients < 64 ? 40 : 5)) -M "$mode"; fi
  done
  reads "-M $mode -c 8 -C" 8 20 -M "$mode" -C
  reads "-M $mode -c 64 -C" 64 3 -M "$mode" -C
done
exit "$failed"
