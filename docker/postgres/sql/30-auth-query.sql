-- auth_query of the pooler: a user's SCRAM secret, and nothing that could open a superuser's or a replication's door through the
-- pooler. The function runs as its owner (the superuser, who alone may read pg_authid), with a search_path that nobody can bend.
CREATE SCHEMA pgweir;
REVOKE ALL ON SCHEMA pgweir FROM PUBLIC;
GRANT USAGE ON SCHEMA pgweir TO pgweir_auth;

CREATE FUNCTION pgweir.user_lookup(name text, OUT usename text, OUT passwd text)
  RETURNS SETOF record
  LANGUAGE sql STABLE STRICT SECURITY DEFINER
  SET search_path = pg_catalog, pg_temp
  AS $$
    SELECT rolname::text, rolpassword
    FROM pg_catalog.pg_authid
    WHERE rolname = $1
      AND rolcanlogin AND NOT rolsuper AND NOT rolreplication AND NOT rolbypassrls
      AND (rolvaliduntil IS NULL OR rolvaliduntil > pg_catalog.now())
  $$;
REVOKE ALL ON FUNCTION pgweir.user_lookup(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgweir.user_lookup(text) TO pgweir_auth;
