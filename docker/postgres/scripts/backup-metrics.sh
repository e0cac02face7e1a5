# shellcheck shell=bash
# What monitoring is told of backups: one file for each kind of job, replaced in one step; backup-serve.py serves them all.

METRICS_DIR=${METRICS_DIR:-/var/lib/backup-metrics}

# last_value METRIC FILE: the value that stands there, or 0.
last_value() {
  local value=
  if [[ -e $METRICS_DIR/$2 ]]; then value=$(sed -nE "s/^$1(\{[^}]*\})? //p" "$METRICS_DIR/$2"); fi
  printf '%s' "${value:-0}"
}

# write_values FILE: from standard input.
write_values() {
  cat >"$METRICS_DIR/$1.new"
  mv "$METRICS_DIR/$1.new" "$METRICS_DIR/$1"
}

# record NAME FILE LABELS STARTED SUCCESS: a failure keeps the time and the duration of the last success; before the first success
# there are none.
record() {
  local name=$1 file=$2 labels=$3 started=$4 success=$5 now when took
  now=$(date +%s)
  when=$(last_value "${name}_last_success_timestamp_seconds" "$file")
  took=$(last_value "${name}_last_duration_seconds" "$file")
  if [[ $success == 1 ]]; then when=$now took=$((now - started)); fi
  {
    if [[ $when != 0 ]]; then
      printf '%s_last_success_timestamp_seconds{%s} %s\n' "$name" "$labels" "$when"
      printf '%s_last_duration_seconds{%s} %s\n' "$name" "$labels" "$took"
    fi
    printf '%s_last_result{%s} %s\n' "$name" "$labels" "$success"
  } | write_values "$file"
}

# record_backup KIND STARTED SUCCESS
record_backup() {
  local failures size
  record backup "backup_$1.values" "engine=\"$BACKUP_ENGINE\",type=\"$1\"" "$2" "$3"
  failures=$(last_value backup_failures_total backup_failures.values)
  printf 'backup_failures_total{engine="%s"} %s\n' "$BACKUP_ENGINE" "$((failures + 1 - $3))" | write_values backup_failures.values
  if [[ $3 == 1 ]]; then
    date +%s >"$METRICS_DIR/last_$1"
    # Not to be told its size makes no backup a bad one.
    size=$("${BACKUP_ENGINE}_size" "$1") || size=
    if is_integer "$size"; then
      printf 'backup_last_size_bytes{engine="%s",type="%s"} %s\n' "$BACKUP_ENGINE" "$1" "$size" | write_values "backup_size_$1.values"
    fi
  fi
}

# record_restore_test STARTED SUCCESS
record_restore_test() { record backup_restore_test restore_test.values "engine=\"$BACKUP_ENGINE\"" "$1" "$2"; }

# PostgreSQL does not tell when its certificate expires.
record_certificate() {
  local until
  until=$(openssl x509 -in "$SECRETS_DIR/server.crt" -noout -enddate) || return 0
  printf 'postgres_tls_certificate_expiry_timestamp_seconds{file="server.crt"} %s\n' "$(date -d "${until#notAfter=}" +%s)" \
    | write_values certificate.values
}
