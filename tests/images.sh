#!/usr/bin/env bash
# The container image and the Debian package, built and run for real. The image: before a PostgreSQL of Debian's in a container
# beside it, with the ini file, the TOML file, and only environment variables by every family of names; read-only, without
# capabilities, not as root; health, reload, drain; and Prometheus, whose alert fires when the pool is full. Prints one line per
# check, `ok …` or `FAIL …`, and ends with `N passed, N failed`. Without a container engine it says so, checks nothing and succeeds.
#
# usage: tests/images.sh
#   PGWEIR_ENGINE=private  where there is no engine, have one of our own (see tests/engine.sh)
#   PGWEIR_BIN             the program to put into the image (default target/release/pgweir)
#   IMAGES_FROM=source     let the Dockerfile build the program itself, in the Rust image that IMAGES_RUST names
#   IMAGES_KEEP_LOGS=DIR   where the logs of a run that failed go (default target/image-logs)
set -uo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/engine.sh
source "$HERE/engine.sh"
cd "$ENGINE_ROOT_DIR" || exit 1

TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
PGWEIR_BIN=${PGWEIR_BIN:-$TARGET_DIR/release/pgweir}
LOGS=${IMAGES_KEEP_LOGS:-$TARGET_DIR/image-logs}
IMAGE=pgweir-test/pgweir:$ENGINE_RUN
TOOLS=pgweir-test/tools:$ENGINE_RUN
NETWORK=$ENGINE_RUN
POSTGRES=$ENGINE_RUN-postgres
PROMETHEUS=$ENGINE_RUN-prometheus
IMAGE_MB_MAX=20
WAIT_SECONDS_MAX=90
passed=0 failed=0 poolers=0

say() { printf '%s\n' "$*"; }
die() { say "error: $*" >&2; exit 1; }

result() {
  case $1 in
    ok) passed=$((passed + 1)) ;;
    FAIL) failed=$((failed + 1)) ;;
  esac
  say "$*"
}

# verdict NAME COMMAND...
verdict() {
  local name=$1
  shift
  if "$@"; then result ok "$name"; else result FAIL "$name"; fi
}

# equal NAME EXPECTED GOT
equal() {
  if [[ $2 == "$3" ]]; then result ok "$1"; else result FAIL "$1: expected '$2', got '$3'"; fi
}

# holds NAME TEXT PATTERN: the text matches the extended regular expression; lacks: it does not.
holds() {
  if grep -qE -- "$3" <<<"$2"; then result ok "$1"; else result FAIL "$1: no '$3' in: $2"; fi
}
lacks() {
  if grep -qE -- "$3" <<<"$2"; then result FAIL "$1: '$3' in: $2"; else result ok "$1"; fi
}

# eventually COMMAND...: runs it until it succeeds, for a generous time at most.
eventually() {
  local deadline=$((SECONDS + WAIT_SECONDS_MAX))
  until "$@" >/dev/null 2>&1; do
    if ((SECONDS >= deadline)); then return 1; fi
    sleep 0.3
  done
}

end() {
  local status=$?
  trap '' INT TERM HUP
  trap - EXIT
  if ((status != 0)) && engine_answers; then keep_logs; fi
  engine_end
  rm -rf "$WORK"
  exit "$status"
}

keep_logs() {
  local container
  mkdir -p "$LOGS"
  while read -r container; do
    { docker logs "$container"; docker inspect --format '{{json .State}}' "$container"; } >"$LOGS/${container#"$ENGINE_RUN-"}.log" 2>&1
  done < <(docker ps -a --filter "label=$ENGINE_LABEL" --format '{{.Names}}')
  say "logs kept in $LOGS" >&2
}

# --- what is run

build() {
  local arguments=(--build-arg "BASE=$ENGINE_BASE" --label "$ENGINE_LABEL" -t "$IMAGE")
  if [[ ${IMAGES_FROM:-} == source ]]; then
    say "building the image from source"
    arguments+=(--build-arg "RUST=${IMAGES_RUST:-rust:1.95-slim-trixie}")
    docker buildx build --quiet -f docker/Dockerfile "${arguments[@]}" . >/dev/null
    return
  fi
  [[ -x $PGWEIR_BIN ]] || die "no pooler at $PGWEIR_BIN; build it with: cargo build --release"
  say "building the image with $PGWEIR_BIN"
  # A folder of its own for what goes in: the program may be anywhere.
  mkdir "$WORK/context"
  # Without line numbers for backtraces, as the Dockerfile makes it.
  strip --strip-debug -o "$WORK/context/pgweir" "$PGWEIR_BIN" 2>/dev/null || cp "$PGWEIR_BIN" "$WORK/context/pgweir"
  cp -r docker "$WORK/context/docker"
  rm "$WORK/context/docker/Dockerfile.dockerignore"
  arguments+=(--build-arg BINARY=prebuilt --build-arg PREBUILT=pgweir)
  docker buildx build --quiet -f "$WORK/context/docker/Dockerfile" "${arguments[@]}" "$WORK/context" >/dev/null
}

