-- modes: session transaction
-- psql moves large objects with function-call messages.
\set VERBOSITY verbose
\copy (SELECT repeat('large object ', 50) FROM generate_series(1, 1000)) TO 'lo.txt'
BEGIN;
\lo_import lo.txt
SELECT sum(length(data)) FROM pg_largeobject WHERE loid = :LASTOID;
\lo_export :LASTOID back.txt
COMMIT;
\! cmp lo.txt back.txt && echo the same
\lo_import lo.txt
\lo_export :LASTOID back2.txt
\! cmp lo.txt back2.txt && echo the same
SELECT lo_unlink(oid) FROM pg_largeobject_metadata;
\lo_export 1 nowhere.txt
SELECT 'still here';
