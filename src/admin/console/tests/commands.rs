//! The simple protocol: what each command answers, and what the program is told.

use super::*;

#[tokio::test]
async fn commands_that_succeed() {
    let fake = databases();
    check(
        &fake,
        Role::Admin,
        &[
            (
                "show version",
                &["T version:25", "D PgBouncer 1.26.1", "C SHOW"],
            ),
            (
                "SELECT Version;",
                &["T version:25", "D PgBouncer 1.26.1", "C SHOW"],
            ),
            ("show timezone", &["T timezone:25", "D GMT", "C SHOW"]),
            (
                "show dns_zones",
                &["T zonename:25|serial:20|count:23", "C SHOW"],
            ),
            (
                "set timezone = x",
                &["N SNOTICE C00000 MSET ignored", "C SET"],
            ),
            ("SET query_timeout TO '1.5'", &["C SET query_timeout=1.5"]),
            ("RELOAD", &["C RELOAD"]),
            ("PAUSE one", &["C PAUSE"]),
            ("RESUME one", &["C RESUME"]),
            ("PAUSE", &["C PAUSE"]),
            ("RESUME", &["C RESUME"]),
            ("DISABLE one", &["C DISABLE"]),
            ("ENABLE one", &["C ENABLE"]),
            ("RECONNECT", &["C RECONNECT"]),
            ("RECONNECT two", &["C RECONNECT"]),
            ("KILL one", &["C KILL"]),
            ("KILL", &["C KILL"]),
            ("WAIT_CLOSE", &["C WAIT_CLOSE"]),
            ("WAIT_CLOSE one", &["C WAIT_CLOSE"]),
            ("SHUTDOWN WAIT_FOR_CLIENTS", &["C SHUTDOWN"]),
            ("SHUTDOWN WAIT_FOR_SERVERS", &["C SHUTDOWN"]),
        ],
    )
    .await;
    let expected = [
        "set query_timeout 1.5",
        "reload",
        "pause Some(\"one\")",
        "resume Some(\"one\")",
        "pause None",
        "resume None",
        "disable one",
        "enable one",
        "reconnect None",
        "reconnect Some(\"two\")",
        "kill Some(\"one\")",
        "kill None",
        "wait_close None",
        "wait_close Some(\"one\")",
        "shutdown WaitForClients",
        "shutdown WaitForServers",
    ];
    assert_eq!(fake.told(), expected);
}

/// The texts are those that PgBouncer 1.26.1 was seen to send.
#[tokio::test]
async fn commands_that_are_refused() {
    let fake = databases();
    let cases = [
        ("PAUSE nosuch", "no such database: nosuch"),
        ("RESUME nosuch", "no such database: nosuch"),
        ("DISABLE nosuch", "no such database: nosuch"),
        ("ENABLE nosuch", "no such database: nosuch"),
        ("RECONNECT nosuch", "no such database: nosuch"),
        ("KILL nosuch", "no such database: nosuch"),
        ("WAIT_CLOSE nosuch", "no such database: nosuch"),
        ("PAUSE pgbouncer", "cannot pause admin db: pgbouncer"),
        ("DISABLE pgbouncer", "cannot disable admin db: pgbouncer"),
        ("ENABLE pgbouncer", "cannot enable admin db: pgbouncer"),
        (
            "RECONNECT pgbouncer",
            "cannot reconnect admin db: pgbouncer",
        ),
        ("KILL pgbouncer", "cannot kill admin db: pgbouncer"),
        ("WAIT_CLOSE pgbouncer", "cannot wait in admin db: pgbouncer"),
        ("RESUME pgbouncer", "database pgbouncer is not paused"),
        ("RESUME one", "database one is not paused"),
        ("RESUME", "pooler is not paused"),
        ("DISABLE", "a database is required"),
        ("ENABLE", "a database is required"),
        ("KILL_CLIENT", "invalid client pointer supplied"),
        ("KILL_CLIENT abc", "invalid client pointer supplied"),
        ("KILL_CLIENT 18446744073709551617", "client not found"),
        ("SET foo=1", "SET failed"),
        ("SET pool_mode=bar", "SET failed"),
        ("SET POOL_MODE=session", "SET failed"),
        (
            "SHUTDOWN foo",
            "invalid command 'SHUTDOWN foo', use SHOW HELP;",
        ),
        ("suspend", "invalid command 'suspend', use SHOW HELP;"),
    ];
    for (command, text) in cases {
        check(&fake, Role::Admin, &[(command, &[&refused(text)])]).await;
    }
    assert!(fake.told().is_empty());
}

