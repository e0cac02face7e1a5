//! Start-up parameters, the welcome, and settings that follow a client from server to server.

use super::*;
use crate::fixture::*;
use crate::proto::{Conn, msg};

async fn client_with(pooler: &Pooler, params: &[(&str, &str)]) -> Conn {
    let mut conn = pooler.raw().await;
    let all: Vec<(&str, &str)> = [("user", "u_trust"), ("database", "p")]
        .iter()
        .chain(params)
        .copied()
        .collect();
    conn.log_in_with(&all, None).await;
    conn
}

#[tokio::test]
async fn the_welcome_is_complete() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini.set("max_prepared_statements", 77).start().await;
        for _ in 0..2 {
            let client = pooler.client("u_trust", "p").await;
            let has = |name: &str| {
                client
                    .login
                    .parameter(name)
                    .unwrap_or_else(|| panic!("no {name}"))
            };
            assert!(has("server_version").starts_with(|c: char| c.is_ascii_digit()));
            assert_eq!(has("server_encoding"), "UTF8");
            assert_eq!(has("client_encoding"), "UTF8");
            assert_eq!(has("integer_datetimes"), "on");
            assert_eq!(has("standard_conforming_strings"), "on");
            assert_eq!(has("DateStyle"), "ISO, MDY");
            assert_eq!(has("TimeZone"), "UTC");
            assert_eq!(has("is_superuser"), "off");
            assert_eq!(has("pgbouncer.pool_mode"), "transaction");
            assert_eq!(has("pgbouncer.max_prepared_statements"), "77");
            has("pgbouncer.version");
            assert_eq!(client.login.key.len(), 8);
            assert_eq!(client.login.key[0] & 0x80, 0, "the sign bit is clear");
        }
    })
    .await;
}

#[tokio::test]
async fn startup_parameters_follow_each_client() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini.set("default_pool_size", 1).start().await;
        let german = [("application_name", "it's \\ me"), ("DateStyle", "German"), ("TimeZone", "Asia/Kolkata"), ("client_encoding", "LATIN1")];
        let mut a = client_with(&pooler, &german).await;
        let mut b = client_with(&pooler, &[("application_name", "b"), ("IntervalStyle", "iso_8601")]).await;
        let mut c = client_with(&pooler, &[]).await;
        assert_eq!(a.login.parameter("DateStyle"), Some("German"), "echoed as it was sent");
        assert_eq!(a.login.parameter("application_name"), Some("it's \\ me"));
        let sql = "SELECT current_setting('application_name'), current_setting('TimeZone'), current_setting('DateStyle'), \
                   current_setting('client_encoding'), current_setting('IntervalStyle')";
        for _ in 0..3 {
            let row = |r: crate::proto::Reply| r.rows()[0].iter().map(|v| v.clone().unwrap()).collect::<Vec<_>>();
            assert_eq!(row(a.ok(sql).await), ["it's \\ me", "Asia/Kolkata", "German, DMY", "LATIN1", "postgres"]);
            assert_eq!(row(b.ok(sql).await), ["b", "UTC", "ISO, MDY", "UTF8", "iso_8601"]);
            assert_eq!(row(c.ok(sql).await), ["", "UTC", "ISO, MDY", "UTF8", "postgres"]);
        }
    })
    .await;
}

#[tokio::test]
async fn a_set_follows_to_the_next_server_and_stays_private() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini.set("default_pool_size", 2).start().await;
        let mut a = pooler.client("u_trust", "p").await;
        let mut b = pooler.client("u_trust", "p").await;
        let first = backend(&mut a).await;
        let reply = a.ok("SET application_name = 'mine'").await;
        assert_eq!(reply.tags(), "CSZ");
        a.ok("SET TimeZone = 'Europe/Berlin'").await;
        // Whoever holds the first server now, the other one is for the next.
        let held = hold_server(&mut b).await;
        assert_eq!(b.ok("SHOW application_name").await.value(), "");
        let mut c = pooler.client("u_trust", "p").await;
        let other = backend(&mut c).await;
        assert_ne!(held, other);
        assert_eq!(a.ok("SHOW application_name").await.value(), "mine");
        assert_eq!(a.ok("SHOW TimeZone").await.value(), "Europe/Berlin");
        assert_eq!(c.ok("SHOW TimeZone").await.value(), "UTC");
        assert!(first == held || first == other);
        b.ok("ROLLBACK").await;
    })
    .await;
}

#[tokio::test]
async fn a_difference_in_case_is_a_difference() {
    not_in_pgbouncer!("it does not replay values that differ in case only");
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini.set("default_pool_size", 1).start().await;
        let mut upper = client_with(&pooler, &[("application_name", "APP")]).await;
        let mut lower = client_with(&pooler, &[("application_name", "app")]).await;
        for _ in 0..3 {
            assert_eq!(upper.ok("SHOW application_name").await.value(), "APP");
            assert_eq!(lower.ok("SHOW application_name").await.value(), "app");
        }
    })
    .await;
}

