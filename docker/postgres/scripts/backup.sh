#!/usr/bin/env bash
# Backups of the cluster in an S3 bucket, by WAL-G or pgBackRest (BACKUP_ENGINE).
#
# usage: backup push [full|differential]    a backup now
#        backup list                        what there is
#        backup verify                      backups and WAL in the bucket are whole
#        backup wal-push PATH               archive_command
#        backup wal-fetch NAME PATH         restore_command
#        backup restore [--replace]         the newest backup and all WAL, into PGDATA
#        backup pitr TIME [--replace]       the same, up to TIME (as '2026-01-31 12:00:00+00')
#        backup prune                       lets go of what is older than is to be kept
#        backup test-restore                restores into a scratch server and compares; writes metrics
#        backup schedule                    push, prune and test-restore when they are due, for ever
#
# restore and pitr want PostgreSQL to be down (PG_MAINTENANCE=1). With --replace the present data directory is put aside, not deleted.
set -euo pipefail
umask 0077
LIB=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
# shellcheck source=utils.sh
. "$LIB/utils.sh"
# shellcheck source=environment.sh
. "$LIB/environment.sh"
# shellcheck source=backup-pgbackrest.sh
. "$LIB/backup-pgbackrest.sh"
# shellcheck source=backup-walg.sh
. "$LIB/backup-walg.sh"
# shellcheck source=backup-metrics.sh
. "$LIB/backup-metrics.sh"
# shellcheck source=backup-restore.sh
. "$LIB/backup-restore.sh"
# shellcheck source=backup-schedule.sh
. "$LIB/backup-schedule.sh"

usage() { sed -n 's/^# \?\(usage: \|       backup\)/\1/p' "${BASH_SOURCE[0]}" >&2; exit 2; }

validate_backup() {
  one_of "$BACKUP_ENGINE" walg pgbackrest || die "BACKUP_ENGINE=$BACKUP_ENGINE: set it to walg or pgbackrest"
  [[ ${BACKUP_S3_ENDPOINT:-} =~ ^https?://[^/]+$ ]] || die "BACKUP_S3_ENDPOINT=${BACKUP_S3_ENDPOINT:-}: must be http(s)://host[:port]"
  [[ -n ${BACKUP_S3_BUCKET:-} ]] || die "BACKUP_S3_BUCKET: must name the bucket"
  local name
  for name in BACKUP_KEEP_FULL BACKUP_KEEP_DIFFERENTIAL BACKUP_KEEP_DAYS; do
    if ! is_integer "${!name}" || ((${!name} < 1)); then die "$name=${!name}: must be a number, at least 1"; fi
  done
}

set_backup_defaults() {
  BACKUP_S3_REGION=${BACKUP_S3_REGION:-us-east-1}
  BACKUP_S3_PREFIX=${BACKUP_S3_PREFIX:-pgweir}
  BACKUP_S3_CA_FILE=${BACKUP_S3_CA_FILE:-}
  BACKUP_KEEP_FULL=${BACKUP_KEEP_FULL:-2}
  BACKUP_KEEP_DIFFERENTIAL=${BACKUP_KEEP_DIFFERENTIAL:-6}
  BACKUP_KEEP_DAYS=${BACKUP_KEEP_DAYS:-7}
}

push() {
  local kind=${1:-full} started
  one_of "$kind" full differential || usage
  started=$(date +%s)
  if "${BACKUP_ENGINE}_push" "$kind"; then
    record_backup "$kind" "$started" 1
  else
    record_backup "$kind" "$started" 0
    die "the $kind backup failed"
  fi
}

main() {
  local command=${1:-}
  if (($# > 0)); then shift; fi
  set_defaults
  set_backup_defaults
  case $command in
    push | list | verify | wal-push | wal-fetch | restore | pitr | prune | test-restore | schedule) ;;
    *) usage ;;
  esac
  validate_backup
  "${BACKUP_ENGINE}_environment"
  case $command in
    push) push "$@" ;;
    list | verify | prune) "${BACKUP_ENGINE}_$command" ;;
    wal-push) "${BACKUP_ENGINE}_wal_push" "${1:?PATH}" ;;
    wal-fetch) "${BACKUP_ENGINE}_wal_fetch" "${1:?NAME}" "${2:?PATH}" ;;
    restore) restore_in_place latest '' "${1:-}" ;;
    pitr) restore_in_place time "${1:?TIME}" "${2:-}" ;;
    test-restore) test_restore ;;
    schedule) schedule ;;
  esac
}

main "$@"