#[tokio::test]
async fn a_pause_of_everything_bars_further_pauses() {
    let fake = databases();
    fake.state.lock().paused = true;
    for command in ["PAUSE", "PAUSE two", "KILL", "KILL two"] {
        check(
            &fake,
            Role::Admin,
            &[(command, &[&refused("already paused")])],
        )
        .await;
    }
    fake.state.lock().shutting_down = true;
    check(
        &fake,
        Role::Admin,
        &[("RESUME", &[&refused("pooler is shutting down")])],
    )
    .await;
    assert!(fake.told().is_empty());
}

#[tokio::test]
async fn settings_that_need_a_restart_are_set_in_vain() {
    let fake = databases();
    check(
        &fake,
        Role::Admin,
        &[("SET listen_port = 1", &["C SET listen_port=1"])],
    )
    .await;
    assert!(fake.told().is_empty());
}

#[tokio::test]
async fn what_the_program_reports_reaches_the_client() {
    let mut fake = databases();
    fake.old_tls_kept = true;
    let notice =
        "N SNOTICE C00000 MTLS settings could not be applied, still using old configuration";
    let answers: &[&str] = &[notice, "C SET client_tls_sslmode=require"];
    check(
        &fake,
        Role::Admin,
        &[("SET client_tls_sslmode = require", answers)],
    )
    .await;
    fake.failure = Some(CommandError::ReloadFailed);
    let failed = "E SERROR CF0000 MRELOAD failed, see logs for additional details";
    check(&fake, Role::Admin, &[("RELOAD", &[failed])]).await;
    fake.failure = Some(CommandError::PauseEnded);
    let ended = "E SERROR C57014 Mpause was ended before it was complete";
    check(&fake, Role::Admin, &[("PAUSE", &[ended])]).await;
}

#[tokio::test]
async fn a_stats_user_may_only_look() {
    let fake = databases();
    let no = refused("admin access needed");
    let no: &[&str] = &[&no];
    check(
        &fake,
        Role::Stats,
        &[
            (
                "SHOW VERSION",
                &["T version:25", "D PgBouncer 1.26.1", "C SHOW"],
            ),
            (
                "SET datestyle = 'ISO'",
                &["N SNOTICE C00000 MSET ignored", "C SET"],
            ),
            ("SET query_timeout = 1", no),
            ("SET foo = 1", no),
            ("RELOAD", no),
            ("PAUSE", no),
            ("RESUME nosuch", no),
            ("DISABLE", no),
            ("ENABLE one", no),
            ("RECONNECT", no),
            ("KILL", no),
            // CVE-2026-6667
            ("KILL_CLIENT 1", no),
            ("KILL_CLIENT x", no),
            ("WAIT_CLOSE", no),
            ("SHUTDOWN", no),
            ("SHUTDOWN WAIT_FOR_CLIENTS", no),
        ],
    )
    .await;
    assert!(fake.told().is_empty());
}

#[tokio::test]
async fn help_is_a_notice() {
    let fake = databases();
    let desk = Desk::new(Instant::now());
    with_console(&fake, &desk, user(Role::Stats, 1), async |mut client| {
        let answers = client.ask("SHOW HELP").await;
        assert_eq!(answers.len(), 2);
        assert!(
            answers[0].starts_with("N SNOTICE C00000 MConsole usage D\n\tSHOW "),
            "{answers:?}"
        );
        assert!(answers[0].contains("\n\tKILL_CLIENT id\n\t"));
        assert_eq!(answers[1], "C SHOW");
    })
    .await;
}

