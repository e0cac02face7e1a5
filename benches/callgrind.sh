#!/usr/bin/env bash
# Counts the instructions that pgweir spends on a query, in user mode, all threads: under callgrind, which repeats to a fraction of
# a percent on any machine, however noisy. With two commits it shows both and their ratio; without any, the tree as it is.
#
# usage: benches/callgrind.sh [--rows 'KIND:CLIENTS ...'] [--queries N] [--pool-size N] [--set 'SETTING = VALUE'] [--profile]
#                             [--keep FOLDER] [COMMIT [COMMIT]]
#   KIND         simple, extended, prepared (Bind and Execute of a named statement), large (a result of 1 MB)
#   --queries    N: each row is run with N and with 2N queries, and what is shown is the difference over N, so that start-up and
#                logins drop out (default 8000; 20 for large)
#   --pool-size  servers (default 20: with more clients than that, some wait for a server at every query)
#   --set        one more line for the [pgbouncer] section, such as 'pool_mode = session'
#   --profile    also the functions that the instructions are spent in, by themselves and with all that they call
#   --keep       copies callgrind's files there, for callgrind_annotate and kcachegrind
#
# pgweir runs with one worker between clients and servers that act in step (`pgweir-bench lockstep`): the same bytes in the same
# order every time, and whenever pgweir looks, as much as there can be. What is not seen: system calls (only their number of instructions in libc), and caches.
set -uo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/throwaway.sh
source "$HERE/../tests/throwaway.sh"

ROWS='' QUERIES='' POOL_SIZE=20 EXTRA='' PROFILE='' KEEP='' COMMITS=()
KINDS='simple extended prepared' CLIENTS='1 8 64'
PROFILE_LINES=${PROFILE_LINES:-25}
LISTEN_SECONDS_MAX=60 ASK_SECONDS_MAX=600 END_SECONDS_MAX=60
BUILDS=$TARGET_DIR/callgrind
# Both on one CPU, and pgweir in the batch class, which does not interrupt others when it wakes up: it looks when all is there.
ONE_CPU=(taskset --cpu-list 0)
# Where it is allowed, the other side runs before everybody else: it is never interrupted half way through a wave.
if chrt --fifo 1 true 2>/dev/null; then FIRST=(chrt --fifo 1); else FIRST=(); fi
export CARGO_PROFILE_RELEASE_DEBUG=line-tables-only

