#!/usr/bin/env bash
# pgweir beside PgBouncer, in one run on one machine: what a transaction costs the pooler, how many pass, and what an idle client
# weighs. Both stand in front of the same throw-away cluster with the same settings; rounds alternate between them, and what is
# shown are medians over the rounds, ratios being taken within each round. Without PgBouncer only pgweir is measured.
#
# usage: benches/compare.sh [--rounds N] [--seconds N] [--clients N] [--set 'SETTING = VALUE'] [cpu|memory]
#   --clients  idle clients to weigh (default 5000, fewer where `ulimit -n` says so)
#   --set      one more setting for pgweir alone, such as 'workers = 1'
#   PGBOUNCER names PgBouncer's program (default: the one in PATH), PGWEIR_BIN pgweir's.
#
# CPU is user and system time of all the pooler's threads, from /proc/PID/stat; memory is Rss from /proc/PID/smaps_rollup.
set -uo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/throwaway.sh
source "$HERE/../tests/throwaway.sh"

ROUNDS=5 RUN_SECONDS=5 IDLE_CLIENTS=5000 EXTRA='' PARTS='cpu memory'
BENCH_CLIENTS=64 POOL_SIZE=20
OPEN_SECONDS_MAX=300
KEEP_LOGS_IN=$TARGET_DIR/compare-logs
declare -A BIN PORT PID

usage() { sed -n 's/^# usage: /usage: /p' "${BASH_SOURCE[0]}" >&2; exit 2; }

parse() {
  while (($# > 0)); do
    case $1 in
      --rounds) ROUNDS=$2; shift ;;
      --seconds) RUN_SECONDS=$2; shift ;;
      --clients) IDLE_CLIENTS=$2; shift ;;
      --set) EXTRA=$2; shift ;;
      cpu | memory) PARTS=$1 ;;
      *) usage ;;
    esac
    shift
  done
}

# start NAME: starts one of the poolers on a port of its own.
start() {
  local name=$1 extra=''
  if [[ $name == pgweir ]]; then extra=$EXTRA; fi
  PGWEIR_BIN=${BIN[$name]} POOLER_NAME=$name POOLER_PORT=''
  pooler_ini transaction "$POOL_SIZE" "$extra"
  pooler_start
  PORT[$name]=$POOLER_PORT PID[$name]=$POOLER_PID
}

stop() { POOLER_PID=${PID[$1]} && pooler_stop; }

# cpu_ticks PID: "USER SYSTEM" so far, in clock ticks. What precedes the state, the name in parentheses, may hold anything.
cpu_ticks() { sed 's/.*) //' "/proc/$1/stat" | awk '{ print $12, $13 }'; }

# measure NAME MODE: one run; prints "TPS USER_MICROSECONDS SYSTEM_MICROSECONDS", the two per transaction.
measure() {
  local name=$1 out=$WORK/pgbench.txt before after
  before=$(cpu_ticks "${PID[$name]}")
  bench "${PORT[$name]}" "$2" >"$out" || return
  after=$(cpu_ticks "${PID[$name]}")
  awk -v before="$before" -v after="$after" -v hertz="$(getconf CLK_TCK)" '
    /^number of transactions actually processed:/ { transactions = $6 + 0 }
    /^tps = / { tps = $3 }
    END {
      split(before, b, " "); split(after, a, " ")
      printf "%.0f %.3f %.3f\n", tps, (a[1] - b[1]) / hertz * 1e6 / transactions, (a[2] - b[2]) / hertz * 1e6 / transactions
    }' "$out"
}

