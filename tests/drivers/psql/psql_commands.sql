-- modes: session transaction statement
SELECT format('SELECT %s AS generated', n) FROM generate_series(1, 3) n \gexec
SELECT 7 AS seven, 'x y' AS words \gset
\echo :seven :'words'
SELECT a % 2 AS odd, a % 3 AS third, count(*) FROM generate_series(1, 20) a GROUP BY 1, 2 ORDER BY 1, 2 \crosstabview
CREATE TABLE psql_described (id int PRIMARY KEY, name text NOT NULL DEFAULT 'x', CHECK (id > 0));
COMMENT ON TABLE psql_described IS 'a comment';
\d psql_described
\d+ psql_described
\dt psql_*
\df pg_catalog.pg_backend_pid
DROP TABLE psql_described;
\l template0
\c check
SELECT current_user, current_database();
\c -
SELECT current_user, current_database();
\timing off
SELECT 1 \g (format=unaligned tuples_only=on)
SELECT 'to a file' \g out.txt
\! cat out.txt
\sf pg_catalog.obj_description(oid)
