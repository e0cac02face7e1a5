#!/usr/bin/env bash
# Hands over to Patroni. Its file is written at every start, in memory, because it holds passwords. Members and etcd are known by
# address: a name that cannot be looked up must not keep a leader from learning that it is none.
set -euo pipefail
umask 0077
LIB=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
# shellcheck source=utils.sh
. "$LIB/utils.sh"
# shellcheck source=environment.sh
. "$LIB/environment.sh"
# shellcheck source=runtime.sh
. "$LIB/runtime.sh"

PATRONI_FILE=$RUN_DIR/patroni.yml

is_address() { [[ $1 =~ ^([0-9]{1,3}\.){3}[0-9]{1,3}$ ]]; }

validate_patroni() {
  local member
  is_identifier "${MEMBER_NAME:-}" || die "MEMBER_NAME=${MEMBER_NAME:-}: must be a lower-case name"
  is_address "${MEMBER_ADDRESS:-}" || die "MEMBER_ADDRESS=${MEMBER_ADDRESS:-}: must be an IPv4 address"
  for member in ${ETCD_ADDRESSES//,/ }; do
    is_address "$member" || die "ETCD_ADDRESSES: $member is no IPv4 address"
  done
  [[ -n ${ETCD_ADDRESSES:-} ]] || die "ETCD_ADDRESSES: must name the members of etcd"
  is_flag "${HA_SYNCHRONOUS:=1}" || die "HA_SYNCHRONOUS=$HA_SYNCHRONOUS: must be 0 or 1"
}

# yaml_list SUFFIX: the members of etcd, as a list in brackets.
etcd_hosts() {
  local member list=()
  for member in ${ETCD_ADDRESSES//,/ }; do list+=("\"$member:2379\""); done
  (IFS=,; printf '[%s]' "${list[*]}")
}

# A device that resets the machine when Patroni hangs; used where there is one.
watchdog_mode() {
  if [[ -w /dev/watchdog ]]; then printf 'automatic'; else printf 'off'; fi
}

yaml_flag() { if [[ $1 == 1 ]]; then printf 'true'; else printf 'false'; fi; }

render_patroni() {
  cat <<YAML
scope: ${PATRONI_SCOPE:-pgweir}
name: $MEMBER_NAME
log: {level: INFO}
restapi:
  listen: 0.0.0.0:8008
  connect_address: $MEMBER_ADDRESS:8008
  authentication: {username: patroni, password: "$(secret patroni_password)"}
etcd3:
  hosts: $(etcd_hosts)
bootstrap:
  dcs:
    ttl: 20
    loop_wait: 5
    retry_timeout: 5
    maximum_lag_on_failover: 1048576
    # A commit is acknowledged when a second member has it: no failover loses an acknowledged row.
    synchronous_mode: $(yaml_flag "$HA_SYNCHRONOUS")
    # The leader's PostgreSQL died: a replica takes over rather than waiting for crash recovery.
    primary_start_timeout: 0
    postgresql:
      use_pg_rewind: true
      use_slots: true
      remove_data_directory_on_rewind_failure: true
      parameters:
        wal_level: logical
        wal_log_hints: "on"
        hot_standby: "on"
        max_connections: 100
        max_wal_senders: 10
        max_replication_slots: 10
        max_worker_processes: 8
  initdb:
    - data-checksums
    - encoding: UTF8
    - locale-provider: builtin
    - builtin-locale: C.UTF-8
    - locale: C.UTF-8
    - auth: scram-sha-256
  post_bootstrap: $LIB/post-bootstrap.sh
postgresql:
  listen: 0.0.0.0:5432
  connect_address: $MEMBER_ADDRESS:5432
  data_dir: $PGDATA
  bin_dir: /usr/lib/postgresql/$PG_VERSION/bin
  custom_conf: $RUN_DIR/custom.conf
  pgpass: $RUN_DIR/.pgpass-patroni
  basebackup: {checkpoint: fast}
  use_unix_socket: true
  use_unix_socket_repl: false
  parameters:
    unix_socket_directories: $RUN_DIR
    hba_file: /etc/pgweir-postgres/pg_hba.conf
  authentication:
    superuser: {username: postgres, password: "$(secret postgres_password)"}
    replication: {username: replicator, password: "$(secret replicator_password)", sslmode: verify-full, sslrootcert: $RUN_DIR/tls/ca.crt}
    rewind: {username: rewind, password: "$(secret rewind_password)", sslmode: verify-full, sslrootcert: $RUN_DIR/tls/ca.crt}
watchdog:
  mode: $(watchdog_mode)
  device: /dev/watchdog
  safety_margin: 5
tags: {nofailover: false, noloadbalance: false, clonefrom: false}
YAML
}

main() {
  set_defaults
  validate_patroni
  render_config >"$RUN_DIR/custom.conf"
  render_patroni >"$PATRONI_FILE.new"
  mv "$PATRONI_FILE.new" "$PATRONI_FILE"
  patroni --validate-config --ignore-listen-port "$PATRONI_FILE" || die "Patroni does not accept its configuration"
  exec patroni "$PATRONI_FILE"
}

main "$@"