bench() {
  pgbench -n -S -c "$BENCH_CLIENTS" -j 2 -T "$RUN_SECONDS" -M "$2" -h 127.0.0.1 -p "$1" -U weir bench 2>"$WORK/pgbench.err" ||
    { cat "$WORK/pgbench.err" >&2; die "pgbench failed; still running: $(ps -o args= -p "$PG_PID" "${PID[@]/#/-p}" | cut -c1-60 | paste -sd' ')"; }
}

# Reads numbers, one per line, and prints their median.
median() { sort -g | awk '{ v[NR] = $1 } END { if (NR) print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }

# column FILE N: the median of one column of a file of rounds.
column() { awk -v n="$2" '{ print $n }' "$1" | median; }

# one_mode MODE: its rounds, then its lines of the table.
one_mode() {
  local mode=$1 round name names=("${NAMES[@]}") files=$WORK/rounds-$1
  for ((round = 1; round <= ROUNDS; round++)); do
    for name in "${names[@]}"; do measure "$name" "$mode" >>"$files.$name" || exit 1; done
    # The other one first next time.
    if ((${#names[@]} == 2)); then names=("${names[1]}" "${names[0]}"); fi
  done
  bench "$PG_PORT" "$mode" >"$WORK/direct.txt"
  printf '%-9s %-10s %8s %8s %8s %10.0f\n' "$mode" directly '' '' '' "$(sed -n 's/^tps = \([0-9.]*\).*/\1/p' "$WORK/direct.txt")"
  for name in "${NAMES[@]}"; do
    awk '{ print $1, $2, $3, $2 + $3 }' "$files.$name" >"$files.$name.sums"
    printf '%-9s %-10s %8.2f %8.2f %8.2f %10.0f\n' "$mode" "$name" "$(column "$files.$name.sums" 4)" \
      "$(column "$files.$name.sums" 2)" "$(column "$files.$name.sums" 3)" "$(column "$files.$name.sums" 1)"
  done
  if ((${#NAMES[@]} == 2)); then
    paste -d' ' "$files.pgweir.sums" "$files.pgbouncer.sums" | awk '{ print $4 / $8, $1 / $5 }' >"$files.ratios"
    printf '%-9s %-10s %8.2f %8s %8s %10.2f\n' "$mode" ratio "$(column "$files.ratios" 1)" '' '' "$(column "$files.ratios" 2)"
  fi
}

compare_cpu() {
  say
  say "CPU of the pooler per transaction, in microseconds: pgbench -S -c $BENCH_CLIENTS -j 2, $POOL_SIZE servers, $ROUNDS rounds of $RUN_SECONDS s"
  say
  printf '%-9s %-10s %8s %8s %8s %10s\n' '-M' '' 'CPU' 'user' 'system' 'tps'
  local name mode
  for name in "${NAMES[@]}"; do start "$name"; done
  for mode in simple extended prepared; do one_mode "$mode"; done
  for name in "${NAMES[@]}"; do stop "$name"; done
}

resident_bytes() { awk '/^Rss:/ { print $2 * 1024 }' "/proc/$1/smaps_rollup"; }

# weigh NAME: starts the pooler anew, with one client served, then opens the idle ones; prints bytes per client after login and
# after each has run a query, and the pooler's size with none.
weigh() {
  local name=$1 empty connected queried
  start "$name"
  psql -X -qAt -h 127.0.0.1 -p "${PORT[$name]}" -U weir bench -c 'SELECT 1' >/dev/null || die "$name does not serve"
  empty=$(resident_bytes "${PID[$name]}")
  coproc IDLE { exec timeout "$OPEN_SECONDS_MAX" python3 "$HERE/idle_clients.py" "${PORT[$name]}" bench weir "$IDLE_CLIENTS"; }
  # shellcheck disable=SC2153  # set by coproc
  local to=${IDLE[1]} from=${IDLE[0]} pid=$IDLE_PID answer
  read -r answer <&"$from"
  [[ $answer == connected ]] || die "$name did not let $IDLE_CLIENTS clients in"
  connected=$(resident_bytes "${PID[$name]}")
  echo >&"$to"
  read -r answer <&"$from"
  [[ $answer == queried ]] || die "$name did not serve $IDLE_CLIENTS clients"
  queried=$(resident_bytes "${PID[$name]}")
  echo >&"$to"
  wait "$pid"
  stop "$name"
  printf '%-10s %14.0f %14.0f %12.1f\n' "$name" $(((connected - empty) / IDLE_CLIENTS)) $(((queried - empty) / IDLE_CLIENTS)) \
    "$(awk "BEGIN { print $empty / 1048576 }")"
}

compare_memory() {
  local files name
  files=$(ulimit -Hn)
  if [[ $files != unlimited ]] && ((files < IDLE_CLIENTS + 500)); then
    IDLE_CLIENTS=$((files - 500))
    say "only $files files may be open here (ulimit -n), so $IDLE_CLIENTS clients"
  fi
  ulimit -n "$files"
  say
  say "resident memory of the pooler with $IDLE_CLIENTS idle clients (plain TCP), in bytes per client:"
  say
  printf '%-10s %14s %14s %12s\n' '' 'after login' 'after a query' 'MB when empty'
  for name in "${NAMES[@]}"; do weigh "$name"; done
}

main() {
  parse "$@"
  BIN[pgweir]=$PGWEIR_BIN
  BIN[pgbouncer]=${PGBOUNCER:-$(command -v pgbouncer || command -v /usr/sbin/pgbouncer || true)}
  NAMES=(pgweir)
  if [[ -x ${BIN[pgbouncer]} ]]; then NAMES+=(pgbouncer); else
    say "skipped: no PgBouncer to compare with, neither in PATH nor by PGBOUNCER; pgweir is measured alone"
  fi
  # shellcheck disable=SC2034  # for throwaway.sh
  CLUSTER_TCP_AUTH=trust POOLER_AUTH=trust POOLER_CLIENTS_MAX=$((IDLE_CLIENTS + 200))
  throwaway_begin
  cluster_create 200
  cluster_users bench
  pgbench -i -q -s 10 -h "$WORK/run" -p "$PG_PORT" -U weir bench >"$WORK/log/init.log" 2>&1 || die "pgbench could not make its tables"
  local name
  say "$(nproc) cores, $("$PG_BIN/postgres" --version)"
  for name in "${NAMES[@]}"; do say "$name: $("${BIN[$name]}" -V 2>&1 | head -n 1)${EXTRA:+$([[ $name == pgweir ]] && echo ", $EXTRA")}"; done
  if [[ $PARTS == *cpu* ]]; then compare_cpu; fi
  if [[ $PARTS == *memory* ]]; then compare_memory; fi
}

main "$@"
