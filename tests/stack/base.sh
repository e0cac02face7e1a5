# shellcheck shell=bash
# What stands in single quotes is expanded in a container.
# shellcheck disable=SC2016
# `docker compose up`: primary and pooler, roles and rights, start and stop, maintenance mode.

part_base() {
  local started
  started=$(now_ms)
  check "primary and pooler come up" up postgres pgweir client || return
  measured "start of an empty stack" "$(seconds_since "$started")" "compose up with empty volumes until both are healthy"

  check "the image runs without root" equals 999 compose exec -T postgres id -u
  check "data checksums" equals on as_superuser postgres app 'SHOW data_checksums'
  check "PostgreSQL is the version asked for" equals 17 as_superuser postgres app "SELECT current_setting('server_version_num')::int / 10000"
  check "log is csv" equals csvlog as_superuser postgres app 'SHOW log_destination'
  check "statements are counted" as_superuser postgres app 'SELECT count(*) FROM public.pg_stat_statements'
  check "the log is written" compose exec -T postgres grep -rq 'ready to accept connections' /var/log/postgresql
  check "and can be read" log_says 'ready to accept connections'
  check "passwords are not in the log" fails compose exec -T postgres grep -rqsF 'PASSWORD '"'" /var/log/postgresql
  check "nothing is published but on the loopback" loopback_only

  part_base_roles
  part_base_pooler
  part_base_partitions
  part_base_life
}

# The command of the runbook.
log_says() { compose exec -T postgres bash -c 'tail /var/log/postgresql/*.csv' | grep -F "$1" >/dev/null; }

loopback_only() {
  local found
  found=$(compose --profile '*' config | sed -nE 's/.*host_ip: //p' | sort -u)
  [[ $found == 127.0.0.1 ]] || { say "published on: $found"; return 1; }
  [[ $(compose --profile '*' config | grep -c 'published:') == $(compose --profile '*' config | grep -c 'host_ip: 127.0.0.1') ]]
}

part_base_roles() {
  as_superuser postgres app 'SET ROLE admin; CREATE TABLE app.things (id int PRIMARY KEY, name text)' >/dev/null
  check "app writes to what admin made" as_user app postgres:5432 app "INSERT INTO things VALUES (1, 'one')"
  check "app makes no tables" refused "permission denied" as_user app postgres:5432 app 'CREATE TABLE app.mine (id int)'
  check "app makes nothing in public" refused "permission denied" as_user app postgres:5432 app 'CREATE TABLE public.mine (id int)'
  check "app drops nothing" refused "must be owner" as_user app postgres:5432 app 'DROP TABLE things'
  check "app may not look up secrets" refused "permission denied" as_user app postgres:5432 app "SELECT * FROM pgweir.user_lookup('app')"
  check "monitor reads statistics" as_user monitor postgres:5432 app 'SELECT count(*) FROM pg_stat_replication'
  check "monitor reads no rows" refused "permission denied" as_user monitor postgres:5432 app 'SELECT * FROM app.things'
  as_superuser postgres app "CREATE ROLE reader LOGIN PASSWORD '$(<"$WORK/secrets/app_password")' IN ROLE readonly" >/dev/null
  check "readonly reads" equals one as_reader "SELECT name FROM things"
  check "readonly does not write" refused "permission denied" as_reader "INSERT INTO things VALUES (2, 'two')"
  check "the superuser stays out over the network" refused "pg_hba.conf rejects connection" compose exec -T client bash -c \
    "PGPASSWORD=$(<"$WORK/secrets/postgres_password") psql 'host=postgres user=postgres dbname=app' -c 'SELECT 1'"
  check "without TLS nobody gets in" refused "no pg_hba.conf entry" compose exec -T client bash -c \
    "PGSSLMODE=disable PGPASSWORD=$(<"$WORK/secrets/app_password") psql 'host=postgres user=app dbname=app' -c 'SELECT 1'"
  check "auth_query gives no superuser's secret" equals 0 as_superuser postgres app "SELECT count(*) FROM pgweir.user_lookup('postgres')"
  check "auth_query gives no replication user's secret" equals 0 as_superuser postgres app "SELECT count(*) FROM pgweir.user_lookup('replicator')"
  check "auth_query's search_path is fixed" equals t as_superuser postgres app \
    "SELECT proconfig::text LIKE '%search_path=pg_catalog%' AND prosecdef FROM pg_proc WHERE proname = 'user_lookup'"
}

