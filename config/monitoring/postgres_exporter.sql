-- The functions that postgres_exporter_queries.yml calls, for members of pg_monitor: PostgreSQL shows these things only to those who may
-- read the tables, and who watches shall not. Run it as superuser in the database that the exporter connects to, as often as you like
-- (replicas get it from their primary), and give the exporter a role without more rights than watching takes:
--
--   CREATE ROLE monitor LOGIN IN ROLE pg_monitor CONNECTION LIMIT 10;
--   ALTER ROLE monitor SET statement_timeout = '5s';
--   \password monitor
--
-- Statements need pg_stat_statements in shared_preload_libraries, and CREATE EXTENSION pg_stat_statements in that database. Bloat and dead
-- tuples are those of the database connected to: for others run this there too, and an exporter for each.

CREATE SCHEMA IF NOT EXISTS monitoring;
REVOKE ALL ON SCHEMA monitoring FROM PUBLIC;
GRANT USAGE ON SCHEMA monitoring TO pg_monitor;

-- Space that pages hold beyond what their rows need (row width from ANALYZE, fillfactor heeded), in the twenty worst tables. Sizes only.
CREATE OR REPLACE FUNCTION monitoring.table_bloat(
  OUT schemaname name, OUT relname name, OUT size_bytes bigint, OUT bloat_bytes bigint)
RETURNS SETOF record
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
  WITH tables AS (
    SELECT c.oid, n.nspname, c.relname, c.reltuples, c.relpages,
      current_setting('block_size')::numeric AS block,
      coalesce((SELECT option_value::numeric FROM pg_options_to_table(c.reloptions) WHERE option_name = 'fillfactor'), 100) / 100 AS fill
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'm') AND c.relpages > 128 AND c.reltuples > 0 AND c.relpersistence <> 't'
      AND n.nspname NOT IN ('pg_catalog', 'information_schema')
  ), widths AS (
    SELECT t.*, sum((1 - s.null_frac) * s.avg_width)::numeric AS width
    FROM tables t JOIN pg_stats s ON s.schemaname = t.nspname AND s.tablename = t.relname AND NOT s.inherited
    GROUP BY t.oid, t.nspname, t.relname, t.reltuples, t.relpages, t.block, t.fill
  ), needs AS (
    -- A row: its pointer (4), its header (24 with padding), its columns rounded up to 8. A page: 24 bytes are its own.
    SELECT w.*, ceil(reltuples::numeric * (28 + ceil(width / 8) * 8) / ((block - 24) * fill)) AS pages
    FROM widths w
  )
  SELECT nspname, relname, (relpages * block)::bigint, (greatest(relpages - pages, 0) * block)::bigint
  FROM needs ORDER BY greatest(relpages - pages, 0) DESC LIMIT 20
$$;

-- The statements that took most time, without their text: that may hold secrets, and belongs in no label. Nothing where
-- pg_stat_statements is not installed or not loaded.
CREATE OR REPLACE FUNCTION monitoring.top_statements(
  OUT datname name, OUT usename name, OUT queryid bigint, OUT calls_total bigint, OUT exec_seconds_total double precision,
  OUT rows_total bigint, OUT shared_blks_read_total bigint)
RETURNS SETOF record
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE home text := (SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
  WHERE e.extname = 'pg_stat_statements');
BEGIN
  IF home IS NULL THEN RETURN; END IF;
  RETURN QUERY EXECUTE format($query$
    SELECT coalesce(d.datname, ''), coalesce(r.rolname, ''), s.queryid, sum(s.calls)::bigint, sum(s.total_exec_time) / 1000,
      sum(s.rows)::bigint, sum(s.shared_blks_read)::bigint
    FROM %s.pg_stat_statements s LEFT JOIN pg_database d ON d.oid = s.dbid LEFT JOIN pg_roles r ON r.oid = s.userid
    WHERE s.queryid IS NOT NULL GROUP BY 1, 2, 3 ORDER BY 5 DESC LIMIT 20$query$, home);
EXCEPTION WHEN object_not_in_prerequisite_state THEN RETURN;
END
$$;

-- Checkpoints moved to a view of their own in PostgreSQL 17.
CREATE OR REPLACE FUNCTION monitoring.checkpoints(
  OUT timed_total bigint, OUT requested_total bigint, OUT write_seconds_total double precision, OUT sync_seconds_total double precision,
  OUT buffers_written_total bigint)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF current_setting('server_version_num')::int >= 170000 THEN
    SELECT num_timed, num_requested, write_time / 1000, sync_time / 1000, buffers_written FROM pg_stat_checkpointer
      INTO timed_total, requested_total, write_seconds_total, sync_seconds_total, buffers_written_total;
  ELSE
    SELECT checkpoints_timed, checkpoints_req, checkpoint_write_time / 1000, checkpoint_sync_time / 1000, buffers_checkpoint
      FROM pg_stat_bgwriter
      INTO timed_total, requested_total, write_seconds_total, sync_seconds_total, buffers_written_total;
  END IF;
END
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA monitoring FROM PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA monitoring TO pg_monitor;