# PostgreSQL, its clients, Prometheus and curl, from Debian.
build_tools() {
  say "building an image with PostgreSQL and Prometheus from Debian"
  docker buildx build --quiet --label "$ENGINE_LABEL" -t "$TOOLS" - >/dev/null <<DOCKERFILE
FROM $ENGINE_BASE
RUN export DEBIAN_FRONTEND=noninteractive && apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends postgresql prometheus curl jq >/dev/null \
 && mv /usr/lib/postgresql/*/bin /opt/postgresql && ln -s /opt/postgresql/* /usr/local/bin/
DOCKERFILE
}

# run NAME ARGUMENTS...: a container of this run in the background.
run() {
  local name=$1
  shift
  docker run --pull never --detach --label "$ENGINE_LABEL" --network "$NETWORK" --name "$name" "$@" >/dev/null
}

# tool COMMAND...: a command in a container beside the others; its standard input is ours.
tool() {
  docker run --pull never --rm --interactive --label "$ENGINE_LABEL" --network "$NETWORK" --user postgres --env PGPASSWORD --env PGCONNECT_TIMEOUT=10 \
    "$TOOLS" "$@"
}

# put VOLUME FILE: standard input becomes a file of a volume, readable for pgweir only.
put() {
  docker volume inspect "$1" >/dev/null 2>&1 || docker volume create --label "$ENGINE_LABEL" "$1" >/dev/null
  docker run --pull never --rm --interactive --label "$ENGINE_LABEL" --network none --volume "$1:/volume" "$TOOLS" \
    sh -c "cat >/volume/.new && chmod 600 /volume/.new && chown 65532:65532 /volume /volume/.new && mv /volume/.new /volume/$2"
}

# The password has what is special in URLs and in quotes.
PASSWORD="p@s/w:r%d\"'?"
PASSWORD_IN_URL='p%40s%2Fw%3Ar%25d%22%27%3F'

postgres_start() {
  # shellcheck disable=SC2016  # for the shell inside
  run "$POSTGRES" --user postgres --tmpfs /data:mode=1777 --env "PASSWORD=$PASSWORD" "$TOOLS" bash -c '
    initdb -D /data/pg -U postgres -A trust --no-sync >/dev/null
    echo "host all all all scram-sha-256" >/data/pg/pg_hba.conf
    echo "local all all trust" >>/data/pg/pg_hba.conf
    postgres --single -D /data/pg postgres >/dev/null <<SQL
CREATE USER app PASSWORD \$p\$$PASSWORD\$p\$
CREATE DATABASE shop OWNER app
SQL
    exec postgres -D /data/pg -c listen_addresses="*" -c unix_socket_directories=/tmp -c fsync=off -c max_connections=50'
  eventually docker exec "$POSTGRES" pg_isready -q -h 127.0.0.1
}

# pooler ARGUMENTS...: starts the image, as hardened as can be, as container $POOLER; what follows `--` are the image's arguments.
pooler() {
  local options=() arguments=()
  while (($# > 0)); do
    if [[ $1 == -- ]]; then shift; arguments=("$@"); break; fi
    options+=("$1")
    shift
  done
  poolers=$((poolers + 1))
  POOLER=$ENGINE_RUN-pooler-$poolers
  run "$POOLER" --read-only --cap-drop ALL --security-opt no-new-privileges "${options[@]}" "$IMAGE" "${arguments[@]}"
}

# as_app SQL: what the application gets through $POOLER.
as_app() { PGPASSWORD=$PASSWORD tool psql -X -qAt "host=$POOLER port=${PORT:-6432} user=app dbname=${DATABASE:-shop} sslmode=disable" -c "$1" 2>&1; }

console() { PGPASSWORD=operator tool psql -X -qAt "host=$POOLER port=${PORT:-6432} user=ops dbname=pgbouncer" -c "$1" 2>&1; }

# fetch PATH: what $POOLER's listener for metrics and health answers.
fetch() { tool curl -sS --max-time 10 "http://$POOLER:9127$1" 2>&1; }

health_is() { [[ $(docker inspect --format '{{.State.Health.Status}}' "$POOLER") == "$1" ]]; }
is_running() { [[ $(docker inspect --format '{{.State.Running}}' "$POOLER") == true ]]; }
is_over() { ! is_running; }
logs() { docker logs "$POOLER" 2>&1; }
logs_hold() { logs | grep -qE -- "$1"; }
remove() { docker rm -f -v "$POOLER" >/dev/null 2>&1; }

# works NAME: the pooler that was started becomes healthy and serves the application; nobody finds the password in its log.
works() {
  verdict "$1: becomes healthy" eventually health_is healthy
  equal "$1: a query" 'app shop' "$(as_app "SELECT current_user || ' ' || current_database()")"
  lacks "$1: no secret in the log" "$(logs)" 'w:r%d|w%3Ar'
}

# --- the checks

check_image() {
  local inspected size
  inspected=$(docker image inspect "$IMAGE" | tr -d ' \n')
  holds "the image's user is a number, not root" "$inspected" '"User":"65532:65532"'
  holds "the image has a health check" "$inspected" '"Healthcheck":\{"Test":\["CMD","/usr/bin/pgweir","healthcheck"\]'
  holds "the image has its ports" "$inspected" '"6432/tcp":\{\},"9127/tcp":\{\}'
  holds "the image ends by SIGTERM" "$inspected" '"StopSignal":"SIGTERM"'
  holds "the image has labels" "$inspected" '"org.opencontainers.image.title":"pgweir"'
  size=$(($(docker image inspect --format '{{.Size}}' "$IMAGE") / 1000000))
  say "the image has $size MB"
  case $PGWEIR_BIN in
    */debug/*) say "skip the image's size: it holds a build that is not optimised" ;;
    *) verdict "the image has at most $IMAGE_MB_MAX MB" test "$size" -le "$IMAGE_MB_MAX" ;;
  esac
  holds "the image runs any command of pgweir" "$(docker run --pull never --rm --network none "$IMAGE" --version)" '^pgweir [0-9]'
  verdict "the image has no shell" bash -c "! docker run --pull never --rm --network none --entrypoint /bin/sh '$IMAGE' -c true 2>/dev/null"
}

check_files() {
  local volume=$ENGINE_RUN-ini
  put "$volume" pgbouncer.ini <<INI
[databases]
shop = host=$POSTGRES
[pgbouncer]
auth_type = scram-sha-256
auth_file = /etc/pgweir/users.txt
admin_users = ops
pool_mode = transaction
INI
  printf '"app" "%s"\n"ops" "operator"\n' "${PASSWORD//\"/\"\"}" | put "$volume" users.txt
  pooler --volume "$volume:/etc/pgweir:ro"
  works "ini file"
  equal "ini file: pool_mode" transaction "$(console 'SHOW CONFIG' | sed -n 's/^pool_mode|\([^|]*\).*/\1/p')"
  remove
  # The same where PgBouncer's images have it, with a variable that has no effect then, and one that has.
  pooler --volume "$volume:/etc/pgbouncer:ro" --volume "$volume:/etc/pgweir-users:ro" --env DB_HOST=nowhere --env PGWEIR_POOL_MODE=statement \
    --env PGWEIR_AUTH_FILE=/etc/pgbouncer/users.txt
  works "ini file of a PgBouncer image"
  equal "ini file of a PgBouncer image: PGWEIR_POOL_MODE wins" statement "$(console 'SHOW CONFIG' | sed -n 's/^pool_mode|\([^|]*\).*/\1/p')"
  holds "ini file of a PgBouncer image: DB_HOST has no effect, and that is said" "$(logs)" 'no effect beside the file .*: DB_HOST'
  remove

  volume=$ENGINE_RUN-toml
  put "$volume" pgweir.toml <<TOML
[pgbouncer]
auth_type = "scram-sha-256"
auth_file = "/etc/pgweir/users.txt"
admin_users = ["ops"]
query_wait_timeout = "20s"
[databases.shop]
host = "$POSTGRES"
TOML
  printf '"app" "%s"\n"ops" "operator"\n' "${PASSWORD//\"/\"\"}" | put "$volume" users.txt
  pooler --volume "$volume:/etc/pgweir:ro"
  works "TOML file"
  check_reload "$volume"
  remove
}

