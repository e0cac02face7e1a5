-- modes: session transaction
-- Parameters that PostgreSQL reports follow the client, whichever server it gets next.
SET TimeZone = 'Asia/Tokyo';
SELECT timestamptz '2026-01-01 00:00:00+00';
SELECT timestamptz '2026-01-01 00:00:00+00';
SET DateStyle = 'German';
SELECT timestamptz '2026-01-01 00:00:00+00';
SET IntervalStyle = 'iso_8601';
SELECT interval '1 year 2 months 3 days';
SELECT interval '1 year 2 months 3 days';
SET application_name = 'psql''s own "name"';
SHOW application_name;
SHOW application_name;
SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid();
\encoding LATIN1
SELECT convert_from('\xc3a9', 'UTF8') AS e_acute;
SELECT convert_from('\xc3a9', 'UTF8') AS e_acute, octet_length(convert_from('\xc3a9', 'UTF8'));
\encoding UTF8
SELECT convert_from('\xc3a9', 'UTF8') AS e_acute;
SET standard_conforming_strings = off;
SELECT 'a\\b';
SELECT 'a\\b';
SET standard_conforming_strings = on;
SELECT 'a\\b';
BEGIN;
SET TimeZone = 'America/New_York';
SHOW TimeZone;
ROLLBACK;
SHOW TimeZone;
BEGIN;
SET TimeZone = 'Europe/Berlin';
COMMIT;
SHOW TimeZone;
SHOW TimeZone;
SET LOCAL TimeZone = 'UTC';
SHOW TimeZone;
