#!/usr/bin/env bash
# The stack in docker/, for real: every image is built, every profile comes up, and what it promises is tried. Uses the engine that
# runs; PGWEIR_ENGINE=private makes one where it can. Takes some 15 minutes on two cores; leaves no container, volume or network.
#
# usage: tests/stack.sh [PART...]      PART: static scripts base replicas pgpool logical ha backup monitoring (all)
# From the environment:
#   PGWEIR_STACK=skip     where no engine can be had: say so, do what needs none, and succeed
#   PGWEIR_ENGINE=private make an engine when none answers
#   PGWEIR_IMAGE          an image of the pooler to take instead of building it
#   PGWEIR_BIN            a pooler to put into the image instead of compiling it
#   S3S_FS                a binary of s3s-fs, instead of compiling it with cargo
#   WALG                  a binary of wal-g (built with libsodium); without it the backups are tried with pgBackRest alone, and that is said
# What is sourced is found beside this file, and the files are checked by themselves too.
# shellcheck source-path=SCRIPTDIR disable=SC1091
set -euo pipefail
ROOT_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
STACK_DIR=$ROOT_DIR/tests/stack
prepared=0
# Where tests/needs.sh puts the linters.
PATH=$PATH:${CARGO_TARGET_DIR:-$ROOT_DIR/target}/stack/venv/bin
PARTS=(static scripts base replicas pgpool logical ha backup monitoring)
# shellcheck source=engine.sh
. "$ROOT_DIR/tests/engine.sh"
# shellcheck source=stack/lib.sh
. "$STACK_DIR/lib.sh"
for file in static scripts images base replicas pgpool logical ha backup monitoring; do
  # shellcheck disable=SC1090
  . "$STACK_DIR/$file.sh"
done

wants_engine() {
  local name
  for name; do
    case $name in static | scripts) ;; *) return 0 ;; esac
  done
  return 1
}

# need_engine: returns 1 when there is none and it was said that this is no failure.
need_engine() {
  local status=0
  engine_begin || status=$?
  if ((status == 0)); then engine_plugins buildx compose || die "docker buildx and docker compose are needed"; return 0; fi
  if ((status == 1)) && [[ ${PGWEIR_STACK:-} == skip ]]; then
    say "SKIPPED, as PGWEIR_STACK=skip asks: without a container engine the stack was neither built nor run"
    return 1
  fi
  die "the stack needs a container engine (PGWEIR_ENGINE=private makes one, PGWEIR_STACK=skip skips this)"
}

# A folder of our own: secrets, what compose reads, what was measured.
prepare() {
  rm -rf "$WORK/secrets"
  prepared=1
  HA_SUBNET=${HA_SUBNET:-10.213.64}
  export HA_SUBNET
  "$ROOT_DIR/docker/scripts/make-secrets" "$WORK/secrets" s3 >/dev/null
  chmod u+w "$WORK/secrets"/backup_s3_*
  printf 'teststack\n' >"$WORK/secrets/backup_s3_key"
  openssl rand -hex 20 >"$WORK/secrets/backup_s3_secret"
  sed "s|\"\\.:/stack:ro\"|\"$STACK_DIR:/stack:ro\"|" "$STACK_DIR/compose.yaml" >"$WORK/compose.test.yaml"
  fresh_env
}

fresh_env() {
  cat >"$WORK/env" <<ENV
COMPOSE_PROJECT_NAME=$PROJECT
SECRETS=$WORK/secrets
BASE=${ENGINE_BASE:-debian:trixie-slim}
POSTGRES_IMAGE=$PROJECT/postgres
PGWEIR_IMAGE=${PGWEIR_IMAGE:-$PROJECT/pgweir}
PGWEIR_VERSION=${PGWEIR_VERSION:-latest}
PGWEIR_BINARY=prebuilt
PGPOOL_IMAGE=$PROJECT/pgpool
ETCD_IMAGE=$PROJECT/etcd
MONITORING_IMAGE=$PROJECT/monitoring
S3_IMAGE=$PROJECT/s3
HA_SUBNET=$HA_SUBNET
PGWEIR_PORT=0
POSTGRES_PORT=0
PGWEIR_HA_PORT=0
PGPOOL_PORT=0
PROMETHEUS_PORT=0
ALERTMANAGER_PORT=0
GRAFANA_PORT=0
ENV
  if [[ -n ${WALG:-} ]]; then echo "WALG_FROM=$PROJECT/walg" >>"$WORK/env"; fi
}

finish() {
  local status=$?
  # Whatever of the end fails, the rest of it follows.
  set +e
  trap '' INT TERM HUP
  trap - EXIT
  if ((prepared)); then down; fi
  engine_end
  exit "$status"
}

run_part() {
  part=$1
  local started=$SECONDS
  case $part in static | scripts) ;; *) fresh_env; down ;; esac
  "part_$part" || true
  case $part in static | scripts) ;; *) down ;; esac
  say "-- $part: $((SECONDS - started)) s"
}

show_measured() {
  if [[ -s $MEASURED ]]; then
    say ""
    while IFS=$'\t' read -r from name value how; do printf '%-10s %-45s %-14s %s\n' "$from" "$name" "$value" "$how"; done <"$MEASURED"
    say ""
  fi
}

main() {
  local wanted=("$@") name without_engine=0
  if (($# == 0)); then wanted=("${PARTS[@]}"); fi
  for name in "${wanted[@]}"; do one_of "$name" "${PARTS[@]}" || die "no part $name: ${PARTS[*]}"; done
  trap finish EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  mkdir -p "$WORK"
  : >"$MEASURED"
  if wants_engine "${wanted[@]}"; then
    if need_engine; then
      prepare
      part=images
      build_images "${wanted[@]}"
    else
      without_engine=1
    fi
  fi
  for name in "${wanted[@]}"; do
    if ((without_engine)) && wants_engine "$name"; then say "skip $name"; else run_part "$name"; fi
  done
  show_measured
  verdict
}

one_of() {
  local value=$1 choice
  shift
  for choice; do
    if [[ $value == "$choice" ]]; then return 0; fi
  done
  return 1
}

main "$@"
