//! The tables and functions that conversations use. The databases of all sides are clones of one template, so that even the oids in row
//! descriptions are the same.

use std::fmt::Write as _;

use tokio::sync::OnceCell;

use crate::fixture::Cluster;

/// One table per client that may be connected at a time, so that what one client sees does not depend on another.
pub const SLOTS: usize = 64;

const FUNCTIONS: &str = r#"
CREATE FUNCTION noisy(n int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
  FOR i IN 1..n LOOP RAISE NOTICE 'notice %', i; END LOOP;
  RAISE WARNING 'enough' USING DETAIL = 'some detail', HINT = 'a hint';
  RETURN n;
END $$;
CREATE FUNCTION boom(what text) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'boom: %', what USING ERRCODE = 'PW001', DETAIL = 'on purpose', HINT = 'do not', COLUMN = 'c', TABLE = 't';
END $$;
CREATE FUNCTION discard_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TABLE sink (a int, b text);
CREATE TRIGGER sink BEFORE INSERT ON sink FOR EACH ROW EXECUTE FUNCTION discard_row();
GRANT ALL ON sink TO PUBLIC;
"#;

async fn template(cluster: &Cluster) -> &'static str {
    static TEMPLATE: OnceCell<()> = OnceCell::const_new();
    TEMPLATE
        .get_or_init(|| async {
            cluster.sql("postgres", "CREATE DATABASE diff_template TEMPLATE open_template").await;
            let mut sql = FUNCTIONS.to_string();
            for slot in 0..SLOTS {
                write!(sql, "CREATE TABLE t{slot} (id int PRIMARY KEY, v text, n numeric); GRANT ALL ON t{slot} TO PUBLIC;").expect("a String");
            }
            let admin = cluster.admin("diff_template").await;
            let mut admin = admin;
            admin.ok(&sql).await;
            admin.close().await;
        })
        .await;
    "diff_template"
}

/// Makes a database with the schema.
pub async fn clone(cluster: &Cluster, name: &str) {
    let template = template(cluster).await;
    cluster
        .sql(
            "postgres",
            &format!("CREATE DATABASE {name} TEMPLATE {template}"),
        )
        .await;
}
