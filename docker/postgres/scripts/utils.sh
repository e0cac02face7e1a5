# shellcheck shell=bash
# Small helpers: saying things, reading secrets, judging what the environment holds. Sourced; does nothing by itself.

SECRETS_DIR=${SECRETS_DIR:-/run/secrets}

log() { printf '%s %s\n' "$(date -u +%FT%TZ)" "$*" >&2; }
die() { log "error: $*"; exit 1; }

is_integer() { [[ $1 =~ ^[0-9]+$ ]]; }
is_flag() { [[ $1 == 0 || $1 == 1 ]]; }
# What PostgreSQL takes as a name without quotes; slots are named so, too.
is_identifier() { [[ $1 =~ ^[a-z_][a-z0-9_]{0,62}$ ]]; }
# A host name or an address.
is_host() { [[ $1 =~ ^[A-Za-z0-9]([A-Za-z0-9.:-]*[A-Za-z0-9])?$ ]]; }
is_port() { is_integer "$1" && ((${#1} <= 5 && 10#$1 >= 1 && 10#$1 <= 65535)); }
is_setting() { [[ $1 =~ ^[a-z_][a-z0-9_.]*=.+$ && $1 != *$'\n'* ]]; }

# one_of VALUE CHOICE...
one_of() {
  local value=$1 choice
  shift
  for choice; do
    if [[ $value == "$choice" ]]; then return 0; fi
  done
  return 1
}

# has_secret NAME: whether the file is there.
has_secret() { [[ -r $SECRETS_DIR/$1 ]]; }

# secret NAME: what is in the file, without the newline at its end.
secret() {
  has_secret "$1" || die "secret $1: no readable file $SECRETS_DIR/$1"
  local value
  value=$(<"$SECRETS_DIR/$1")
  [[ -n $value && $value != *$'\n'* ]] || die "secret $1: must be one line that is not empty"
  printf '%s' "$value"
}

# check_password NAME: long enough, and none that comes with an example.
check_password() {
  local value
  value=$(secret "$1") || exit 1
  ((${#value} >= 16)) || die "secret $1: shorter than 16 characters"
  case ${value,,} in
    *changeme* | *change-me* | *password* | *example*) die "secret $1: looks like a placeholder" ;;
  esac
}

# sql_literal TEXT, conf_literal TEXT: quoted for SQL, and for postgresql.conf.
sql_literal() { printf "'%s'" "${1//\'/\'\'}"; }
conf_literal() { sql_literal "$1"; }

# pgpass_field TEXT: with : and \ escaped.
pgpass_field() {
  local value=${1//\\/\\\\}
  printf '%s' "${value//:/\\:}"
}

# until_true SECONDS COMMAND...: tries until it succeeds; fails when the time is over.
until_true() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    ((SECONDS < deadline)) || return 1
    sleep 0.2
  done
}
