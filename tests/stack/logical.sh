# shellcheck shell=bash
# Logical replication: an independent server subscribes to a table.

part_logical() {
  check "primary and subscriber" up postgres subscriber client || return
  local table='SET ROLE admin; CREATE TABLE app.notes (id int PRIMARY KEY, note text)'
  as_superuser postgres app "$table" >/dev/null
  as_superuser subscriber app "$table" >/dev/null
  check "publication" publish_notes
  check "subscription" subscribe_notes
  check "a row" as_user app postgres:5432 app "INSERT INTO notes VALUES (1, 'one')"
  check "arrives" within 30 equals one as_superuser subscriber app 'SELECT note FROM app.notes'
  check "a change arrives" changed_note_arrives
  check "the subscriber writes what is its own" as_superuser subscriber app 'SET ROLE admin; CREATE TABLE app.own (n int); INSERT INTO app.own VALUES (1)'
}

publish_notes() {
  as_superuser postgres app "CREATE PUBLICATION notes FOR TABLE app.notes;
    GRANT CONNECT ON DATABASE app TO replicator; GRANT USAGE ON SCHEMA app TO replicator; GRANT SELECT ON app.notes TO replicator"
}

subscribe_notes() {
  as_superuser subscriber app "CREATE SUBSCRIPTION notes CONNECTION 'host=postgres dbname=app user=replicator password=$(<"$WORK/secrets/replicator_password")
    sslmode=verify-full sslrootcert=/run/postgresql/tls/ca.crt' PUBLICATION notes"
}

changed_note_arrives() {
  as_user app postgres:5432 app "UPDATE notes SET note = 'two' WHERE id = 1" && within 30 equals two as_superuser subscriber app 'SELECT note FROM app.notes'
}
