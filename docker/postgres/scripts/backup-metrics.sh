# shellcheck shell=bash
# What monitoring learns of backups: files for node_exporter's textfile collector, each replaced in one step.

METRICS_DIR=${METRICS_DIR:-/var/lib/backup-metrics}

# last_value METRIC FILE: the value that stands there, or 0.
last_value() {
  local value=
  if [[ -e $METRICS_DIR/$2 ]]; then value=$(sed -nE "s/^$1(\{[^}]*\})? //p" "$METRICS_DIR/$2"); fi
  printf '%s' "${value:-0}"
}

# record NAME STARTED SUCCESS: a failure keeps the time and the duration of the last success.
record() {
  local name=$1 started=$2 success=$3 now when took labels="{engine=\"$BACKUP_ENGINE\"}"
  now=$(date +%s)
  when=$(last_value "${name}_last_success_timestamp_seconds" "$name.prom")
  took=$(last_value "${name}_last_duration_seconds" "$name.prom")
  if [[ $success == 1 ]]; then when=$now took=$((now - started)); fi
  {
    # Without a success there is no time of it.
    if [[ $when != 0 ]]; then
      printf '# HELP %s_last_success_timestamp_seconds When it last succeeded.\n# TYPE %s_last_success_timestamp_seconds gauge\n' "$name" "$name"
      printf '%s_last_success_timestamp_seconds%s %s\n' "$name" "$labels" "$when"
      printf '# HELP %s_last_duration_seconds How long that took.\n# TYPE %s_last_duration_seconds gauge\n' "$name" "$name"
      printf '%s_last_duration_seconds%s %s\n' "$name" "$labels" "$took"
    fi
    printf '# HELP %s_last_result Whether the last attempt succeeded.\n# TYPE %s_last_result gauge\n' "$name" "$name"
    printf '%s_last_result%s %s\n' "$name" "$labels" "$success"
  } >"$METRICS_DIR/$name.prom.new"
  chmod 0644 "$METRICS_DIR/$name.prom.new"
  mv "$METRICS_DIR/$name.prom.new" "$METRICS_DIR/$name.prom"
}

record_backup() {
  record backup "$2" "$3"
  if [[ $3 == 1 ]]; then date +%s >"$METRICS_DIR/last_$1"; fi
}