as_reader() {
  compose exec -T client bash -c 'PGPASSWORD=$(</run/secrets/app_password) exec psql --no-psqlrc -Atq "host=pgweir port=6432 user=reader dbname=app" -c "$1"' _ "$1"
}

part_base_pooler() {
  check "app reaches PostgreSQL through the pooler" equals app as_user app pgweir:6432 app 'SELECT current_user'
  check "a wrong password is refused" refused "authentication failed" compose exec -T client bash -c \
    "PGPASSWORD=wrong psql 'host=pgweir port=6432 user=app dbname=app' -c 'SELECT 1'"
  check "the pooler wants TLS" refused "SSL required" compose exec -T client bash -c \
    "PGSSLMODE=disable PGPASSWORD=$(<"$WORK/secrets/app_password") psql 'host=pgweir port=6432 user=app dbname=app' -c 'SELECT 1'"
  check "the console" compose_console 'SHOW POOLS'
  as_superuser postgres app "ALTER ROLE reader PASSWORD NULL" >/dev/null
  check "a user without a password is refused at once" refused "authentication failed" as_reader 'SELECT 1'
  make_bench_tables postgres 1 >/dev/null
  check "pgbench through the pooler" bench pgweir --no-vacuum --client=16 --jobs=2 --time=5 --protocol=prepared app
}

compose_console() {
  compose exec -T client bash -c 'PGPASSWORD=$(</run/secrets/pgweir_admin_password) exec psql --no-psqlrc -Atq "host=${2:-pgweir} port=6432 user=pgweir_admin dbname=pgbouncer" -c "$1"' _ "$@"
}

part_base_partitions() {
  check "by range" equals measurements_2026 as_user app pgweir:6432 app \
    "INSERT INTO measurements VALUES ('2026-03-01', 1, 1.5) RETURNING tableoid::regclass"
  check "by list" equals orders_europe as_user app pgweir:6432 app "INSERT INTO orders (region, amount) VALUES ('de', 1) RETURNING tableoid::regclass"
  check "by month, ahead of time" equals t as_superuser postgres app \
    "SELECT count(*) >= 5 FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'app.events'::regclass
      AND c.relname > 'events_p' || to_char(now() - interval '1 month', 'YYYYMMDD')"
  check "maintenance makes a partition that is missing" partition_comes_back
  check "a partition has its parent's owner" equals admin as_superuser postgres app \
    "SELECT DISTINCT relowner::regrole FROM pg_class WHERE relname ~ '^events_p[0-9]+$'"
  check "the worker that maintains makes it too" worker_makes_partition
}

NEWEST_PARTITION="SELECT max(c.relname) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
  WHERE i.inhparent = 'app.events'::regclass AND c.relname ~ '^events_p[0-9]+\$'"

# The newest partition is dropped, maintenance makes it again.
partition_comes_back() {
  local name
  name=$(as_superuser postgres app "$NEWEST_PARTITION") && as_superuser postgres app "DROP TABLE app.$name" \
    && as_superuser postgres app 'SET ROLE postgres; CALL partman.run_maintenance_proc()' \
    && equals "$name" as_superuser postgres app "$NEWEST_PARTITION"
}

worker_makes_partition() {
  local name
  name=$(as_superuser postgres app "$NEWEST_PARTITION") && as_superuser postgres app "DROP TABLE app.$name" \
    && as_superuser postgres app "ALTER SYSTEM SET pg_partman_bgw.interval = 1" && as_superuser postgres app 'SELECT pg_reload_conf()' \
    && within 30 equals "$name" as_superuser postgres app "$NEWEST_PARTITION" && as_superuser postgres app 'ALTER SYSTEM RESET pg_partman_bgw.interval'
}

