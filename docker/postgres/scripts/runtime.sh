# shellcheck shell=bash
# What is prepared at every start, outside the data directory where that can be: TLS files, passwords for our own connections,
# postgresql.conf. Sourced; needs utils.sh and environment.sh.

RUN_DIR=${RUN_DIR:-/run/postgresql}

# PostgreSQL wants its key to be its own and private; a mounted secret is neither.
install_tls() {
  local file
  mkdir -p "$RUN_DIR/tls"
  for file in server.crt server.key ca.crt; do
    install -m 0600 "$SECRETS_DIR/$file" "$RUN_DIR/tls/$file"
  done
}

# For psql, pg_basebackup and walreceivers inside this container.
write_pgpass() {
  local user file=$RUN_DIR/.pgpass
  : >"$file.new"
  chmod 0600 "$file.new"
  for user in postgres replicator; do
    printf '*:*:*:%s:%s\n' "$user" "$(pgpass_field "$(secret "${user}_password")")" >>"$file.new"
  done
  mv "$file.new" "$file"
}

# How a replica reaches the server that it follows.
upstream_conninfo() {
  printf 'host=%s port=%s user=replicator application_name=%s sslmode=verify-full sslrootcert=%s passfile=%s connect_timeout=5 keepalives_idle=10' \
    "$PG_UPSTREAM_HOST" "$PG_UPSTREAM_PORT" "$PG_SLOT" "$RUN_DIR/tls/ca.crt" "$RUN_DIR/.pgpass"
}

backup_settings() {
  if [[ $BACKUP_ENGINE == none ]]; then
    printf 'archive_mode = off\n'
    return
  fi
  # A segment is archived after a minute even when little is written: the most that a lost disk can cost.
  # The engine is named because pgBackRest looks for its name in the command.
  printf "archive_mode = on\narchive_command = 'BACKUP_ENGINE=%s backup wal-push %%p'\narchive_timeout = '60s'\n" "$BACKUP_ENGINE"
}

# postgresql.conf, to standard output.
render_config() {
  local setting
  printf "# Written at every start; use ALTER SYSTEM, a profile or PG_SETTINGS.\n"
  printf "include '/etc/pgweir-postgres/postgresql.conf'\n"
  if [[ -n $PG_PROFILE ]]; then printf "include '%s/%s.conf'\n" "$PG_PROFILES_DIR" "$PG_PROFILE"; fi
  # After the profile, which knows of one library only.
  printf "shared_preload_libraries = 'pg_stat_statements,pg_partman_bgw'\n"
  printf 'pg_partman_bgw.dbname = %s\n' "$(conf_literal "$PG_DATABASE")"
  if [[ $PG_ROLE != patroni ]]; then
    printf 'synchronous_standby_names = %s\n' "$(conf_literal "$PG_SYNCHRONOUS_STANDBY_NAMES")"
  fi
  backup_settings
  if [[ $PG_ROLE == replica ]]; then
    printf 'primary_conninfo = %s\n' "$(conf_literal "$(upstream_conninfo)")"
    printf 'primary_slot_name = %s\n' "$(conf_literal "$PG_SLOT")"
  fi
  while IFS= read -r setting; do
    printf '%s = %s\n' "${setting%%=*}" "$(conf_literal "${setting#*=}")"
  done < <(each_setting)
}

write_config() {
  render_config >"$PGDATA/postgresql.conf.new"
  mv "$PGDATA/postgresql.conf.new" "$PGDATA/postgresql.conf"
}

# A container that stays up without PostgreSQL: for restores and repairs.
maintenance() {
  log "maintenance mode: PostgreSQL is not started"
  touch "$RUN_DIR/maintenance"
  trap 'exit 0' INT TERM
  while :; do sleep 3600 & wait $!; done
}
