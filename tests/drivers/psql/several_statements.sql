-- modes: session transaction statement
\set VERBOSITY verbose
SELECT 1 AS a\; SELECT 2 AS b\; SELECT 3 AS c;
CREATE TABLE psql_several (n int)\; INSERT INTO psql_several VALUES (1), (2)\; SELECT * FROM psql_several;
-- An error undoes the whole of its message.
INSERT INTO psql_several VALUES (3)\; SELECT 1 / 0\; INSERT INTO psql_several VALUES (4);
SELECT * FROM psql_several ORDER BY n;
SELECT 1\; SELEC 2\; SELECT 3;
\;
DROP TABLE psql_several\; SELECT 'gone';