#[tokio::test]
async fn long_values_follow_too() {
    not_in_pgbouncer!("it does not replay values of more than 126 bytes");
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini
            .set("default_pool_size", 1)
            .set("track_extra_parameters", "IntervalStyle, search_path")
            .start()
            .await;
        let long: Vec<String> = (0..60)
            .map(|i| format!("a_rather_long_schema_name_{i}"))
            .collect();
        let long = long.join(", ");
        let mut a = client_with(&pooler, &[("search_path", &long)]).await;
        let mut b = client_with(&pooler, &[]).await;
        for _ in 0..2 {
            assert_eq!(a.ok("SHOW search_path").await.value(), long);
            assert_eq!(b.ok("SHOW search_path").await.value(), "\"$user\", public");
        }
    })
    .await;
}

#[tokio::test]
async fn a_tracked_parameter_that_the_server_does_not_report_comes_from_startup_alone() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini
            .set("default_pool_size", 1)
            .set("track_extra_parameters", "IntervalStyle, work_mem")
            .start()
            .await;
        let mut a = client_with(&pooler, &[("work_mem", "1111kB")]).await;
        let mut b = client_with(&pooler, &[]).await;
        for _ in 0..2 {
            assert_eq!(a.ok("SHOW work_mem").await.value(), "1111kB");
            assert_eq!(b.ok("SHOW work_mem").await.value(), "4MB");
        }
    })
    .await;
}

#[tokio::test]
async fn a_bad_value_is_noticed_at_the_first_query() {
    bounded(60, async {
        let (_, _, ini) = setup().await;
        let pooler = ini.start().await;
        let mut bad = client_with(&pooler, &[("TimeZone", "Nowhere/Land")]).await;
        bad.send(&msg::query("SELECT 1")).await;
        assert_eq!(bad.fatal().await, "FATAL 08P01 invalid server parameter");
        let mut good = pooler.client("u_trust", "p").await;
        assert_eq!(good.ok("SHOW TimeZone").await.value(), "UTC");
        good.close().await;
        pooler.wait_pool_quiet("p", "u_trust").await;
    })
    .await;
}

#[tokio::test]
async fn unknown_parameters_are_refused_unless_ignored() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini
            .set(
                "ignore_startup_parameters",
                "extra_float_digits, geqo, TimeZone",
            )
            .start()
            .await;
        let mut client = client_with(
            &pooler,
            &[
                ("extra_float_digits", "3"),
                ("geqo", "off"),
                ("TimeZone", "Asia/Kolkata"),
            ],
        )
        .await;
        assert_eq!(client.ok("SHOW extra_float_digits").await.value(), "1");
        assert_eq!(
            client.ok("SHOW TimeZone").await.value(),
            "UTC",
            "ignoring wins over tracking"
        );
        let mut conn = pooler.raw().await;
        conn.send(&msg::startup(&[
            ("user", "u_trust"),
            ("database", "p"),
            ("work_mem", "1MB"),
        ]))
        .await;
        assert_eq!(
            conn.fatal().await,
            "FATAL 08P01 unsupported startup parameter: work_mem"
        );
    })
    .await;
}

#[tokio::test]
async fn options_are_read() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini.set("ignore_startup_parameters", "geqo").start().await;
        let options = "-c TimeZone=Asia/Kolkata -cDateStyle=German --application_name=two\\ words -c geqo=off";
        let mut client = client_with(&pooler, &[("options", options)]).await;
        assert_eq!(client.ok("SHOW TimeZone").await.value(), "Asia/Kolkata");
        assert_eq!(client.ok("SHOW DateStyle").await.value(), "German, DMY");
        assert_eq!(client.ok("SHOW application_name").await.value(), "two words");
        let refused = [
            ("-c work_mem=1MB", "unsupported startup parameter in options: work_mem"),
            ("-x", "unsupported options startup parameter: only '-c config=val' and '--config=val' are allowed"),
            ("nonsense", "unsupported options startup parameter: only '-c config=val' and '--config=val' are allowed"),
        ];
        for (options, error) in refused {
            let mut conn = pooler.raw().await;
            conn.send(&msg::startup(&[("user", "u_trust"), ("database", "p"), ("options", options)])).await;
            assert_eq!(conn.fatal().await, format!("FATAL 08P01 {error}"), "options {options:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn all_unknown_options_can_be_ignored() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini
            .set("ignore_startup_parameters", "options")
            .start()
            .await;
        let mut client = client_with(
            &pooler,
            &[("options", "-c work_mem=1MB -c TimeZone=Asia/Kolkata")],
        )
        .await;
        assert_eq!(client.ok("SHOW work_mem").await.value(), "4MB");
        assert_eq!(client.ok("SHOW TimeZone").await.value(), "Asia/Kolkata");
    })
    .await;
}

/// The welcome is kept: with it, a client can log in although the server is away.
#[tokio::test]
async fn a_login_needs_no_server_once_the_welcome_is_known() {
    bounded(60, async {
        let (_, _, ini) = setup().await;
        let pooler = ini.start().await;
        pooler.client("u_trust", "p").await.close().await;
        assert_eq!(pooler.console("PAUSE").await.error_text(), None);
        let mut client = pooler.client("u_trust", "p").await;
        client.send(&msg::query("SELECT 'after resume'")).await;
        wait_until("the client to wait", || async {
            pooler.pool("p", "u_trust").await.unwrap().clients_waiting == 1
        })
        .await;
        assert_eq!(pooler.console("RESUME").await.error_text(), None);
        assert_eq!(client.until_ready().await.value(), "after resume");
    })
    .await;
}