# A file that changes is in force without a signal; a bad one is not, and that is said.
check_reload() {
  local volume=$1
  put "$volume" pgweir.toml <<TOML
[pgbouncer]
auth_type = "scram-sha-256"
auth_file = "/etc/pgweir/users.txt"
admin_users = ["ops"]
query_wait_timeout = "33s"
[databases.shop]
host = "$POSTGRES"
TOML
  setting_is() { console 'SHOW CONFIG' | grep -q "^query_wait_timeout|$1|"; }
  verdict "a changed file is in force by itself" eventually setting_is 33
  put "$volume" pgweir.toml <<<'query_wait_timeout = "soon"'
  refused() { fetch /metrics | grep -q '^pgweir_config_last_reload_successful 0'; }
  verdict "a bad file is refused, and a metric says so" eventually refused
  verdict "the good one stays" setting_is 33
}

check_variables() {
  local volume=$ENGINE_RUN-secret
  pooler --env "DATABASE_URL=postgres://app:$PASSWORD_IN_URL@$POSTGRES/shop?sslmode=prefer" --env POOL_MODE=transaction \
    --env ADMIN_USERS=ops --env ADMIN_PASSWORD=operator
  works "DATABASE_URL"
  equal "DATABASE_URL: POOL_MODE" transaction "$(console 'SHOW CONFIG' | sed -n 's/^pool_mode|\([^|]*\).*/\1/p')"
  lacks "DATABASE_URL: SHOW CONFIG tells no password" "$(console 'SHOW CONFIG')" 'w:r%d|operator'
  holds "DATABASE_URL: a wrong password is refused" "$(PGPASSWORD=wrong tool psql -X "host=$POOLER port=6432 user=app dbname=shop" -c 'SELECT 1' 2>&1)" 'authentication failed'
  holds "DATABASE_URL: a RELOAD works" "$(console 'RELOAD'; console 'SHOW VERSION')" 'pgweir|PgBouncer'
  works "DATABASE_URL after RELOAD"
  remove

  pooler --env "DATABASE_URL_SHOP=postgres://app:$PASSWORD_IN_URL@$POSTGRES:5432/shop"
  works "DATABASE_URL_<NAME>"
  remove

  pooler --env DB_HOST="$POSTGRES" --env DB_PORT=5432 --env DB_USER=app --env DB_PASSWORD="$PASSWORD" --env DB_NAME=shop --env POOL_MODE=session \
    --env MAX_CLIENT_CONN=50 --env DEFAULT_POOL_SIZE=3 --env AUTH_TYPE=scram-sha-256 --env LISTEN_PORT=5432 --env ADMIN_USERS=app
  PORT=5432 works "DB_HOST"
  holds "DB_HOST: settings by their names" "$(DATABASE=pgbouncer PORT=5432 as_app 'SHOW CONFIG')" '^default_pool_size\|3\|'
  remove

  pooler --env POSTGRESQL_HOST="$POSTGRES" --env POSTGRESQL_USERNAME=app --env POSTGRESQL_PASSWORD="$PASSWORD" --env POSTGRESQL_DATABASE=shop \
    --env PGBOUNCER_DATABASE=front --env PGBOUNCER_PORT=6543 --env PGBOUNCER_POOL_MODE=transaction
  PORT=6543 DATABASE=front works "POSTGRESQL_HOST and PGBOUNCER_"
  remove

  pooler --env DATABASES_HOST="$POSTGRES" --env DATABASES_USER=app --env DATABASES_PASSWORD="$PASSWORD" --env DATABASES_DBNAME=shop --env DATABASES_POOL_SIZE=2
  works "DATABASES_HOST"
  remove

  printf '%s\n' "$PASSWORD" | put "$volume" password
  pooler --volume "$volume:/run/secrets:ro" --env DB_HOST="$POSTGRES" --env DB_USER=app --env DB_PASSWORD_FILE=/run/secrets/password --env DB_NAME=shop
  works "DB_PASSWORD_FILE"
  PASSWORD=changed PASSWORD_IN_URL=changed
  docker exec "$POSTGRES" psql -X -q -h /tmp -U postgres -c "ALTER USER app PASSWORD 'changed'" >/dev/null
  put "$volume" password <<<changed
  docker kill --signal HUP "$POOLER" >/dev/null
  verdict "DB_PASSWORD_FILE: a new password is in force after SIGHUP" eventually as_app_is_well
  remove
}

