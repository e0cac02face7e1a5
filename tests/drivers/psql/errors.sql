-- modes: session transaction statement
\set VERBOSITY verbose
SELEC 1;
SELECT 1 / 0;
SELECT * FROM psql_no_such_table;
SELECT 'x'::int;
SELECT n / (n - 5) FROM generate_series(1, 10) n;
CREATE TABLE psql_errors (n int CONSTRAINT positive CHECK (n > 0), PRIMARY KEY (n));
INSERT INTO psql_errors VALUES (1);
INSERT INTO psql_errors VALUES (1);
INSERT INTO psql_errors VALUES (-1);
INSERT INTO psql_errors VALUES (NULL);
DO $$ BEGIN RAISE NOTICE 'heard'; RAISE WARNING 'warned' USING HINT = 'a hint', DETAIL = 'a detail'; END $$;
DO $$ BEGIN RAISE EXCEPTION 'own error' USING ERRCODE = 'PW001', HINT = 'a hint', TABLE = 'psql_errors', COLUMN = 'n'; END $$;
DROP TABLE psql_errors, psql_no_such_table;
DROP TABLE psql_errors;
SELECT 'still here';
