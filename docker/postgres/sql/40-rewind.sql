-- pg_rewind, which Patroni runs against the new leader, needs these functions and no superuser.
\getenv rewind_password REWIND_PASSWORD
CREATE ROLE rewind LOGIN PASSWORD :'rewind_password';
GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_dir(text, boolean, boolean) TO rewind;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_stat_file(text, boolean) TO rewind;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_binary_file(text) TO rewind;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean) TO rewind;
GRANT CONNECT ON DATABASE postgres TO rewind;