as_app_is_well() { [[ $(as_app 'SELECT 1') == 1 ]]; }

check_mistakes() {
  pooler --env DATABASE_URL="postgres://app:w:r%25d/x@$POSTGRES/shop" --env POOL_MODE=both --env PGBOUNCER_MAX_CLIENT_CON=7
  verdict "mistakes: it ends" eventually is_over
  equal "mistakes: exit code" 1 "$(docker inspect --format '{{.State.ExitCode}}' "$POOLER")"
  holds "mistakes: the URL" "$(logs)" 'not a URL of PostgreSQL \(DATABASE_URL\)'
  holds "mistakes: the setting" "$(logs)" 'invalid value "both" for parameter pool_mode'
  holds "mistakes: the name" "$(logs)" 'did you mean PGBOUNCER_MAX_CLIENT_CONN'
  lacks "mistakes: no secret" "$(logs)" 'w:r%'
  remove
  pooler
  verdict "without anything: it ends" eventually is_over
  holds "without anything: it says what to give" "$(logs)" 'give DATABASE_URL or DB_HOST'
  remove
}

# A signal to end: who works finishes, and the container is gone with exit code 0.
check_drain() {
  local client
  pooler --env "DATABASE_URL=postgres://app:$PASSWORD_IN_URL@$POSTGRES/shop" --env POOL_MODE=transaction --env PGWEIR_DRAIN_LAME_DUCK=2s
  verdict "drain: healthy before" eventually health_is healthy
  client=$ENGINE_RUN-client
  run "$client" --user postgres --env PGPASSWORD="$PASSWORD" "$TOOLS" psql -X -qAt "host=$POOLER port=6432 user=app dbname=shop" \
    -c 'BEGIN' -c 'SELECT pg_sleep(8)' -c "SELECT 'finished'" -c 'COMMIT'
  in_transaction() { docker exec "$POSTGRES" psql -X -qAt -h /tmp -U postgres -c "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(8)%' AND usename = 'app'" | grep -qx 1; }
  verdict "drain: a transaction runs" eventually in_transaction
  docker kill --signal TERM "$POOLER" >/dev/null
  not_ready() { fetch /readyz | grep -qiE "drain|shutting down"; }
  verdict "drain: /readyz says so" eventually not_ready
  client_is_over() { [[ $(docker inspect --format '{{.State.Running}}' "$client") == false ]]; }
  verdict "drain: the client comes to its end" eventually client_is_over
  holds "drain: its transaction was finished" "$(docker logs "$client" 2>&1)" '^finished$'
  verdict "drain: the pooler ends" eventually is_over
  equal "drain: exit code" 0 "$(docker inspect --format '{{.State.ExitCode}}' "$POOLER")"
  remove
}

