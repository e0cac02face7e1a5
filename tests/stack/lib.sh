# shellcheck shell=bash
# What stands in single quotes is expanded in a container.
# shellcheck disable=SC2016
# What the parts of tests/stack.sh share: compose, checks that are counted, waiting for conditions, figures that are kept.

passed=0 failed=0 part=
# shellcheck disable=SC2034
PROJECT=${STACK_PROJECT:-pgweir-test-stack}
WORK=${CARGO_TARGET_DIR:-$ROOT_DIR/target}/stack
MEASURED=$WORK/measured.tsv
COMPOSE_SECONDS_MAX=300

say() { printf '%s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

compose() {
  timeout "$COMPOSE_SECONDS_MAX" docker compose --project-directory "$ROOT_DIR/docker" --file "$ROOT_DIR/docker/compose.yaml" --file "$WORK/compose.test.yaml" \
    --env-file "$WORK/env" --profile test --ansi never --progress quiet "$@"
}

# check NAME COMMAND...: counts; shows what the command said when it failed.
check() {
  local name=$1 output
  shift
  if output=$("$@" 2>&1); then
    passed=$((passed + 1))
    say "ok   $part: $name"
  else
    failed=$((failed + 1))
    say "FAIL $part: $name"
    if [[ -n $output ]]; then tail -n 30 <<<"$output" | sed 's/^/     /'; fi
    return 1
  fi
}

# verdict: the last line, and whether all is well.
verdict() {
  say "$passed passed, $failed failed"
  ((failed == 0))
}

# equals WANTED COMMAND...
equals() {
  local wanted=$1 got
  shift
  got=$("$@") || { say "failed: $*"; return 1; }
  [[ $got == "$wanted" ]] || { say "wanted: $wanted"; say "got:    $got"; return 1; }
}

# fails COMMAND...: it must not succeed.
fails() { if "$@"; then say "succeeded, and should not have"; return 1; fi; }

# refused TEXT COMMAND...: it fails, and says this.
refused() {
  local text=$1 output
  shift
  if output=$("$@" 2>&1); then say "succeeded, and should not have"; return 1; fi
  [[ $output == *"$text"* ]] || { say "failed, but without '$text':"; say "$output"; return 1; }
}

# within SECONDS COMMAND...: tries until it succeeds; fails when the time is over.
within() {
  local deadline=$((SECONDS + $1)) output
  shift
  until output=$("$@" 2>&1); do
    if ((SECONDS >= deadline)); then say "not within the time: $*"; say "$output"; return 1; fi
    sleep 0.3
  done
}

now_ms() { printf '%s' "${EPOCHREALTIME/./}" | sed 's/...$//'; }

# measured NAME VALUE HOW: for the table at the end and docker/README.md.
measured() { printf '%s\t%s\t%s\t%s\n' "$part" "$1" "$2" "$3" >>"$MEASURED"; }

seconds_since() { awk -v from="$1" -v to="$(now_ms)" 'BEGIN { printf "%.1f s", (to - from) / 1000 }'; }

# up [OPTION...] SERVICE...: started, and healthy where they say how to know; else the last that they said.
up() {
  local argument services=()
  compose up --detach --no-build --wait --wait-timeout 240 "$@" && return
  compose ps --all --format '{{.Service}} {{.Status}}' | grep -v '(healthy)'
  for argument; do if [[ $argument != --* ]]; then services+=("$argument"); fi; done
  compose logs --tail 6 "${services[@]}"
  return 1
}

down() {
  compose --profile '*' down --volumes --remove-orphans --timeout 20 >/dev/null 2>&1 || true
}

container() { compose ps --all --quiet "$1"; }

# in_postgres SQL...: as the superuser, in the primary's container.
as_superuser() { # as_superuser SERVICE DATABASE SQL
  compose exec -T "$1" psql --no-psqlrc --username=postgres --dbname="$2" --no-align --tuples-only --quiet --set=ON_ERROR_STOP=1 <<<"$3"
}

# as_user USER HOST:PORT DATABASE SQL: from the client's container, over TLS; the certificate is verified.
as_user() {
  local host=${2%:*} port=${2#*:}
  compose exec -T client bash -c 'PGPASSWORD=$(</run/secrets/$1_password) exec psql --no-psqlrc --no-align --tuples-only --quiet \
    --set=ON_ERROR_STOP=1 --dbname="host=$2 port=$3 user=$1 dbname=$4" --command="$5"' _ "$1" "$host" "$port" "$3" "$4"
}

# pgbench_init, and pgbench ARGUMENT...: from the client's container through the pooler HOST.
bench() {
  local host=$1
  shift
  compose exec -T client bash -c 'host=$1; shift; PGPASSWORD=$(</run/secrets/app_password) exec pgbench --host="$host" --port=6432 \
    --username=app "$@"' _ "$host" "$@"
}

# The tables of pgbench, in the schema of the application: made by admin as a migration would.
make_bench_tables() { # make_bench_tables SERVICE SCALE
  as_superuser "$1" app "SET ROLE admin; SET search_path = app;
    CREATE TABLE pgbench_branches (bid int PRIMARY KEY, bbalance int, filler char(88)) WITH (fillfactor = 100);
    CREATE TABLE pgbench_tellers (tid int PRIMARY KEY, bid int, tbalance int, filler char(84)) WITH (fillfactor = 100);
    CREATE TABLE pgbench_accounts (aid int PRIMARY KEY, bid int, abalance int, filler char(84)) WITH (fillfactor = 90);
    CREATE TABLE pgbench_history (tid int, bid int, aid int, delta int, mtime timestamp, filler char(22));
    INSERT INTO pgbench_branches SELECT g, 0, '' FROM generate_series(1, $2) g;
    INSERT INTO pgbench_tellers SELECT g, (g - 1) / 10 + 1, 0, '' FROM generate_series(1, $2 * 10) g;
    INSERT INTO pgbench_accounts SELECT g, (g - 1) / 100000 + 1, 0, '' FROM generate_series(1, $2 * 100000) g;"
}
