# shellcheck shell=bash
# A light scheduler: looks every minute at what is due. A failure is tried again after ten minutes; monitoring sees the age.

SCHEDULE_SECONDS=${SCHEDULE_SECONDS:-60}
RETRY_SECONDS=${RETRY_SECONDS:-600}

# is_due STAMP HOURS: whether the time in this file is so long ago, or there is none.
is_due() {
  local last=0
  if [[ -e $METRICS_DIR/$1 ]]; then last=$(<"$METRICS_DIR/$1"); fi
  (($(date +%s) - last >= $2 * 3600))
}

# attempt STAMP COMMAND...: not sooner than RETRY_SECONDS after the last try.
attempt() {
  local stamp=$1 now tried
  shift
  now=$(date +%s)
  tried=${tries[$stamp]:-0}
  if ((now - tried < RETRY_SECONDS)); then return; fi
  tries[$stamp]=$now
  log "due: backup $*"
  # A process of its own: what dies in it ends nothing else.
  if "${BASH_SOURCE[-1]}" "$@"; then date +%s >"$METRICS_DIR/$stamp"; tries[$stamp]=0; else log "failed: backup $*"; fi
}

tick() {
  record_certificate
  if is_due last_full "${BACKUP_FULL_HOURS:-168}"; then
    attempt last_full push full
    attempt last_prune prune
  elif is_due last_differential "${BACKUP_DIFFERENTIAL_HOURS:-24}" && is_due last_full "${BACKUP_DIFFERENTIAL_HOURS:-24}"; then
    attempt last_differential push differential
    attempt last_prune prune
  fi
  if [[ -e $METRICS_DIR/last_full ]] && is_due last_test "${RESTORE_TEST_HOURS:-24}"; then attempt last_test test-restore; fi
}

schedule() {
  declare -gA tries=()
  trap 'exit 0' INT TERM
  "$LIB/backup-serve.py" &
  log "scheduler: full every ${BACKUP_FULL_HOURS:-168} h, differential every ${BACKUP_DIFFERENTIAL_HOURS:-24} h, restore test every ${RESTORE_TEST_HOURS:-24} h"
  while :; do
    tick
    sleep "$SCHEDULE_SECONDS" & wait $!
  done
}
