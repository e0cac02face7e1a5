-- modes: session transaction statement
\set VERBOSITY verbose
CREATE TABLE psql_copy (a int, b text);
\copy psql_copy FROM stdin
1	one
2	two\twith tab
3	\N
\.
\copy psql_copy FROM stdin (FORMAT csv)
4,"four, quoted ""well"""
5,
\.
SELECT * FROM psql_copy ORDER BY a;
\copy (SELECT n, repeat('x', 200) FROM generate_series(1, 20000) n) TO 'rows.txt'
\copy psql_copy FROM 'rows.txt'
SELECT count(*), sum(a), sum(length(b)) FROM psql_copy;
\copy psql_copy TO 'out.bin' (FORMAT binary)
TRUNCATE psql_copy;
\copy psql_copy FROM 'out.bin' (FORMAT binary)
SELECT count(*), sum(a), sum(length(b)) FROM psql_copy;
-- Bad lines, early and late.
\copy psql_copy FROM stdin
not a number	x
1	x
2	x
\.
SELECT count(*) FROM psql_copy;
\copy psql_copy FROM stdin
1	x
2	x	too many
\.
\copy psql_copy (a, nothing) FROM 'rows.txt'
\copy psql_nowhere FROM 'rows.txt'
\copy psql_copy FROM 'no such file'
SELECT count(*) FROM psql_copy;
COPY psql_copy TO STDOUT (FORMAT nonsense);
COPY (SELECT 1 / (n - 3) FROM generate_series(1, 5) n) TO STDOUT;
COPY (VALUES (1, 'a'), (2, NULL)) TO STDOUT;
COPY (SELECT 1) TO STDOUT\; SELECT 'after copy'\; COPY (SELECT 2) TO STDOUT;
DROP TABLE psql_copy;
