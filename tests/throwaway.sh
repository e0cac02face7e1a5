# shellcheck shell=bash
# A throw-away PostgreSQL cluster and a pooler in front of it, for scripts that source this file: the demo, the driver tests, the
# soak, the comparison. It is not a test itself. Everything lives in one temporary folder ($WORK), on free ports of 127.0.0.1,
# and goes away when the script ends, however it ends; only processes started here are ever signalled.
#
# Neither PostgreSQL nor a pooler runs as root, so root starts them as the user postgres; anybody else starts them as himself.
# PGWEIR_BIN names the pooler (default: the release build); PgBouncer may stand in for it.

ROOT_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
TARGET_DIR=${CARGO_TARGET_DIR:-$ROOT_DIR/target}
PGWEIR_BIN=${PGWEIR_BIN:-$TARGET_DIR/release/pgweir}
CLUSTER_START_SECONDS_MAX=60
POOLER_START_SECONDS_MAX=20
STOP_SECONDS_MAX=10

# The caller's own PostgreSQL settings must not leak into what runs here.
for name in $(compgen -e | grep '^PG' | grep -v -e '^PGWEIR_' -e '^PGBOUNCER$'); do unset "$name"; done
export PGCONNECT_TIMEOUT=20 LC_ALL=C.UTF-8