#[tokio::test]
async fn several_commands_in_one_query() {
    let fake = databases();
    let no_such = refused("no such database: x");
    let invalid = refused("invalid command 'RELOAD; foo', use SHOW HELP;");
    check(
        &fake,
        Role::Admin,
        &[
            ("", &["I"]),
            (";", &["I"]),
            ("-- ping", &["I"]),
            ("RELOAD; /* then */ PAUSE one", &["C RELOAD", "C PAUSE"]),
            ("RELOAD; PAUSE x; RELOAD", &["C RELOAD", &no_such]),
            ("RELOAD; foo", &[&invalid]),
        ],
    )
    .await;
    assert_eq!(fake.told(), ["reload", "pause Some(\"one\")", "reload"]);
}

#[tokio::test]
async fn pqexec_can_be_disallowed() {
    let fake = databases();
    Arc::make_mut(&mut fake.config.lock())
        .settings
        .disable_pqexec = true;
    let desk = Desk::new(Instant::now());
    let ending = with_console(&fake, &desk, user(Role::Admin, 1), async |mut client| {
        let answers = client.ask("SHOW VERSION").await;
        assert_eq!(answers, ["E SFATAL C08P01 MPQexec disallowed", "EOF"]);
    })
    .await;
    assert_eq!(ending.to_string(), "PQexec disallowed");
}

#[tokio::test]
async fn shutdown_says_nothing_more() {
    let fake = databases();
    let desk = Desk::new(Instant::now());
    let ending = with_console(&fake, &desk, user(Role::Admin, 1), async |mut client| {
        assert_eq!(client.ask("SHUTDOWN").await, ["EOF"]);
    })
    .await;
    assert_eq!(
        (ending, fake.told()),
        (Ending::Exit, vec!["shutdown Immediate".to_owned()])
    );
}

/// Lines of the log as (level, prefix, text).
#[derive(Clone, Default)]
struct Lines(Arc<parking_lot::Mutex<Vec<String>>>);

impl tracing::field::Visit for Lines {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
        self.0.lock().push(format!("{}={value:?}", field.name()));
    }
}

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Lines {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        let mut fields = Lines::default();
        event.record(&mut fields);
        let level = event.metadata().level();
        self.0
            .lock()
            .push(format!("{level} {}", fields.0.lock().join(" ")));
    }
}

#[tokio::test]
async fn what_the_log_says() {
    use tracing_subscriber::layer::SubscriberExt;
    crate::logs::keep_callsites_open();
    let lines = Lines::default();
    let subscriber = tracing_subscriber::registry().with(lines.clone());
    let _guard = tracing::subscriber::set_default(subscriber);
    let fake = databases();
    let not_found = refused("client not found");
    let failed = refused("SET failed");
    let script: &[(&str, &[&str])] = &[
        (
            "PAUSE one; RELOAD; SET timezone = 'x'",
            &[
                "C PAUSE",
                "C RELOAD",
                "N SNOTICE C00000 MSET ignored",
                "C SET",
            ],
        ),
        ("SHUTDOWN WAIT_FOR_CLIENTS", &["C SHUTDOWN"]),
        ("KILL_CLIENT 5", &[&not_found]),
        ("SET foo = 1", &[&failed]),
    ];
    check(&fake, Role::Admin, script).await;
    let expected = [
        "INFO message=PAUSE 'one' command issued",
        "INFO message=RELOAD command issued",
        "INFO message=SHUTDOWN WAIT_FOR_CLIENTS command issued",
        "INFO message=KILL_CLIENT '5' command issued",
        "ERROR message=client not found",
        "WARN message=pooler error: client not found who=C-0x1: pgbouncer/adm@127.0.0.1:41964",
        "ERROR message=unknown parameter: pgbouncer/foo",
        "ERROR message=SET failed",
        "WARN message=pooler error: SET failed who=C-0x1: pgbouncer/adm@127.0.0.1:41964",
    ];
    assert_eq!(*lines.0.lock(), expected);
}
