-- modes: session transaction statement
-- psql: 16
\set VERBOSITY verbose
SELECT $1::int + $2::int AS sum \bind 40 2 \g
SELECT $1 AS text \bind 'it''s' \g
SELECT $1::int \bind 'not a number' \g
SELECT $1::int \bind \g
SELECT 1\; SELECT $1 \bind 2 \g
SELECT 'after errors', $1 \bind x \g
