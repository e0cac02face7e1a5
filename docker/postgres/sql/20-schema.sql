-- The application's schema: what admin makes in it, readonly may read and readwrite may change, from the moment it exists.
\getenv database PG_DATABASE

CREATE EXTENSION pg_stat_statements;

REVOKE ALL ON SCHEMA public FROM PUBLIC;
CREATE SCHEMA app AUTHORIZATION admin;
GRANT USAGE ON SCHEMA app TO readonly;
-- The database's setting, not the users': whoever connects finds the tables.
ALTER DATABASE :"database" SET search_path = app;

ALTER DEFAULT PRIVILEGES FOR ROLE admin IN SCHEMA app GRANT SELECT ON TABLES TO readonly;
ALTER DEFAULT PRIVILEGES FOR ROLE admin IN SCHEMA app GRANT INSERT, UPDATE, DELETE ON TABLES TO readwrite;
ALTER DEFAULT PRIVILEGES FOR ROLE admin IN SCHEMA app GRANT SELECT ON SEQUENCES TO readonly;
ALTER DEFAULT PRIVILEGES FOR ROLE admin IN SCHEMA app GRANT USAGE, UPDATE ON SEQUENCES TO readwrite;
ALTER DEFAULT PRIVILEGES FOR ROLE admin REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE admin IN SCHEMA app GRANT EXECUTE ON FUNCTIONS TO readwrite;
