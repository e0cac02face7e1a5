-- Examples of partitioned tables: by range and by list by hand, by month with pg_partman and its maintenance. PG_EXAMPLES=0 leaves
-- them out.
CREATE SCHEMA partman;
CREATE EXTENSION pg_partman SCHEMA partman;
GRANT USAGE ON SCHEMA partman TO admin;
GRANT SELECT ON ALL TABLES IN SCHEMA partman TO admin;

SET ROLE admin;

-- By range, bounds written by hand; what fits nowhere goes to the default.
CREATE TABLE app.measurements (
  taken_at timestamptz NOT NULL,
  sensor integer NOT NULL,
  value double precision NOT NULL,
  PRIMARY KEY (sensor, taken_at)
) PARTITION BY RANGE (taken_at);
CREATE TABLE app.measurements_2025 PARTITION OF app.measurements FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE app.measurements_2026 PARTITION OF app.measurements FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE TABLE app.measurements_rest PARTITION OF app.measurements DEFAULT;

-- By list.
CREATE TABLE app.orders (
  id bigint GENERATED ALWAYS AS IDENTITY,
  region text NOT NULL,
  amount numeric(12, 2) NOT NULL,
  PRIMARY KEY (id, region)
) PARTITION BY LIST (region);
CREATE TABLE app.orders_europe PARTITION OF app.orders FOR VALUES IN ('de', 'fr', 'it');
CREATE TABLE app.orders_america PARTITION OF app.orders FOR VALUES IN ('us', 'ca', 'mx');
CREATE TABLE app.orders_rest PARTITION OF app.orders DEFAULT;

-- By month: pg_partman makes four months ahead and drops what is older than a year.
CREATE TABLE app.events (
  id bigint GENERATED ALWAYS AS IDENTITY,
  created_at timestamptz NOT NULL DEFAULT now(),
  payload jsonb NOT NULL,
  PRIMARY KEY (id, created_at)
) PARTITION BY RANGE (created_at);

RESET ROLE;
SELECT partman.create_parent(p_parent_table := 'app.events', p_control := 'created_at', p_interval := '1 month', p_premake := 4);
UPDATE partman.part_config
  SET retention = '12 months', retention_keep_table = false, infinite_time_partitions = true, inherit_privileges = true
  WHERE parent_table = 'app.events';
-- Partitions, those that maintenance will make too, get the owner and the rights of their parent.
SELECT partman.reapply_privileges('app.events');
