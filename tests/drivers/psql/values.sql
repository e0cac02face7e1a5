-- modes: session transaction statement
\set VERBOSITY verbose
SELECT 1 AS one, NULL AS nothing, '' AS empty, 1.5::float8, 'naïve 漢字' AS text, '\x00ff'::bytea, ARRAY[1, NULL, 3], now() = now() AS same;
SELECT n, repeat('abc', n * 100) AS wide FROM generate_series(0, 60) n;
SELECT repeat('0123456789', 100000) AS megabyte;
SELECT FROM generate_series(1, 3);
SELECT 1 WHERE false;
;
VALUES (1, 'a'), (2, 'b');
EXPLAIN (COSTS OFF) SELECT * FROM generate_series(1, 10);
SHOW server_version;
\x
SELECT 1 AS expanded, 2 AS display;