part_base_life() {
  local started took
  took=$(compose exec -T postgres bash -c 'TIMEFORMAT=%R; for _ in 1 2 3 4 5; do time healthcheck; done' 2>&1 | sort -n | head -n 1)
  measured "healthcheck" "$took s" "time healthcheck in the container, the quickest of five"
  check "the healthcheck takes less than a second" awk -v took="$took" 'BEGIN { exit !(took ~ /^[0-9.]+$/ && took < 1) }'
  started=$(now_ms)
  check "stop" compose stop postgres
  measured "stop of the primary" "$(seconds_since "$started")" "compose stop, after pgbench"
  check "it stopped by itself" equals 0 docker inspect --format '{{.State.ExitCode}}' "$(container postgres)"
  started=$(now_ms)
  check "the pooler stops" compose stop pgweir
  measured "stop of the pooler" "$(seconds_since "$started")" "compose stop, no client connected; drain_lame_duck is 5 s of it"
  check "by itself too" equals 0 docker inspect --format '{{.State.ExitCode}}' "$(container pgweir)"
  started=$(now_ms)
  check "start again" up postgres pgweir
  measured "start with data" "$(seconds_since "$started")" "compose up with data there, until it and the pooler are healthy"
  check "the rows are there, through the pooler" within 30 equals one as_user app pgweir:6432 app 'SELECT name FROM things'

  check "maintenance mode" env_up PG_MAINTENANCE=1 postgres
  check "PostgreSQL sleeps, the container is healthy" compose exec -T postgres bash -c 'healthcheck && ! pg_isready -q'
  check "and wakes" env_up PG_MAINTENANCE=0 postgres
  check "with its rows" within 30 equals one as_user app pgweir:6432 app 'SELECT name FROM things'
  part_base_certificates
  check "a profile of config/postgres" env_up PG_PROFILE=small postgres
  check "is what PostgreSQL runs with" equals 1310kB as_superuser postgres app 'SHOW work_mem'
  check "and does not cost the worker that maintains partitions" equals pg_stat_statements,pg_partman_bgw \
    as_superuser postgres app 'SHOW shared_preload_libraries'
  check "a wrong environment is refused" refused "PG_DATABASE=a b" compose run --rm --no-deps -T -e PG_DATABASE='a b' postgres true
}

# The runbook for renewing certificates: what both servers show afterwards is new, and clients that know the authority believe it.
part_base_certificates() {
  local old new
  old=$(serials_shown)
  (cd "$WORK/secrets" && rm server.crt server.key pgweir.crt pgweir.key)
  check "certificates are made anew" "$ROOT_DIR/docker/scripts/make-secrets" "$WORK/secrets" s3
  check "containers are made anew" up --force-recreate postgres pgweir
  new=$(serials_shown)
  check "both servers show a new certificate" equals 4 distinct_lines "$old" "$new"
  check "which clients believe" within 30 equals one as_user app pgweir:6432 app 'SELECT name FROM things'
}

# The serial numbers of the certificates that PostgreSQL and the pooler show.
serials_shown() {
  local server
  for server in postgres:5432 pgweir:6432; do
    compose exec -T client bash -c 'openssl s_client -starttls postgres -connect "$1" </dev/null 2>/dev/null | openssl x509 -noout -serial' _ "$server"
  done
}

distinct_lines() { printf '%s\n' "$@" | sort -u | grep -c .; }

# env_up SETTING SERVICE...: with one setting of .env changed.
env_up() {
  set_env "${1%%=*}" "${1#*=}"
  shift
  up "$@"
}

# set_env NAME VALUE: in the file that compose reads.
set_env() {
  sed -i "/^$1=/d" "$WORK/env"
  printf "%s='%s'\n" "$1" "$2" >>"$WORK/env"
}