# With a pool of one that somebody holds, others wait: Prometheus sees it, the alert fires, and clears when he lets go.
check_prometheus() {
  local volume=$ENGINE_RUN-prometheus holder=$ENGINE_RUN-holder waiter=$ENGINE_RUN-waiter
  pooler --env "DATABASE_URL=postgres://app:$PASSWORD_IN_URL@$POSTGRES/shop" --env DEFAULT_POOL_SIZE=1 --env POOL_MODE=transaction \
    --env ADMIN_USERS=ops --env ADMIN_PASSWORD=operator --publish 127.0.0.1::9127
  verdict "prometheus: the pooler is healthy" eventually health_is healthy
  alert_rules | put "$volume" rules.yml
  put "$volume" prometheus.yml <<YAML
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [/config/rules.yml]
scrape_configs:
  - job_name: pgweir
    static_configs: [{targets: ["$POOLER:9127"]}]
YAML
  run "$PROMETHEUS" --user 65532 --volume "$volume:/config:ro" --tmpfs /data:mode=1777 "$TOOLS" \
    prometheus --config.file=/config/prometheus.yml --storage.tsdb.path=/data --log.level=warn
  scraped() { [[ $(prometheus 'up{job="pgweir"}') == 1 ]]; }
  verdict "prometheus: it scrapes the pooler" eventually scraped
  run "$holder" --user postgres --env PGPASSWORD="$PASSWORD" "$TOOLS" psql -X -q "host=$POOLER port=6432 user=app dbname=shop" \
    -c 'BEGIN' -c 'SELECT pg_sleep(300)'
  waiting_is() { [[ $(prometheus 'sum(pgbouncer_pools_client_waiting_connections)') == "$1" ]]; }
  run "$waiter" --user postgres --env PGPASSWORD="$PASSWORD" "$TOOLS" sh -c \
    "for i in 1 2 3 4 5; do psql -X -q 'host=$POOLER port=6432 user=app dbname=shop' -c 'SELECT 1' & done; wait"
  verdict "prometheus: it sees clients wait" eventually waiting_is 5
  verdict "the alert for a full pool fires" eventually alert_is firing
  holds "the status page shows the pool" "$(curl -sS --max-time 10 "http://$(docker port "$POOLER" 9127/tcp | head -n 1)/status.json")" '"shop"'
  docker rm -f "$holder" >/dev/null 2>&1
  verdict "prometheus: nobody waits when the holder is gone" eventually waiting_is 0
  verdict "the alert clears" eventually alert_is none
  remove
}