usage() { sed -n '/^# usage: /,/^#$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }

parse() {
  while (($# > 0)); do
    case $1 in
      --rows) ROWS=${2:?}; shift ;;
      --queries) QUERIES=${2:?}; shift ;;
      --pool-size) POOL_SIZE=${2:?}; shift ;;
      --set) EXTRA=${2:?}; shift ;;
      --profile) PROFILE=yes ;;
      --keep) KEEP=${2:?}; shift ;;
      -*) usage ;;
      *) COMMITS+=("$1") ;;
    esac
    shift
  done
  ((${#COMMITS[@]} <= 2)) || usage
  if [[ -n $ROWS ]]; then return; fi
  local kind clients
  for kind in $KINDS; do for clients in $CLIENTS; do ROWS+="$kind:$clients "; done; done
}

# build_commit COMMIT: builds it, unless that was done before, and prints where the program is. All commits are built in the same
# folder, so that equal source gives equal programs and the dependencies are built once.
build_commit() {
  local hash program tree=$BUILDS/tree
  hash=$(git -C "$ROOT_DIR" rev-parse --verify --quiet "$1^{commit}") || die "no commit $1"
  program=$BUILDS/bin/pgweir-$hash
  if [[ ! -x $program ]]; then
    say "building $1" >&2
    rm -rf "$tree" && mkdir -p "$tree" "$BUILDS/bin"
    # -m: as of now; cargo would miss changes that are older than its last build.
    git -C "$ROOT_DIR" archive "$hash" | tar -x -m -C "$tree" || die "cannot unpack $1"
    (cd "$tree" && CARGO_TARGET_DIR=$BUILDS/build cargo build --release --locked --quiet) >&2 || die "$1 does not build"
    install "$BUILDS/build/release/pgweir" "$program.new" && mv "$program.new" "$program"
  fi
  echo "$program"
}

build_tree() {
  (cd "$ROOT_DIR" && cargo build --release --locked --quiet) >&2 || die "pgweir does not build"
  echo "$TARGET_DIR/release/pgweir"
}

build_ends() {
  cargo build --release --locked --quiet --manifest-path "$HERE/Cargo.toml" --target-dir "$TARGET_DIR/bench" >&2 ||
    die "the benchmark's own programs do not build"
  ENDS=$TARGET_DIR/bench/release/pgweir-bench
}

# True once somebody listens on the port. It does not connect: that would be counted.
listens() { grep -qi " 0100007F:$(printf '%04X' "$1") 00000000:0000 0A " /proc/net/tcp; }

# count PROGRAM KIND CLIENTS QUERIES OUT: one run of pgweir under callgrind, whose file is OUT.
count() {
  local program=$WORK/pgweir log=$WORK/log/pgweir.log
  POOLER_PORT=''
  POOLER_AUTH=trust pooler_ini transaction "$POOL_SIZE" 'workers = 1' "$EXTRA"
  give_to_server_user "$WORK/pooler.ini"
  install -m 755 "$1" "$program"
  (as_server setsid "${ONE_CPU[@]}" chrt --batch 0 valgrind --tool=callgrind --callgrind-out-file="$5" "$program" "$WORK/pooler.ini") >"$log" 2>&1 &
  POOLER_PID=$!
  disown "$POOLER_PID"
  POOLERS[POOLER_PID]=running
  if ! { wait_until "$LISTEN_SECONDS_MAX" "pgweir to listen" listens_or_died "$POOLER_PORT" &&
    timeout "$ASK_SECONDS_MAX" "${ONE_CPU[@]}" "${FIRST[@]}" "$ENDS" lockstep --pooler "$POOLER_PORT" --server "$PG_PORT" --pool-size "$POOL_SIZE" \
      --kind "$2" --clients "$3" --queries "$4"; }; then
    tail -n 20 "$log" >&2
    die "$2 with $3 clients failed"
  fi
  kill -QUIT "$POOLER_PID"
  wait_until "$END_SECONDS_MAX" "pgweir to end" gone "$POOLER_PID" || exit 1
  unset "POOLERS[POOLER_PID]"
}

listens_or_died() { listens "$1" || ! kill -0 "$POOLER_PID" 2>/dev/null; }

instructions() { awk '/^(summary|totals):/ { print $2; exit }' "$1"; }

# queries KIND CLIENTS: how many, a multiple of the clients.
queries() {
  local wanted=$QUERIES
  if [[ -z $wanted ]]; then if [[ $1 == large ]]; then wanted=20; else wanted=8000; fi; fi
  echo $(((wanted + $2 - 1) / $2 * $2))
}

# one_row PROGRAM ROW OUT: instructions per query; callgrind's files are OUT.1 and OUT.2.
one_row() {
  local kind=${2%%:*} clients=${2#*:} n
  n=$(queries "$kind" "$clients")
  count "$1" "$kind" "$clients" "$n" "$3.1"
  count "$1" "$kind" "$clients" $((2 * n)) "$3.2"
  PER_QUERY=$((($(instructions "$3.2") - $(instructions "$3.1")) / n))
}

# costs OUT self|all|file: "INSTRUCTIONS NAME" of each function, by itself (with what was inlined into it from anywhere) or with all that
# it calls, or of each source file.
costs() {
  local inclusive=no name='\3'
  case $2 in all) inclusive=yes ;; file) name='\2' ;; esac
  callgrind_annotate --threshold=100 --show-percs=no --auto=no --inclusive=$inclusive "$1" 2>/dev/null |
    sed -nE 's/^ *([0-9,]+)  (.*)$/\1 \2/p' |
    sed -E "s# \[[^]]*\]\$##; s#^([0-9,]+) ([^:]*/(registry/src/[^/]*|rustc/[0-9a-f]*)/)?#\1 #; s#^([0-9,]+) ([^:]*):(.*)#\1 $name#" |
    awk -v what="$2" '
      { count = $1; gsub(",", "", count); count += 0; $1 = "" }
      $0 == " PROGRAM TOTALS" { next }
      # A function has a row for each file that something was inlined from. With calls, the row of its own file has it all.
      what != "all" { cost[$0] += count; next }
      count > cost[$0] { cost[$0] = count }
      END { for (name in cost) printf "%d%s\n", cost[name], name }'
}

# profile OUT N: instructions per query of functions and files, the largest first.
profile() {
  local what part
  for what in self all file; do
    case $what in self) say "  functions by themselves:" ;; all) say "  functions with all that they call:" ;; file) say "  source files:" ;; esac
    for part in 1 2; do costs "$1.$part" $what >"$WORK/costs.$part"; done
    awk -v n="$2" '
      { count = $1; $1 = "" }
      FNR == NR { before[$0] = count; next }
      { printf "  %9.1f %s\n", (count - before[$0]) / n, $0 }' "$WORK/costs.1" "$WORK/costs.2" |
      sort -rn | head -n "$PROFILE_LINES" | cut -c1-180
  done
}

main() {
  parse "$@"
  command -v valgrind >/dev/null || die "valgrind is not installed; the package has that name"
  local programs=() names=("${COMMITS[@]}") commit row i out shown=()
  for commit in "${COMMITS[@]}"; do programs+=("$(build_commit "$commit")") || exit 1; done
  if ((${#programs[@]} == 0)); then programs=("$(build_tree)") && names=('this tree') || exit 1; fi
  build_ends
  throwaway_begin_without_postgres
  echo '"weir" "weir"' >"$WORK/users.txt"
  chmod 600 "$WORK/users.txt" && give_to_server_user "$WORK/users.txt"
  PG_PORT=$(free_port)
  say "instructions per query in user mode, one worker, $POOL_SIZE servers${EXTRA:+, $EXTRA}"
  printf '%-10s %7s' kind clients
  printf ' %14.14s' "${names[@]}"
  if ((${#programs[@]} == 2)); then printf ' %7s' ratio; fi
  echo
  for row in $ROWS; do
    shown=()
    for i in "${!programs[@]}"; do
      out=$WORK/log/${row/:/-}.$i
      one_row "${programs[i]}" "$row" "$out"
      shown+=("$PER_QUERY")
    done
    printf '%-10s %7s' "${row%%:*}" "${row#*:}"
    printf ' %14d' "${shown[@]}"
    if ((${#shown[@]} == 2)); then printf ' %7.4f' "$(awk "BEGIN { print ${shown[1]} / ${shown[0]} }")"; fi
    echo
    if [[ -n $PROFILE ]]; then
      for i in "${!programs[@]}"; do
        say "  ${names[i]}:"
        profile "$WORK/log/${row/:/-}.$i" "$(queries "${row%%:*}" "${row#*:}")"
      done
    fi
  done
  if [[ -n $KEEP ]]; then keep_logs "$KEEP"; fi
}

main "$@"
