#!/usr/bin/env bash
# psql, script by script: what it prints through the pooler must be, byte for byte, what it prints directly at PostgreSQL. The
# scripts are psql/*.sql; the first line of each names the pool modes it is valid in, its second may name the oldest psql that
# knows what it uses. Started by run.sh, with its environment.
set -uo pipefail
SCRIPTS=$(cd "$(dirname "${BASH_SOURCE[0]}")/psql" && pwd)
SCRIPT_SECONDS_MAX=60
version=$(psql --version | sed -E 's/[^0-9]*([0-9]+).*/\1/')
failed=0

# run_script SCRIPT PORT OUTPUT: psql's output and errors; what must differ is masked: process ids, new large objects' numbers.
run_script() {
  local folder
  folder=$(mktemp -d "$WORK/psql.XXXXXX")
  (cd "$folder" && timeout "$SCRIPT_SECONDS_MAX" psql -X -a -h 127.0.0.1 -p "$2" -U weir -d check -f "$1" 2>&1 </dev/null
    echo "exit status $?") |
    sed -E "s/with PID [0-9]+/with PID n/; s/lo_import [0-9]+/lo_import n/; s/port \"?$2\"?/port p/" >"$3"
  rm -rf "$folder"
}

for script in "$SCRIPTS"/*.sql; do
  name=$(basename "$script" .sql)
  sed -n 1p "$script" | grep -qw "$PGWEIR_MODE" || continue
  oldest=$(sed -n 's/^-- psql: *//p' "$script")
  if ((version < ${oldest:-0})); then echo "skip $name: psql $version is older than $oldest"; continue; fi
  run_script "$script" "$PG_PORT" "$WORK/psql-direct.txt"
  run_script "$script" "$PGWEIR_PORT" "$WORK/psql-pooled.txt"
  if cmp -s "$WORK/psql-direct.txt" "$WORK/psql-pooled.txt"; then
    echo "ok $name"
  else
    echo "FAIL $name: output differs"
    diff "$WORK/psql-direct.txt" "$WORK/psql-pooled.txt" | cut -c1-300 | head -n 40
    failed=1
  fi
done
exit "$failed"
