# shellcheck shell=bash
# The engine pgBackRest. It is told everything by its environment variables: no file, and no secret among the arguments of a process.

pgbackrest_environment() {
  local endpoint=${BACKUP_S3_ENDPOINT#https://}
  [[ $BACKUP_S3_ENDPOINT == https://* ]] || die "pgBackRest speaks to a store over https:// only"
  export PGBACKREST_STANZA=main PGBACKREST_PG1_PATH=$PGDATA PGBACKREST_PG1_SOCKET_PATH=/run/postgresql PGBACKREST_PG1_USER=postgres \
    PGBACKREST_REPO1_TYPE=s3 PGBACKREST_REPO1_S3_ENDPOINT=$endpoint PGBACKREST_REPO1_S3_BUCKET=$BACKUP_S3_BUCKET \
    PGBACKREST_REPO1_S3_REGION=$BACKUP_S3_REGION PGBACKREST_REPO1_S3_URI_STYLE=path PGBACKREST_REPO1_PATH=/$BACKUP_S3_PREFIX/pgbackrest \
    PGBACKREST_REPO1_CIPHER_TYPE=aes-256-cbc PGBACKREST_REPO1_RETENTION_FULL=$BACKUP_KEEP_FULL \
    PGBACKREST_REPO1_RETENTION_DIFF=$BACKUP_KEEP_DIFFERENTIAL PGBACKREST_REPO1_BUNDLE=y PGBACKREST_COMPRESS_TYPE=zst \
    PGBACKREST_START_FAST=y PGBACKREST_LOG_LEVEL_CONSOLE=warn PGBACKREST_LOG_LEVEL_FILE=off PGBACKREST_LOCK_PATH=/tmp/pgbackrest \
    PGBACKREST_SPOOL_PATH=/tmp/pgbackrest PGBACKREST_ARCHIVE_TIMEOUT=60
  PGBACKREST_REPO1_S3_KEY=$(secret backup_s3_key)
  PGBACKREST_REPO1_S3_KEY_SECRET=$(secret backup_s3_secret)
  PGBACKREST_REPO1_CIPHER_PASS=$(secret backup_passphrase)
  export PGBACKREST_REPO1_S3_KEY PGBACKREST_REPO1_S3_KEY_SECRET PGBACKREST_REPO1_CIPHER_PASS
  if [[ -n $BACKUP_S3_CA_FILE ]]; then export PGBACKREST_REPO1_STORAGE_CA_FILE=$BACKUP_S3_CA_FILE; fi
}

# The stanza is made when it is missing, and then this does nothing.
pgbackrest_prepare() { pgbackrest stanza-create; }

pgbackrest_push() {
  local type=full
  if [[ $1 == differential ]]; then type='diff'; fi
  pgbackrest_prepare && pgbackrest backup --type="$type"
}

# pgbackrest_size KIND: what the newest backup of this kind takes in the bucket, in bytes.
pgbackrest_size() {
  local type=full
  if [[ $1 == differential ]]; then type='diff'; fi
  pgbackrest info --output=json | jq --arg type "$type" '[.[0].backup[] | select(.type == $type)] | last | .info.repository.delta'
}

pgbackrest_list() { pgbackrest info; }

# `verify` reads every file in the bucket and compares its checksum; `check` sees a segment of WAL arrive. Both report errors by
# their exit code, verify besides by its status.
pgbackrest_verify() {
  local report
  report=$(pgbackrest verify --output=text --verbose) || die "verify failed: $report"
  printf '%s\n' "$report"
  ! grep -q 'status: error' <<<"$report" || die "the repository is damaged"
  pgbackrest check
}

pgbackrest_wal_push() { pgbackrest archive-push "$1"; }
pgbackrest_wal_fetch() { pgbackrest archive-get "$1" "$2"; }
pgbackrest_prune() { pgbackrest expire; }

# pgbackrest_fetch FOLDER KIND TARGET: KIND is latest, time or name; the settings of recovery are written, too.
pgbackrest_fetch() {
  local options=(--pg1-path="$1" --recovery-option="restore_command=backup wal-fetch %f \"%p\"")
  case $2 in
    time | name) options+=(--type="$2" --target="$3" --target-action=promote) ;;
  esac
  pgbackrest restore "${options[@]}"
}
