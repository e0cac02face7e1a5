#!/usr/bin/env bats
# The shell scripts of the images, without an engine: what is accepted, what is refused, what is written.

setup() {
  ROOT=$(cd "$BATS_TEST_DIRNAME/../.." && pwd)
  LIB=$ROOT/docker/postgres/scripts
  SECRETS_DIR=$BATS_TEST_TMPDIR/secrets
  RUN_DIR=$BATS_TEST_TMPDIR/run
  METRICS_DIR=$BATS_TEST_TMPDIR/metrics
  export SECRETS_DIR RUN_DIR METRICS_DIR
  mkdir -p "$SECRETS_DIR" "$RUN_DIR" "$METRICS_DIR"
  local file
  for file in utils environment runtime init backup-pgbackrest backup-walg backup-metrics backup-schedule; do . "$LIB/$file.sh"; done
}

refuses() { # refuses TEXT: the environment as it is now, with this complaint
  set_defaults
  run validate_environment
  [ "$status" -ne 0 ]
  [[ "$output" == *"$1"* ]]
}

@test "the defaults are accepted" {
  set_defaults
  run validate_environment
  [ "$status" -eq 0 ]
  [ -z "$output" ]
}

@test "every mistake in the environment is named" {
  PG_ROLE=boss PG_DATABASE='a;b' PG_MAINTENANCE=yes BACKUP_ENGINE=tar
  refuses 'PG_ROLE=boss'
  [[ "$output" == *'PG_DATABASE=a;b'* && "$output" == *'PG_MAINTENANCE=yes'* && "$output" == *'BACKUP_ENGINE=tar'* ]]
}

@test "the application's user may not be one of ours" {
  PG_APP_USER=replicator
  refuses 'has another task'
}

@test "a replica needs a host and a slot" {
  PG_ROLE=replica
  refuses 'PG_UPSTREAM_HOST'
  [[ "$output" == *'PG_SLOT'* ]]
}

@test "a host that would add to the connection string is refused" {
  PG_ROLE=replica PG_SLOT=one PG_UPSTREAM_HOST='primary sslmode=disable'
  refuses 'PG_UPSTREAM_HOST'
}

@test "ports" {
  is_port 5432
  is_port 65535
  if is_port 0; then return 1; fi
  if is_port 65536; then return 1; fi
  if is_port 123456; then return 1; fi
  if is_port x; then return 1; fi
}

@test "a profile must be there" {
  PG_PROFILE=small PG_PROFILES_DIR=$BATS_TEST_TMPDIR
  refuses 'no '
  touch "$BATS_TEST_TMPDIR/small.conf"
  set_defaults
  run validate_environment
  [ "$status" -eq 0 ]
}

@test "a profile's name is no path" {
  PG_PROFILE=../../etc/passwd
  refuses 'PG_PROFILE'
}

