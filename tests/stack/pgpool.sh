# shellcheck shell=bash
# Pgpool-II over primary and replicas, for those who stay with it.

part_pgpool() {
  check "primary, replicas, Pgpool-II" up postgres client replica1 replica2 pgpool || return
  as_superuser postgres app 'SET ROLE admin; CREATE TABLE app.marks (n int)' >/dev/null
  check "a row is written through Pgpool-II" as_user app pgpool:9999 app 'INSERT INTO marks VALUES (42)'
  check "and read" within 20 equals 42 as_user app pgpool:9999 app 'SELECT n FROM marks'
  check "reads go to both replicas" within 60 pgpool_reads_from_both
  check "writes go to the primary" equals f as_user app pgpool:9999 app \
    'BEGIN; INSERT INTO marks VALUES (43); SELECT pg_is_in_recovery(); COMMIT'
  compose stop replica1 >/dev/null 2>&1
  check "reads go on without a replica" within 60 equals 42 as_user app pgpool:9999 app 'SELECT n FROM marks WHERE n = 42'
  check "Pgpool-II stops" compose stop pgpool
  check "and starts in its container again" up --no-deps pgpool
  check "and serves" within 60 equals 42 as_user app pgpool:9999 app 'SELECT n FROM marks WHERE n = 42'
}

# Not pg_is_in_recovery(): Pgpool-II sends that to the primary.
pgpool_reads_from_both() {
  local found
  found=$(for _ in 1 2 3 4 5 6 7 8 9 10; do as_user app pgpool:9999 app 'SELECT inet_server_addr()'; done | sort -u)
  [[ $found == "$( (address_of replica1; address_of replica2) | sort -u)" ]] || { say "reads came from: $found"; return 1; }
}
