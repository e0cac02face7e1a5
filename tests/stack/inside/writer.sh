#!/usr/bin/env bash
# Writes rows through the pooler, one at a time, over a session that lasts; notes each one that was acknowledged, with the time in ms,
# and each error. Ends when the file DIR/stop is there. Runs in the client's container.
#
# usage: writer.sh NUMBER HOST DIR
set -euo pipefail
number=$1 host=$2 dir=$3
PGPASSWORD=$(</run/secrets/app_password)
export PGPASSWORD PGCONNECT_TIMEOUT=10
# A session that hears nothing for this long is given up: the pooler or the network is gone.
REPLY_SECONDS_MAX=90
n=0

now_ms() { local t=${EPOCHREALTIME/./}; printf '%s' "${t%???}"; }

open_session() {
  coproc PSQL { exec psql --no-psqlrc -Atq "host=$host port=6432 user=app dbname=app" 2>>"$dir/errors.$number"; }
  to=${PSQL[1]} from=${PSQL[0]} session=$PSQL_PID
}

# ask SQL: sets reply to what came before the mark; fails when the session ended.
ask() {
  local line
  reply=
  printf '%s;\n\\echo .\n' "$1" >&"$to" || return 1
  while IFS= read -r -t "$REPLY_SECONDS_MAX" -u "$from" line; do
    if [[ $line == . ]]; then return 0; fi
    reply=$line
  done
  return 1
}

trap '' PIPE
open_session
while [[ ! -e $dir/stop ]]; do
  n=$((n + 1))
  if ask "INSERT INTO acknowledged (writer, n) VALUES ($number, $n) RETURNING n"; then
    if [[ $reply == "$n" ]]; then printf '%s %s\n' "$n" "$(now_ms)" >>"$dir/acknowledged.$number"; fi
  else
    kill "$session" 2>/dev/null || true
    wait "$session" 2>/dev/null || true
    sleep 0.1
    open_session
  fi
done
kill "$session" 2>/dev/null || true
