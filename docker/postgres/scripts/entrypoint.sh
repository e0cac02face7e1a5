#!/usr/bin/env bash
# Starts PostgreSQL (or Patroni): validates, makes the cluster if there is none, hands over. Any other command is run as it is, with
# the same preparation.
#
# usage: pgweir-postgres [COMMAND [ARGUMENT...]]
set -euo pipefail
umask 0077
LIB=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
# shellcheck source=utils.sh
. "$LIB/utils.sh"
# shellcheck source=environment.sh
. "$LIB/environment.sh"
# shellcheck source=runtime.sh
. "$LIB/runtime.sh"
# shellcheck source=init.sh
. "$LIB/init.sh"

prepare() {
  set_defaults
  validate_environment || exit 1
  validate_secrets
  install_tls
  write_pgpass
}

start_postgres() {
  if ! is_initialised; then
    case $PG_ROLE in
      primary) init_primary ;;
      replica) init_replica ;;
    esac
  fi
  check_version
  # The place that a replica has is its volume's: a restart must never turn it into a second primary.
  if [[ $PG_ROLE == replica && ! -e $PGDATA/standby.signal ]]; then
    die "this volume held a primary (promoted?): remove it to have the replica copied anew, or set PG_ROLE=primary"
  fi
  write_config
  log "starting PostgreSQL $PG_VERSION as $PG_ROLE"
  exec postgres -D "$PGDATA"
}

main() {
  ((EUID != 0)) || die "not as root"
  if (($# > 0)); then
    prepare
    exec "$@"
  fi
  prepare
  rm -f "$RUN_DIR/maintenance"
  if [[ $PG_MAINTENANCE == 1 ]]; then maintenance; fi
  case $PG_ROLE in
    patroni) exec "$LIB/patroni.sh" ;;
    *) start_postgres ;;
  esac
}

main "$@"