# prometheus QUERY: the value of its first result.
prometheus() {
  docker exec "$PROMETHEUS" curl -sS --max-time 10 -G http://127.0.0.1:9090/api/v1/query --data-urlencode "query=$1" | docker exec -i "$PROMETHEUS" jq -r '.data.result[0].value[1]'
}

# The rules that are delivered, with their patience shortened: an alert that fires after minutes fires after seconds here.
ALERT=PgweirPoolFull
alert_rules() { sed -E 's/^( +for: ).*/\13s/; s/\[[0-9]+m\]/[10s]/g' config/monitoring/rules/pgweir.yml; }

# alert_is STATE: firing, pending or none.
alert_is() {
  local state
  state=$(docker exec "$PROMETHEUS" curl -sS --max-time 10 http://127.0.0.1:9090/api/v1/alerts | docker exec -i "$PROMETHEUS" jq -r --arg name "$ALERT" '[.data.alerts[] | select(.labels.alertname == $name) | .state] | (.[0] // "none")')
  [[ $state == "$1" ]]
}

# The package, installed in a bare Debian: it brings the program, its unit, a user, and a configuration that only he reads.
check_package() {
  local package said
  if ! command -v dpkg-deb >/dev/null || ! command -v objdump >/dev/null; then
    say "skip the Debian package: dpkg-deb or objdump is not here"
    return
  fi
  if ! package=$(PGWEIR_BIN=$PGWEIR_BIN config/debian/build.sh); then result FAIL "the package is built"; return; fi
  said=$(docker run --pull never --rm --interactive --label "$ENGINE_LABEL" "$ENGINE_BASE" bash -c '
    cat >/tmp/pgweir.deb && export DEBIAN_FRONTEND=noninteractive
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends /tmp/pgweir.deb; } >/tmp/log 2>&1 || cat /tmp/log
    pgweir --version
    ls /usr/lib/systemd/system/pgweir.service
    getent passwd pgweir
    stat -c "%a %U %G %n" /etc/pgweir /etc/pgweir/*
    setpriv --reuid pgweir --regid pgweir --clear-groups pgweir check /etc/pgweir/pgbouncer.ini
    echo
    apt-get purge -y -qq pgweir >/dev/null 2>&1 && test ! -e /usr/bin/pgweir && echo purged
    ls /etc/pgweir 2>&1' <"$package" 2>&1)
  holds "the package: the program" "$said" '^pgweir [0-9]'
  holds "the package: the unit" "$said" '^/usr/lib/systemd/system/pgweir.service$'
  holds "the package: the user" "$said" '^pgweir:x:.*nologin$'
  holds "the package: the configuration is not for everybody" "$said" '^640 root pgweir /etc/pgweir/pgbouncer.ini$'
  holds "the package: the configuration is usable" "$said" 'pgbouncer.ini: usable'
  holds "the package goes" "$said" '^purged$'
}

main() {
  WORK=$(mktemp -d /tmp/pgweir-images.XXXXXX)
  trap end EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  engine_begin
  case $? in
    0) ;;
    1)
      say "SKIPPED: the image was neither built nor run"
      say "0 passed, 0 failed"
      exit 0
      ;;
    *) result FAIL "a container engine"; say "$passed passed, $failed failed"; exit 1 ;;
  esac
  engine_plugins buildx || die "no docker buildx"
  build || die "the image can't be built"
  result ok "the image is built"
  build_tools || die "the image with PostgreSQL can't be built"
  docker network create --label "$ENGINE_LABEL" "$NETWORK" >/dev/null || die "no network"
  check_image
  check_package
  postgres_start || die "PostgreSQL does not start"
  check_files
  check_mistakes
  check_variables
  check_drain
  check_prometheus
  say "$passed passed, $failed failed"
  ((failed == 0))
}

main "$@"
