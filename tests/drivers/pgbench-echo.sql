\set asked random(1, 1000000000)
SELECT :asked AS answered, repeat('x', :asked % 3000) AS padding \gset
\if :answered <> :asked
SELECT 'this reply belongs to somebody else' / 0;
\endif
