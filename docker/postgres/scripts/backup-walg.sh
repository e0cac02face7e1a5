# shellcheck shell=bash
# The engine WAL-G. Differential backups are its deltas.

walg_environment() {
  command -v wal-g >/dev/null || die "this image has no wal-g: build it with WALG_FROM=walg-build"
  export WALG_S3_PREFIX=s3://$BACKUP_S3_BUCKET/$BACKUP_S3_PREFIX/walg AWS_ENDPOINT=$BACKUP_S3_ENDPOINT AWS_REGION=$BACKUP_S3_REGION \
    AWS_S3_FORCE_PATH_STYLE=true WALG_LIBSODIUM_KEY_TRANSFORM=hex WALG_COMPRESSION_METHOD=lz4 \
    WALG_DELTA_MAX_STEPS=$BACKUP_KEEP_DIFFERENTIAL PGUSER=postgres PGDATABASE=postgres
  AWS_ACCESS_KEY_ID=$(secret backup_s3_key)
  AWS_SECRET_ACCESS_KEY=$(secret backup_s3_secret)
  WALG_LIBSODIUM_KEY=$(secret backup_passphrase)
  export AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY WALG_LIBSODIUM_KEY
  if [[ -n $BACKUP_S3_CA_FILE ]]; then export WALG_S3_CA_CERT_FILE=$BACKUP_S3_CA_FILE; fi
}

walg_push() {
  local options=()
  if [[ $1 == full ]]; then options=(--full); fi
  wal-g backup-push "${options[@]}" "$PGDATA"
}

# walg_size KIND: what the newest backup takes in the bucket, in bytes; deltas have a D in their name.
walg_size() {
  wal-g backup-list --detail --json | jq --arg kind "$1" \
    '[.[] | select((.backup_name | test("_D_")) == ($kind == "differential"))] | sort_by(.finish_time) | last | .compressed_size'
}

walg_list() { wal-g backup-list --detail --pretty; }

# Says OK only when no segment is missing between the oldest backup and now.
walg_verify() {
  local report
  report=$(wal-g wal-verify integrity timeline) || die "wal-verify failed: $report"
  printf '%s\n' "$report"
  ! grep -qE 'status: (FAILURE|WARNING)' <<<"$report" || die "WAL is missing"
}

walg_wal_push() { wal-g wal-push "$1"; }
walg_wal_fetch() { wal-g wal-fetch "$1" "$2"; }

walg_prune() {
  wal-g delete before FIND_FULL "$(date -u -d "-$BACKUP_KEEP_DAYS days" +%FT%TZ)" --confirm \
    || die "nothing could be deleted"
}

# The newest backup that was finished before a time.
walg_backup_before() {
  local seconds
  seconds=$(date -d "$1" +%s) || die "$1 is no time"
  wal-g backup-list --detail --json | jq --raw-output --argjson until "$seconds" \
    '[.[] | select((.finish_time | sub("\\.[0-9]+"; "") | fromdateiso8601) <= $until)] | sort_by(.finish_time) | last | .backup_name // empty'
}

# walg_fetch FOLDER KIND TARGET: see pgbackrest_fetch.
walg_fetch() {
  local backup=LATEST
  if [[ $2 == time ]]; then
    backup=$(walg_backup_before "$3")
    [[ -n $backup ]] || die "no backup was finished before $3"
  fi
  wal-g backup-fetch "$1" "$backup"
  {
    printf "restore_command = 'backup wal-fetch %%f \"%%p\"'\n"
    case $2 in
      time | name) printf "recovery_target_%s = %s\nrecovery_target_action = 'promote'\n" "$2" "$(conf_literal "$3")" ;;
    esac
  } >>"$1/postgresql.auto.conf"
  touch "$1/recovery.signal"
}
