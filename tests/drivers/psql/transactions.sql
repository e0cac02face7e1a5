-- modes: session transaction
\set VERBOSITY verbose
CREATE TABLE psql_tx (n int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED);
BEGIN;
INSERT INTO psql_tx VALUES (1);
SAVEPOINT one;
INSERT INTO psql_tx VALUES (2);
SELECT 1 / 0;
SELECT 'refused';
ROLLBACK TO one;
INSERT INTO psql_tx VALUES (3);
COMMIT;
SELECT * FROM psql_tx ORDER BY n;
BEGIN;
SELECT 1 / 0;
COMMIT;
-- An error that only COMMIT finds.
BEGIN;
INSERT INTO psql_tx VALUES (1);
SELECT 'not yet';
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY;
SHOW transaction_isolation;
INSERT INTO psql_tx VALUES (9);
ROLLBACK AND CHAIN;
SHOW transaction_isolation;
ROLLBACK;
BEGIN;
CREATE TEMP TABLE psql_temp (n int) ON COMMIT DROP;
INSERT INTO psql_temp SELECT generate_series(1, 10);
SELECT sum(n) FROM psql_temp;
DECLARE c CURSOR FOR SELECT n FROM psql_temp ORDER BY n;
FETCH 3 FROM c;
MOVE 2 IN c;
FETCH 1 FROM c;
SET LOCAL work_mem = '7MB';
SHOW work_mem;
\copy psql_temp FROM stdin
11
12
\.
SELECT sum(n) FROM psql_temp;
COMMIT;
\set FETCH_COUNT 7
SELECT n FROM generate_series(1, 50) n;
\unset FETCH_COUNT
\set ON_ERROR_ROLLBACK on
BEGIN;
SELECT 1 / 0;
SELECT 'goes on';
COMMIT;
\set ON_ERROR_ROLLBACK off
\set AUTOCOMMIT off
INSERT INTO psql_tx VALUES (20);
ROLLBACK;
SELECT count(*) FROM psql_tx;
COMMIT;
\set AUTOCOMMIT on
WARNING;
COMMIT;
DROP TABLE psql_tx;
