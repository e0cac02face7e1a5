#!/usr/bin/env bash
# What pgweir does, in a minute: a throw-away PostgreSQL cluster, pgweir in front of it, a short pgbench directly and through
# pgweir, and SHOW POOLS. Leaves nothing behind. `make demo` installs what is missing and builds first.
#
# usage: tests/demo.sh [SECONDS_PER_RUN]
set -uo pipefail
# shellcheck source=tests/throwaway.sh
source "$(dirname "${BASH_SOURCE[0]}")/throwaway.sh"

RUN_SECONDS=${1:-5}
CLIENTS=64
SERVERS=8

# bench PORT ARGUMENTS...: pgbench's transactions per second and average latency.
bench() {
  local port=$1
  shift
  pgbench -n -S -c "$CLIENTS" -j 2 -T "$RUN_SECONDS" "$@" -h 127.0.0.1 -p "$port" -U weir demo >"$WORK/pgbench.txt" 2>&1 ||
    { cat "$WORK/pgbench.txt" >&2; die "pgbench failed"; }
  sed -n 's/^tps = \([0-9]*\).*/\1/p; s/^latency average = \(.*\) ms/\1/p' "$WORK/pgbench.txt" | tac | paste -sd' '
}

# servers_meanwhile: how many server processes of this user PostgreSQL has, once the run is under way.
servers_meanwhile() {
  sleep $((RUN_SECONDS / 2))
  direct postgres -c "SELECT count(*) FROM pg_stat_activity WHERE usename = 'weir'"
}

# run NAME PORT ARGUMENTS...: one line of the table; counts PostgreSQL's processes while the run goes on.
run() {
  local name=$1 counting result
  shift
  servers_meanwhile >"$WORK/servers.txt" &
  counting=$!
  result=$(bench "$@") || exit 1
  wait "$counting"
  # shellcheck disable=SC2086  # two words
  printf '%-18s %14s %12s %26s\n' "$name" $result "$(cat "$WORK/servers.txt")"
}

# compare ARGUMENTS...: the same run directly and through pgweir.
compare() {
  printf '%-18s %14s %12s %26s\n' '' 'transactions/s' 'latency, ms' 'server processes meanwhile'
  run 'directly' "$PG_PORT" "$@"
  run 'through pgweir' "$POOLER_PORT" "$@"
  say
}

main() {
  export PGPASSWORD=weir
  throwaway_begin
  cluster_create 100
  cluster_users demo
  say "PostgreSQL $(direct postgres -c 'SHOW server_version') runs on port $PG_PORT, only for this demo."
  pgbench -i -q -s 2 -h "$WORK/run" -p "$PG_PORT" -U weir demo >"$WORK/log/init.log" 2>&1 ||
    { cat "$WORK/log/init.log" >&2; die "pgbench could not make its tables"; }
  if port_is_free 6432; then POOLER_PORT=6432; fi
  pooler_ini transaction "$SERVERS"
  pooler_start
  say "pgweir runs in front of it, in transaction mode with at most $SERVERS server connections:"
  say
  say "    psql postgresql://weir:weir@127.0.0.1:$POOLER_PORT/demo"
  say
  say "pgbench -S, $CLIENTS clients that stay connected, $RUN_SECONDS seconds each (pgbench shares this machine with the rest):"
  compare -M prepared
  say "the same with a new connection for every transaction:"
  compare -C
  say "pgweir's console (database pgbouncer), SHOW POOLS:"
  say
  # Seven of its seventeen columns.
  console 'SHOW POOLS' -F ' ' --pset=tuples_only=off --pset=footer=off |
    awk '{ printf "%-10s %-10s %-10s %-11s %-10s %-8s %s\n", $1, $2, $3, $4, $7, $10, $16 }'
  say
  say "That was all; now both are stopped and their files removed."
}

main
