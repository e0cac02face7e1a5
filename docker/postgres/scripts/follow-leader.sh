#!/usr/bin/env bash
# Keeps the pooler on Patroni's leader, until the pooler does that itself. Asks the members' REST interface who leads, writes the two
# database entries (app: the leader; app_ro: the replicas that stream), and tells the pooler: RELOAD, by which it closes connections
# to a host that is no longer named as soon as they are free. While nobody leads nothing is changed: clients wait in the pooler.
#
# From the environment: MEMBER_ADDRESSES (comma-separated), LEADER_FILE, POOLER_HOST, POOLER_PORT, FOLLOW_SECONDS.
# usage: follow-leader [--once]
set -euo pipefail
LIB=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
# shellcheck source=utils.sh
. "$LIB/utils.sh"

MEMBER_ADDRESSES=${MEMBER_ADDRESSES:?the addresses of the members}
LEADER_FILE=${LEADER_FILE:-/leader/databases.ini}
POOLER_HOST=${POOLER_HOST:-pgweir-ha}
POOLER_PORT=${POOLER_PORT:-6432}
FOLLOW_SECONDS=${FOLLOW_SECONDS:-1}
CA_FILE=${CA_FILE:-$SECRETS_DIR/ca.crt}
told=

# One member's view of the cluster. A member that answers may be cut off and know only the past: its own state must be running and
# the leader must say of itself that it leads.
cluster() {
  local member
  for member in ${MEMBER_ADDRESSES//,/ }; do
    curl --silent --fail --max-time 2 "http://$member:8008/cluster" && return
  done
  return 1
}

leads() { curl --silent --fail --max-time 2 --output /dev/null "http://$1:8008/primary"; }

leader_of() { jq --raw-output '[.members[] | select(.role == "leader" and .state == "running")][0].host // empty'; }
replicas_of() {
  jq --raw-output '[.members[] | select((.role == "replica" or .role == "sync_standby" or .role == "quorum_standby") and .state == "streaming") | .host] | sort | join(",")'
}

# entries LEADER REPLICAS: without replicas reads go to the leader.
entries() {
  printf 'app = host=%s port=5432 pool_size=20\n' "$1"
  printf 'app_ro = host=%s port=5432 dbname=app pool_size=20 load_balance_hosts=round-robin\n' "${2:-$1}"
}

# The file is replaced in one step: a reload never reads half of it.
write_entries() {
  printf '%s\n' "$1" >"$LEADER_FILE.new"
  mv "$LEADER_FILE.new" "$LEADER_FILE"
}

tell_pooler() {
  PGPASSWORD=$(secret pgweir_admin_password) PGCONNECT_TIMEOUT=3 psql --no-psqlrc --quiet --no-align --tuples-only \
    --dbname="host=$POOLER_HOST port=$POOLER_PORT user=pgweir_admin dbname=pgbouncer sslmode=verify-full sslrootcert=$CA_FILE" \
    --command=RELOAD >/dev/null
}

follow() {
  local view leader wanted
  view=$(cluster) || { log "no member answers"; return; }
  leader=$(leader_of <<<"$view")
  if [[ -z $leader ]] || ! leads "$leader"; then return; fi
  wanted=$(entries "$leader" "$(replicas_of <<<"$view")")
  if [[ ! -e $LEADER_FILE || $(<"$LEADER_FILE") != "$wanted" ]]; then
    log "leader $leader, replicas $(replicas_of <<<"$view")"
    write_entries "$wanted"
    told=
  fi
  if [[ $told != "$wanted" ]] && tell_pooler; then told=$wanted; fi
}

main() {
  follow
  if [[ ${1:-} == --once ]]; then return; fi
  while :; do
    sleep "$FOLLOW_SECONDS" & wait $!
    follow
  done
}

trap 'exit 0' INT TERM
main "$@"
