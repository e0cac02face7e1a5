-- Roles of the server, and the application's database. Passwords come from the environment of psql, which has them from secrets.
\getenv app_password APP_PASSWORD
\getenv monitor_password MONITOR_PASSWORD
\getenv replicator_password REPLICATOR_PASSWORD
\getenv pgweir_auth_password PGWEIR_AUTH_PASSWORD
\getenv database PG_DATABASE
\getenv app_user PG_APP_USER

-- What one may do: nobody logs in as these; users are made members of them.
CREATE ROLE readonly NOLOGIN;
CREATE ROLE readwrite NOLOGIN IN ROLE readonly;
-- Owns database and schema: migrations run as a member of admin, after SET ROLE admin.
CREATE ROLE admin NOLOGIN IN ROLE readwrite;

-- Who logs in.
CREATE ROLE :"app_user" LOGIN PASSWORD :'app_password' IN ROLE readwrite;
CREATE ROLE monitor LOGIN PASSWORD :'monitor_password' IN ROLE pg_monitor CONNECTION LIMIT 10;
CREATE ROLE replicator LOGIN REPLICATION PASSWORD :'replicator_password';
-- The pooler asks for secrets as this user; it may call one function and nothing else.
CREATE ROLE pgweir_auth LOGIN PASSWORD :'pgweir_auth_password' CONNECTION LIMIT 20;

-- A forgotten transaction must not hold back vacuum, a runaway statement not the pool.
ALTER ROLE :"app_user" SET idle_in_transaction_session_timeout = '10min';
ALTER ROLE :"app_user" SET lock_timeout = '30s';
ALTER ROLE monitor SET statement_timeout = '30s';

CREATE DATABASE :"database" OWNER admin;
REVOKE ALL ON DATABASE :"database", postgres, template1 FROM PUBLIC;
GRANT CONNECT ON DATABASE :"database" TO readonly, monitor, pgweir_auth;
GRANT TEMPORARY ON DATABASE :"database" TO readwrite;
GRANT CONNECT ON DATABASE postgres TO monitor;