say() { printf '%s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# wait_until SECONDS WHAT COMMAND...: runs COMMAND until it succeeds; fails, naming WHAT, when the time is over.
wait_until() {
  local deadline=$((SECONDS + $1)) what=$2
  shift 2
  until "$@"; do
    if ((SECONDS >= deadline)); then say "waited too long for $what" >&2; return 1; fi
    sleep 0.1
  done
}

# The folder that holds initdb, pgbench and friends: the newest one Debian has, or wherever PATH finds them.
postgres_bin_dir() {
  local dir
  dir=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
  if [[ -x $dir/initdb ]]; then echo "$dir"; return; fi
  dir=$(command -v initdb) && dirname "$(readlink -f "$dir")"
}

port_is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Prints a port of 127.0.0.1 nobody listens on, from below those that clients are given.
free_port() {
  local port
  port=$((20000 + RANDOM % 12000))
  until port_is_free "$port"; do port=$((20000 + RANDOM % 12000)); done
  echo "$port"
}

# Runs a command as the user who may run servers. `exec` all the way: a background `as_server` has the server's own pid.
as_server() {
  cd "$WORK" || return
  local clean=(env -i "PATH=$PATH" "HOME=$WORK" LC_ALL=C.UTF-8)
  if ((EUID == 0)); then
    exec setpriv --reuid=postgres --regid=postgres --init-groups "${clean[@]}" "$@"
  fi
  exec "${clean[@]}" "$@"
}

give_to_server_user() { if ((EUID == 0)); then chown postgres:postgres "$@"; fi; }

# throwaway_begin: makes $WORK and $PG_BIN, and arranges the clean-up. Call it once, first.
throwaway_begin() {
  PG_BIN=$(postgres_bin_dir) || die "PostgreSQL is not installed (initdb not found); tests/needs.sh installs it"
  [[ -n $PG_BIN ]] || die "PostgreSQL is not installed (initdb not found); tests/needs.sh installs it"
  PATH=$PG_BIN:$PATH
  throwaway_begin_without_postgres
}

# The same for a script that has no need of PostgreSQL.
throwaway_begin_without_postgres() {
  WORK=$(mktemp -d /tmp/pgweir.XXXXXX)
  chmod 755 "$WORK"
  mkdir "$WORK/run" "$WORK/log"
  give_to_server_user "$WORK" "$WORK/run" "$WORK/log"
  PG_PORT='' PG_PID='' POOLER_NAME=pooler POOLER_PORT='' POOLERS=() CHILDREN=() passed=0 failed=0
  trap throwaway_end EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
}

# child COMMAND...: starts a command of ours in the background, to be ended with us; its pid is in $!.
child() { "$@" & CHILDREN+=($!); }

end_children() {
  local pid
  for pid in "${CHILDREN[@]}"; do kill "$pid" 2>/dev/null; done
  for pid in "${CHILDREN[@]}"; do wait "$pid" 2>/dev/null; done
  CHILDREN=()
}

# What must not be left behind, in the order that is quiet: load, pooler, cluster, files.
throwaway_end() {
  local status=$?
  trap '' INT TERM HUP
  trap - EXIT
  set +e
  end_children
  for POOLER_PID in "${!POOLERS[@]}"; do pooler_stop; done
  cluster_stop
  if ((status != 0)) && [[ -n ${KEEP_LOGS_IN:-} ]]; then keep_logs "$KEEP_LOGS_IN"; fi
  rm -rf "$WORK"
  exit "$status"
}

# keep_logs FOLDER: saves the logs of this run where the clean-up does not reach.
keep_logs() {
  mkdir -p "$1" && cp -r "$WORK/log/." "$1/" && say "logs kept in $1" >&2
}

# cluster_create MAX_CONNECTIONS: a cluster on $PG_PORT with the superuser postgres, who needs no password on the Unix socket.
# Over TCP everybody proves himself with SCRAM; CLUSTER_TCP_AUTH=trust changes that. Nothing in it survives a crash of the
# machine (fsync is off), everything survives a crash of PostgreSQL.
cluster_create() {
  PG_PORT=$(free_port)
  PG_DATA=$WORK/pg
  (as_server initdb -D "$PG_DATA" -U postgres -A trust -E UTF8 --locale=C.UTF-8 --no-sync) >"$WORK/log/initdb.log" 2>&1 ||
    { cat "$WORK/log/initdb.log" >&2; die "initdb failed"; }
  cat >>"$PG_DATA/postgresql.conf" <<CONF
listen_addresses = '127.0.0.1'
port = $PG_PORT
unix_socket_directories = '$WORK/run'
max_connections = $1
shared_buffers = 128MB
fsync = off
synchronous_commit = off
full_page_writes = off
password_encryption = 'scram-sha-256'
CONF
  cat >"$PG_DATA/pg_hba.conf" <<CONF
local all all trust
host all all 127.0.0.1/32 ${CLUSTER_TCP_AUTH:-scram-sha-256}
CONF
  cluster_start
}

# The postmaster is our own child, so that after a kill its pid is reaped and free, which a restart insists on.
cluster_start() {
  (as_server setsid postgres -D "$PG_DATA") >>"$WORK/log/postgresql.log" 2>&1 &
  PG_PID=$!
  disown "$PG_PID"
  wait_until "$CLUSTER_START_SECONDS_MAX" "PostgreSQL to answer" postgres_answers_or_died
  kill -0 "$PG_PID" 2>/dev/null || { tail -n 20 "$WORK/log/postgresql.log" >&2; die "PostgreSQL did not start"; }
}

postgres_answers_or_died() {
  ! kill -0 "$PG_PID" 2>/dev/null || pg_isready -q -h "$WORK/run" -p "$PG_PORT"
}

# SIGQUIT is PostgreSQL's immediate shutdown: nobody needs this data again.
cluster_stop() {
  if [[ -z ${PG_PID:-} ]]; then return; fi
  kill -QUIT "$PG_PID" 2>/dev/null
  wait_until "$STOP_SECONDS_MAX" "PostgreSQL to stop" gone "$PG_PID" || kill -KILL "$PG_PID"
  PG_PID=''
}

# Kills every process of the cluster at once, as a crashing machine would; cluster_start brings it back.
cluster_kill() {
  local children
  children=$(ps -o pid= --ppid "$PG_PID")
  # shellcheck disable=SC2086  # a list of pids
  kill -KILL "$PG_PID" $children 2>/dev/null
  # shellcheck disable=SC2086
  wait_until "$STOP_SECONDS_MAX" "the killed cluster to be gone" gone "$PG_PID" $children
  PG_PID=''
}

# A zombie counts as gone: its parent may be in no hurry.
gone() {
  local pid state
  for pid in "$@"; do
    state=$(ps -o stat= -p "$pid")
    if [[ -n $state && $state != Z* ]]; then return 1; fi
  done
}

# direct DATABASE ARGUMENTS...: psql straight to PostgreSQL as superuser, unaligned, tuples only, stopping at the first error.
direct() {
  local database=$1
  shift
  psql -X -qAt -v ON_ERROR_STOP=1 -h "$WORK/run" -p "$PG_PORT" -U postgres -d "$database" "$@"
}

is_pgbouncer() { "$PGWEIR_BIN" -V 2>/dev/null | grep -q libevent; }

# cluster_users DATABASE: the ordinary user "weir" (password "weir") and a database of his, and the auth_file with his verifier as the server has it, so that
# the pooler can log in with the keys the client proved. The console's user "weir_admin" (password "console") is unknown to the
# server.
cluster_users() {
  direct postgres -c "CREATE USER weir PASSWORD 'weir'" -c "GRANT pg_monitor TO weir" -c "CREATE DATABASE \"$1\" OWNER weir" ||
    die "cannot create the user and his database"
  {
    direct postgres -c "SELECT format('\"%s\" \"%s\"', rolname, rolpassword) FROM pg_authid WHERE rolname = 'weir'"
    echo '"weir_admin" "console"'
  } >"$WORK/users.txt"
  give_to_server_user "$WORK/users.txt"
  chmod 600 "$WORK/users.txt"
}

# pooler_ini MODE POOL_SIZE [LINE...]: writes the pooler's ini file for the throw-away cluster and chooses $POOLER_PORT, if that
# is not set. Further lines go to its [pgbouncer] section. POOLER_AUTH=trust asks clients for nothing.
pooler_ini() {
  local mode=$1 pool_size=$2
  shift 2
  POOLER_PORT=${POOLER_PORT:-$(free_port)}
  cat >"$WORK/$POOLER_NAME.ini" <<CONF
[databases]
* = host=127.0.0.1 port=$PG_PORT

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $POOLER_PORT
unix_socket_dir = $WORK/run
auth_type = ${POOLER_AUTH:-scram-sha-256}
auth_file = $WORK/users.txt
admin_users = weir_admin
pool_mode = $mode
default_pool_size = $pool_size
max_client_conn = ${POOLER_CLIENTS_MAX:-1000}
query_wait_notify = 0
ignore_startup_parameters = extra_float_digits
$(printf '%s\n' "$@")
CONF
}

# pooler_start: starts the pooler on its ini file and waits until its console answers. A script that wants several at a time
# gives each a $POOLER_NAME, and keeps each one's $POOLER_PORT and $POOLER_PID itself. The program is copied first: the server
# user may not be able to enter the folder it was built in.
pooler_start() {
  local ini=$WORK/$POOLER_NAME.ini log=$WORK/log/$POOLER_NAME.log program=$WORK/$POOLER_NAME
  [[ -x $PGWEIR_BIN ]] || die "no pooler at $PGWEIR_BIN; build it with: cargo build --release"
  install -m 755 "$PGWEIR_BIN" "$program"
  give_to_server_user "$ini"
  # A session of its own, so that Ctrl-C reaches this script, which then ends the pooler in its own time.
  (as_server setsid "$program" "$ini") >>"$log" 2>&1 &
  POOLER_PID=$!
  disown "$POOLER_PID"
  POOLERS[POOLER_PID]=running
  wait_until "$POOLER_START_SECONDS_MAX" "the pooler to answer" pooler_answers_or_died ||
    { tail -n 20 "$log" >&2; die "the pooler did not start"; }
  kill -0 "$POOLER_PID" 2>/dev/null || { tail -n 20 "$log" >&2; die "the pooler ended at once"; }
}

pooler_answers_or_died() {
  ! kill -0 "$POOLER_PID" 2>/dev/null || console 'SHOW VERSION' >/dev/null 2>&1
}

# Ends the pooler $POOLER_PID, at once. Immediate shutdown is SIGQUIT, as in PgBouncer; a pooler that does not heed it is killed.
pooler_stop() {
  kill -QUIT "$POOLER_PID" 2>/dev/null
  wait_until "$STOP_SECONDS_MAX" "the pooler to stop" gone "$POOLER_PID" || kill -KILL "$POOLER_PID"
  unset "POOLERS[POOLER_PID]"
}

# console COMMAND [PSQL ARGUMENTS...]: one command to the pooler's console, unaligned, tuples only.
console() {
  local command=$1
  shift
  PGPASSWORD=console psql -X -qAt -h 127.0.0.1 -p "$POOLER_PORT" -U weir_admin -d pgbouncer -c "$command" "$@"
}

# pools_at_rest POOL_SIZE FILE: succeeds when, by SHOW POOLS (kept in FILE), no client is there, none waits, no server is in use,
# and no pool has more servers than POOL_SIZE. The console's own pool does not count.
pools_at_rest() {
  console 'SHOW POOLS' -A -F ' ' --pset=tuples_only=off >"$2" 2>&1 &&
    awk -v size="$1" '
      NR == 1 { for (i = 1; i <= NF; i++) column[$i] = i; next }
      NF < 10 || $1 == "pgbouncer" { next }
      { rows++
        if ($column["cl_active"] + $column["cl_waiting"] + $column["sv_active"] + $column["sv_tested"] + $column["sv_login"] > 0) bad++
        if ($column["sv_idle"] + $column["sv_used"] > size) bad++ }
      END { exit !(rows > 0 && bad == 0) }' "$2"
}

# result ok|FAIL|skip NAME: counts and prints one check.
result() {
  case $1 in
    ok) passed=$((passed + 1)) ;;
    FAIL) failed=$((failed + 1)) ;;
  esac
  say "$*"
}

# verdict NAME COMMAND...: a check that is one command.
verdict() {
  local name=$1
  shift
  if "$@"; then result ok "$name"; else result FAIL "$name"; fi
}

# results: the count, as the last line; fails if anything did.
results() {
  say "$passed passed, $failed failed"
  ((failed == 0))
}
