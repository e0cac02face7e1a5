# shellcheck shell=bash
# A container engine, and what tests need of one: for scripts that source this file. It is not a test itself.
#
# The engine that is there is used: the one `docker` finds by itself, or that DOCKER_HOST names. Nothing is installed and no engine
# is started, unless PGWEIR_ENGINE=private asks for it: then, where no engine answers, Debian's docker.io is installed and a dockerd
# of our own is started, with its data in target/engine, and ended with the script. Nothing needs a registry: the base image is
# made by mmdebstrap, the plugins buildx and compose come from Debian.
#
# What a script does:
#   engine_begin || ...      an engine answers, and $ENGINE_BASE is an image of Debian trixie; fails having said why not
#   engine_plugins buildx    `docker buildx` and, if named too, `docker compose` are to be had
#   docker run --label "$ENGINE_LABEL" --name "$ENGINE_RUN-db" ...
#   engine_end               in its EXIT trap: removes what bears the label, and ends the private engine

ENGINE_ROOT_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
ENGINE_DIR=${CARGO_TARGET_DIR:-$ENGINE_ROOT_DIR/target}/engine
ENGINE_MIRROR=${PGWEIR_DEBIAN_MIRROR:-http://deb.debian.org/debian}
ENGINE_SUITE=trixie
# Tried in this order. The second is ours, so that nobody finds a foreign image under a well-known name in his engine.
ENGINE_BASES=("debian:$ENGINE_SUITE-slim" "pgweir-test/debian:$ENGINE_SUITE-slim")
ENGINE_START_SECONDS_MAX=60
ENGINE_STOP_SECONDS_MAX=60
ENGINE_PULL_SECONDS_MAX=180
# Names and the label of everything that one run of one script makes.
ENGINE_RUN=pgweir-test-$$
ENGINE_LABEL=pgweir.test=$ENGINE_RUN
# Set by engine_begin: the base image; the private engine's pid and the folder of its socket, or empty.
ENGINE_BASE='' ENGINE_PID='' ENGINE_RUN_DIR=''

engine_say() { printf 'engine: %s\n' "$*"; }

# engine_begin: makes `docker` reach an engine, and $ENGINE_BASE be an image in it. Returns 1 when there is no engine and none may
# be started (a reason to skip), 2 when one should have started and did not (a failure); in both cases it has said why.
engine_begin() {
  if engine_answers; then
    engine_say "using the one that is there ($(docker version --format 'Docker {{.Server.Version}}'))"
  elif [[ ${PGWEIR_ENGINE:-} == private ]]; then
    engine_may_start || return 1
    engine_start || return 2
  else
    engine_say "no container engine answers; start one, or set PGWEIR_ENGINE=private to have Debian's docker.io installed and run"
    return 1
  fi
  engine_base || return 2
}

engine_answers() { command -v docker >/dev/null && timeout 20 docker version >/dev/null 2>&1; }

# Starting an engine takes root, and a machine that lets root make namespaces.
engine_may_start() {
  if ((EUID != 0)); then engine_say "a private engine needs root"; return 1; fi
  if ! unshare --mount --net --pid --fork true 2>/dev/null; then
    engine_say "a private engine can't run here: this machine does not let root make namespaces"
    return 1
  fi
  if ! command -v apt-get >/dev/null; then engine_say "a private engine comes from Debian, and there is no apt-get here"; return 1; fi
}

# The socket has a short path, because the path of a socket may have only 107 bytes.
engine_start() {
  "$ENGINE_ROOT_DIR/tests/needs.sh" engine || return
  mkdir -p "$ENGINE_DIR"
  ENGINE_RUN_DIR=$(mktemp -d /tmp/pgweir-engine.XXXXXX)
  export DOCKER_HOST=unix://$ENGINE_RUN_DIR/docker.sock
  setsid dockerd --data-root "$ENGINE_DIR/data" --exec-root "$ENGINE_RUN_DIR/exec" --pidfile "$ENGINE_RUN_DIR/dockerd.pid" \
    --host "$DOCKER_HOST" --mtu "$(engine_mtu)" >"$ENGINE_DIR/dockerd.log" 2>&1 </dev/null &
  ENGINE_PID=$!
  disown "$ENGINE_PID"
  local deadline=$((SECONDS + ENGINE_START_SECONDS_MAX))
  until engine_answers; do
    if ((SECONDS >= deadline)) || ! kill -0 "$ENGINE_PID" 2>/dev/null; then
      tail -n 20 "$ENGINE_DIR/dockerd.log" >&2
      engine_say "the private engine did not start"
      engine_stop
      return 1
    fi
    sleep 0.2
  done
  engine_say "private Docker $(docker version --format '{{.Server.Version}}'), data in $ENGINE_DIR/data"
}

# Packets of containers must fit where the machine's own do.
engine_mtu() {
  local device
  device=$(ip -o route show default 2>/dev/null | sed -nE 's/.* dev ([^ ]+).*/\1/p' | head -n 1)
  awk '{ print $1 < 1500 ? $1 : 1500 }' "/sys/class/net/${device:-lo}/mtu"
}

# engine_base: finds the base image, or makes it.
engine_base() {
  for ENGINE_BASE in "${ENGINE_BASES[@]}"; do
    if docker image inspect "$ENGINE_BASE" >/dev/null 2>&1; then return; fi
  done
  # Here the last of the names is left, which is ours.
  if ((EUID == 0)) && command -v mmdebstrap >/dev/null; then
    engine_say "making the base image $ENGINE_BASE with mmdebstrap"
    engine_debootstrap && return
  else
    ENGINE_BASE=${ENGINE_BASES[0]}
    engine_say "pulling $ENGINE_BASE"
    timeout "$ENGINE_PULL_SECONDS_MAX" docker pull --quiet "$ENGINE_BASE" && return
  fi
  engine_say "there is no base image: have ${ENGINE_BASES[0]} in the engine, or install mmdebstrap and be root"
  return 1
}

# What the published slim image leaves out is left out here too.
engine_debootstrap() {
  local log=$ENGINE_DIR/mmdebstrap.log
  mkdir -p "$ENGINE_DIR"
  (
    set -o pipefail
    mmdebstrap --variant=apt --mode=root --dpkgopt=force-unsafe-io \
      --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
      --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
      "$ENGINE_SUITE" - "$ENGINE_MIRROR" 2>"$log" | docker import - "$ENGINE_BASE" >/dev/null
  ) || { tail -n 20 "$log" >&2; return 1; }
}

# engine_plugins PLUGIN...: the plugins of the command `docker` that are missing (buildx, compose) come from Debian's packages,
# unpacked under target/engine; nothing is installed.
engine_plugins() {
  local plugin missing=()
  for plugin in "$@"; do docker "$plugin" version >/dev/null 2>&1 || missing+=("$plugin"); done
  if ((${#missing[@]} == 0)); then return; fi
  # An engine that a context of the user's own settings names must stay the same one under settings of ours.
  if [[ -z ${DOCKER_HOST:-} ]]; then
    DOCKER_HOST=$(docker context inspect --format '{{.Endpoints.docker.Host}}') && export DOCKER_HOST
  fi
  export DOCKER_CONFIG=$ENGINE_DIR/config
  mkdir -p "$DOCKER_CONFIG/cli-plugins"
  for plugin in "${missing[@]}"; do
    docker "$plugin" version >/dev/null 2>&1 || engine_fetch_plugin "$plugin" || return
  done
}

engine_fetch_plugin() {
  local folder=$ENGINE_DIR/packages package=docker-$1
  command -v apt-get >/dev/null || { engine_say "docker $1 is missing, and there is no apt-get to fetch it with"; return 1; }
  engine_say "fetching $package from Debian $ENGINE_SUITE into $ENGINE_DIR"
  mkdir -p "$folder/lists/partial" "$folder/archives/partial"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $ENGINE_MIRROR $ENGINE_SUITE main" >"$folder/sources.list"
  local options=(-qq -o "Dir::Etc::SourceList=$folder/sources.list" -o Dir::Etc::SourceParts=/dev/null -o "Dir::State::Lists=$folder/lists"
    -o "Dir::Cache=$folder" -o Dir::Etc::PreferencesParts=/dev/null -o APT::Sandbox::User=root)
  (cd "$folder" && apt-get "${options[@]}" update && apt-get "${options[@]}" download "$package") || return
  dpkg -x "$folder/$package"_*.deb "$folder/tree" || return
  cp "$folder/tree/usr/libexec/docker/cli-plugins/$package" "$DOCKER_CONFIG/cli-plugins/" || return
  docker "$1" version >/dev/null 2>&1 || { engine_say "docker $1 does not run"; return 1; }
}

# engine_clean: removes what bears this run's label.
engine_clean() {
  engine_remove 'ps -aq' 'rm -f -v'
  engine_remove 'network ls -q' 'network rm'
  engine_remove 'volume ls -q' 'volume rm -f'
  engine_remove 'image ls -q' 'image rm -f'
}

# engine_remove LIST REMOVE: the two commands' words.
engine_remove() {
  local list remove found
  read -ra list <<<"$1"
  read -ra remove <<<"$2"
  mapfile -t found < <(docker "${list[@]}" --filter "label=$ENGINE_LABEL" 2>/dev/null | sort -u)
  if ((${#found[@]} > 0)); then docker "${remove[@]}" "${found[@]}" >/dev/null 2>&1; fi
}

# engine_end: leaves the engine as it was found. Safe to call at any time.
engine_end() {
  if engine_answers; then engine_clean; fi
  engine_stop
}

engine_stop() {
  if [[ -z $ENGINE_PID ]]; then return; fi
  local deadline=$((SECONDS + ENGINE_STOP_SECONDS_MAX))
  kill -TERM "$ENGINE_PID" 2>/dev/null
  while kill -0 "$ENGINE_PID" 2>/dev/null; do
    if ((SECONDS >= deadline)); then
      kill -KILL "$ENGINE_PID" "$(cat "$ENGINE_RUN_DIR/exec/containerd/containerd.pid" 2>/dev/null)" 2>/dev/null
      break
    fi
    sleep 0.2
  done
  ENGINE_PID=''
  # Only after a kill is anything still mounted there.
  findmnt -rno TARGET | grep "^$ENGINE_RUN_DIR/" | sort -r | xargs -r umount -l || true
  rm -rf "$ENGINE_RUN_DIR"
}
