-- modes: session
-- The unnamed statement outlives the Sync between its Parse and its Describe.
SELECT 1 AS a, 'text'::text AS b, 2.5::numeric(5, 2) AS c \gdesc
SET work_mem = '9MB';
SHOW work_mem;
PREPARE psql_statement (int) AS SELECT $1 * 2 AS doubled;
EXECUTE psql_statement (21);
CREATE TEMP TABLE psql_kept (n int);
INSERT INTO psql_kept VALUES (1), (2);
SELECT * FROM psql_kept;
SELECT pg_try_advisory_lock(4711), pg_advisory_unlock(4711);
BEGIN;
DECLARE psql_held CURSOR WITH HOLD FOR SELECT generate_series(1, 5);
COMMIT;
FETCH 2 FROM psql_held;
FETCH 2 FROM psql_held;
CLOSE psql_held;
LISTEN psql_news;
NOTIFY psql_news, 'heard by myself';
SELECT 'after notify';
UNLISTEN *;
DEALLOCATE psql_statement;
EXECUTE psql_statement (1);
SET ROLE pg_monitor;
SELECT current_user, session_user;
RESET ROLE;
DISCARD ALL;
SHOW work_mem;
SELECT * FROM psql_kept;