@test "settings are separated by semicolons or newlines" {
  PG_SETTINGS=$' work_mem = 8MB;shared_buffers=1GB\n\nmax_connections=50 '
  PG_SETTINGS=${PG_SETTINGS// = /=}
  run each_setting
  [ "$output" = $'work_mem=8MB\nshared_buffers=1GB\nmax_connections=50' ]
}

@test "a setting that is none is refused" {
  PG_SETTINGS='work_mem'
  refuses "'work_mem' is not name=value"
}

@test "a secret is one line" {
  printf 'abc\n' >"$SECRETS_DIR/good"
  [ "$(secret good)" = abc ]
  printf 'a\nb\n' >"$SECRETS_DIR/two"
  run secret two
  [ "$status" -ne 0 ]
  : >"$SECRETS_DIR/empty"
  run secret empty
  [ "$status" -ne 0 ]
  run secret missing
  [[ "$output" == *"$SECRETS_DIR/missing"* ]]
}

@test "short passwords and placeholders are refused" {
  echo short >"$SECRETS_DIR/one"
  run check_password one
  [[ "$status" -ne 0 && "$output" == *'shorter than 16'* && "$output" != *'error: short'* ]]
  echo ChangeMeChangeMeChangeMe >"$SECRETS_DIR/two"
  run check_password two
  [[ "$status" -ne 0 && "$output" == *placeholder* ]]
  echo 0123456789abcdef0123456789abcdef >"$SECRETS_DIR/three"
  run check_password three
  [ "$status" -eq 0 ]
}

@test "all secrets of a role are wanted" {
  set_defaults
  local name
  for name in postgres replicator app monitor; do echo 0123456789abcdef0123 >"$SECRETS_DIR/${name}_password"; done
  run validate_secrets
  [[ "$status" -ne 0 && "$output" == *pgweir_auth_password* ]]
}

@test "quotes in values are doubled, in pgpass escaped" {
  [ "$(sql_literal "it's")" = "'it''s'" ]
  [ "$(pgpass_field 'a:b\c')" = 'a\:b\\c' ]
}

@test "pgpass is private and escaped" {
  printf '%s\n' 'pass:word\0123456789' >"$SECRETS_DIR/postgres_password"
  echo 0123456789abcdef >"$SECRETS_DIR/replicator_password"
  write_pgpass
  [ "$(stat -c %a "$RUN_DIR/.pgpass")" = 600 ]
  grep -qxF '*:*:*:postgres:pass\:word\\0123456789' "$RUN_DIR/.pgpass"
}

@test "the key becomes private" {
  local file
  for file in server.crt server.key ca.crt; do
    echo "$file" >"$SECRETS_DIR/$file"
    chmod 0444 "$SECRETS_DIR/$file"
  done
  install_tls
  [ "$(stat -c %a "$RUN_DIR/tls/server.key")" = 600 ]
}

@test "a primary's configuration" {
  PG_SETTINGS="work_mem=8MB;search_path=a'b" PG_SYNCHRONOUS_STANDBY_NAMES='ANY 1 (replica1, replica2)'
  set_defaults
  run render_config
  [[ "$output" == *"include '/etc/pgweir-postgres/postgresql.conf'"* ]]
  [[ "$output" == *"synchronous_standby_names = 'ANY 1 (replica1, replica2)'"* ]]
  [[ "$output" == *"work_mem = '8MB'"* && "$output" == *"search_path = 'a''b'"* ]]
  [[ "$output" == *'archive_mode = off'* && "$output" != *primary_conninfo* ]]
}

@test "archiving is on when there is an engine for it" {
  BACKUP_ENGINE=pgbackrest
  set_defaults
  run render_config
  [[ "$output" == *"archive_command = 'BACKUP_ENGINE=pgbackrest backup wal-push %p'"* ]]
}

@test "a replica's configuration: its upstream is verified, its slot named" {
  PG_ROLE=replica PG_UPSTREAM_HOST=postgres PG_SLOT=replica1
  set_defaults
  run render_config
  [[ "$output" == *"primary_conninfo = 'host=postgres port=5432 user=replicator application_name=replica1 sslmode=verify-full"* ]]
  [[ "$output" == *"primary_slot_name = 'replica1'"* ]]
}

@test "Patroni keeps synchronous_standby_names for itself" {
  PG_ROLE=patroni
  set_defaults
  run render_config
  [[ "$output" != *synchronous_standby_names* ]]
}

@test "a data directory of another version is not started" {
  PGDATA=$BATS_TEST_TMPDIR PG_VERSION=17
  echo 16 >"$PGDATA/PG_VERSION"
  run check_version
  [[ "$status" -ne 0 && "$output" == *'PostgreSQL 16'* ]]
}

@test "until_true gives up" {
  run until_true 1 false
  [ "$status" -ne 0 ]
  until_true 1 true
}

@test "backup: what it lacks is said" {
  run "$LIB/backup.sh"
  [[ "$status" -eq 2 && "$output" == *usage:* ]]
  run "$LIB/backup.sh" push
  [[ "$status" -ne 0 && "$output" == *'BACKUP_ENGINE=none'* ]]
  BACKUP_ENGINE=walg BACKUP_S3_ENDPOINT=s3.example run "$LIB/backup.sh" push
  [[ "$status" -ne 0 && "$output" == *BACKUP_S3_ENDPOINT* ]]
  BACKUP_ENGINE=walg BACKUP_S3_ENDPOINT=https://s3.example BACKUP_S3_BUCKET=b BACKUP_KEEP_FULL=0 run "$LIB/backup.sh" push
  [[ "$status" -ne 0 && "$output" == *BACKUP_KEEP_FULL=0* ]]
  BACKUP_ENGINE=pgbackrest BACKUP_S3_ENDPOINT=http://s3.example BACKUP_S3_BUCKET=b run "$LIB/backup.sh" push
  [[ "$status" -ne 0 && "$output" == *https* ]]
}

@test "metrics: a failure keeps the time of the last success" {
  BACKUP_ENGINE=pgbackrest
  record_backup full "$(($(date +%s) - 7))" 1
  local when
  when=$(last_value backup_last_success_timestamp_seconds backup_full.values)
  [ "$when" -gt 0 ]
  [ "$(last_value backup_last_result backup_full.values)" = 1 ]
  record_backup full 0 0
  [ "$(last_value backup_last_success_timestamp_seconds backup_full.values)" = "$when" ]
  [ "$(last_value backup_last_result backup_full.values)" = 0 ]
  [ "$(last_value backup_last_duration_seconds backup_full.values)" -ge 7 ]
  [ "$(last_value backup_failures_total backup_failures.values)" = 1 ]
}

@test "metrics: before the first success there is no time of it" {
  BACKUP_ENGINE=walg
  record_restore_test 0 0
  if grep -q last_success "$METRICS_DIR/restore_test.values"; then return 1; fi
}

@test "metrics: the page is as Prometheus wants it" {
  BACKUP_ENGINE=walg
  walg_size() { echo 4711; }
  record_backup full 0 1
  record_backup differential 0 1
  record_restore_test 0 1
  "$ROOT/docker/scripts/make-secrets" "$SECRETS_DIR"
  record_certificate
  run "$LIB/backup-serve.py" --print
  [[ "$status" -eq 0 && "$output" == *'postgres_tls_certificate_expiry_timestamp_seconds{file="server.crt"} 1'* ]]
  [ "$(grep -c '^# TYPE backup_last_result' <<<"$output")" -eq 1 ]
  [ "$(grep -c '^backup_last_result{' <<<"$output")" -eq 2 ]
  [[ "$output" == *'backup_last_size_bytes{engine="walg",type="differential"} 4711'* ]]
  if command -v promtool >/dev/null; then promtool check metrics <<<"$output"; fi
  # All that the alerts and dashboards expect (docs/monitoring.md), with the same labels.
  local promised=$ROOT/tests/monitoring/backup.txt
  [ -z "$(comm -23 <(series "$(<"$promised")") <(series "$output"))" ]
}

# series TEXT: each metric with the names of its labels.
series() { sed -nE 's/^([a-z_]+\{.*\}) .*/\1/p' <<<"$1" | sed -E 's/="[^"]*"//g' | sort -u; }

@test "metrics: a backup whose size is not told is a good one" {
  BACKUP_ENGINE=pgbackrest
  pgbackrest_size() { return 1; }
  record_backup full 0 1
  [ "$(last_value backup_last_result backup_full.values)" = 1 ]
  [ ! -e "$METRICS_DIR/backup_size_full.values" ]
}

@test "pgbackrest: the size is that of the newest backup of its kind, as stored" {
  pgbackrest() {
    echo '[{"backup":[{"type":"full","info":{"repository":{"delta":1}}},{"type":"diff","info":{"repository":{"delta":2}}},
      {"type":"full","info":{"repository":{"delta":3}}}]}]'
  }
  [ "$(pgbackrest_size full)" = 3 ]
  [ "$(pgbackrest_size differential)" = 2 ]
}

@test "schedule: what is due" {
  is_due last_full 24
  date +%s >"$METRICS_DIR/last_full"
  if is_due last_full 24; then return 1; fi
  echo $(($(date +%s) - 25 * 3600)) >"$METRICS_DIR/last_full"
  is_due last_full 24
}

@test "make-secrets: what is there stays, the pooler's list follows" {
  local folder=$BATS_TEST_TMPDIR/made first
  "$ROOT/docker/scripts/make-secrets" "$folder"
  first=$(<"$folder/app_password")
  [ "${#first}" -eq 64 ]
  openssl verify -CAfile "$folder/ca.crt" "$folder/server.crt" "$folder/pgweir.crt"
  openssl x509 -in "$folder/server.crt" -noout -checkhost replica1
  [ "$(stat -c %a "$folder")" = 700 ]
  echo another-secret-of-mine >"$BATS_TEST_TMPDIR/new"
  rm -f "$folder/monitor_password"
  cp "$BATS_TEST_TMPDIR/new" "$folder/monitor_password"
  "$ROOT/docker/scripts/make-secrets" "$folder"
  [ "$(<"$folder/app_password")" = "$first" ]
  grep -qxF '"monitor" "another-secret-of-mine"' "$folder/pgweir_userlist"
}
