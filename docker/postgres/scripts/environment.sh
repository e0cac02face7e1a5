# shellcheck shell=bash
# What the environment may say, with its defaults, and whether it makes sense. Sourced; needs utils.sh.

set_defaults() {
  PG_ROLE=${PG_ROLE:-primary}
  PG_DATABASE=${PG_DATABASE:-app}
  PG_APP_USER=${PG_APP_USER:-app}
  PG_PROFILE=${PG_PROFILE:-}
  PG_PROFILES_DIR=${PG_PROFILES_DIR:-/etc/pgweir-postgres/profiles}
  PG_SETTINGS=${PG_SETTINGS:-}
  PG_SYNCHRONOUS_STANDBY_NAMES=${PG_SYNCHRONOUS_STANDBY_NAMES:-}
  PG_UPSTREAM_HOST=${PG_UPSTREAM_HOST:-}
  PG_UPSTREAM_PORT=${PG_UPSTREAM_PORT:-5432}
  PG_SLOT=${PG_SLOT:-}
  PG_EXAMPLES=${PG_EXAMPLES:-1}
  PG_MAINTENANCE=${PG_MAINTENANCE:-0}
  BACKUP_ENGINE=${BACKUP_ENGINE:-none}
}

# Every mistake is named before giving up.
validate_environment() {
  local mistakes=()
  one_of "$PG_ROLE" primary replica patroni || mistakes+=("PG_ROLE=$PG_ROLE: must be primary, replica or patroni")
  is_identifier "$PG_DATABASE" || mistakes+=("PG_DATABASE=$PG_DATABASE: must be a lower-case name")
  is_identifier "$PG_APP_USER" || mistakes+=("PG_APP_USER=$PG_APP_USER: must be a lower-case name")
  if one_of "$PG_APP_USER" postgres replicator monitor pgweir_auth rewind readonly readwrite admin; then
    mistakes+=("PG_APP_USER=$PG_APP_USER: this role has another task")
  fi
  if [[ -n $PG_PROFILE ]]; then
    if ! is_identifier "$PG_PROFILE"; then
      mistakes+=("PG_PROFILE=$PG_PROFILE: must be a lower-case name")
    elif [[ ! -r $PG_PROFILES_DIR/$PG_PROFILE.conf ]]; then
      mistakes+=("PG_PROFILE=$PG_PROFILE: no $PG_PROFILES_DIR/$PG_PROFILE.conf")
    fi
  fi
  is_flag "$PG_EXAMPLES" || mistakes+=("PG_EXAMPLES=$PG_EXAMPLES: must be 0 or 1")
  is_flag "$PG_MAINTENANCE" || mistakes+=("PG_MAINTENANCE=$PG_MAINTENANCE: must be 0 or 1")
  one_of "$BACKUP_ENGINE" none walg pgbackrest || mistakes+=("BACKUP_ENGINE=$BACKUP_ENGINE: must be none, walg or pgbackrest")
  is_port "$PG_UPSTREAM_PORT" || mistakes+=("PG_UPSTREAM_PORT=$PG_UPSTREAM_PORT: must be a port")
  if [[ $PG_ROLE == replica ]]; then
    is_host "$PG_UPSTREAM_HOST" || mistakes+=("PG_UPSTREAM_HOST=$PG_UPSTREAM_HOST: a replica needs the host that it follows")
    is_identifier "$PG_SLOT" || mistakes+=("PG_SLOT=$PG_SLOT: a replica needs the name of its slot")
  fi
  local setting
  while read -r setting; do
    is_setting "$setting" || mistakes+=("PG_SETTINGS: '$setting' is not name=value")
  done < <(each_setting)

  local mistake
  for mistake in "${mistakes[@]}"; do log "error: $mistake"; done
  ((${#mistakes[@]} == 0))
}

# The settings in PG_SETTINGS, one a line; they are separated by semicolons or newlines.
each_setting() {
  local line
  while IFS= read -r line; do
    line=${line#"${line%%[![:space:]]*}"}
    line=${line%"${line##*[![:space:]]}"}
    if [[ -n $line ]]; then printf '%s\n' "$line"; fi
  done < <(printf '%s\n' "${PG_SETTINGS//;/$'\n'}")
}

# The passwords that this role needs.
validate_secrets() {
  local name names=(postgres_password replicator_password)
  if [[ $PG_ROLE != replica ]]; then names+=(app_password monitor_password pgweir_auth_password); fi
  if [[ $PG_ROLE == patroni ]]; then names+=(rewind_password); fi
  for name in "${names[@]}"; do check_password "$name"; done
  for name in server.crt server.key ca.crt; do
    has_secret "$name" || die "secret $name: no readable file $SECRETS_DIR/$name"
  done
}
