//! The extended protocol, message by message and by a real driver.

use tokio_postgres::types::Type;

use super::*;

/// Parse, Bind, Describe, Execute, Sync, as most drivers send them.
async fn prepared(client: &mut Client, text: &str, formats: &[u8], max_rows: u8) -> Vec<String> {
    client
        .send(b'P', format!("\0{text}\0\0\0").as_bytes())
        .await;
    client
        .send(b'B', &[b"\0\0\0\0\0\0", formats].concat())
        .await;
    client.send(b'D', b"P\0").await;
    client.send(b'E', &[0, 0, 0, 0, max_rows]).await;
    client.send(b'S', b"").await;
    client.answers().await
}

#[tokio::test]
async fn the_extended_protocol() {
    let fake = databases();
    let desk = Desk::new(Instant::now());
    with_console(&fake, &desk, user(Role::Admin, 1), async |mut client| {
        let shown = ["1", "2", "T version:25", "D PgBouncer 1.26.1", "C SHOW"];
        assert_eq!(
            prepared(&mut client, "SHOW VERSION", b"\0\0", 0).await,
            shown
        );
        assert_eq!(
            prepared(&mut client, "RELOAD;", b"\0\0", 1).await,
            ["1", "2", "n", "C RELOAD"]
        );
        assert_eq!(
            prepared(&mut client, "", b"\0\0", 0).await,
            ["1", "2", "n", "I"]
        );
        let ignored = ["1", "2", "n", "N SNOTICE C00000 MSET ignored", "C SET"];
        assert_eq!(
            prepared(&mut client, "SET TimeZone = 'x'", b"\0\0", 0).await,
            ignored
        );
        let lists = prepared(&mut client, "SHOW LISTS", b"\0\x02\0\0\0\x01", 0).await;
        assert_eq!(
            lists[2..4],
            ["T list:25|items:23:b", "D databases|\0\0\0\x01"]
        );
    })
    .await;
    assert_eq!(fake.told(), ["reload"]);
}

#[tokio::test]
async fn statements_and_portals_by_name() {
    let fake = databases();
    let desk = Desk::new(Instant::now());
    with_console(&fake, &desk, user(Role::Admin, 1), async |mut client| {
        client.send(b'P', b"s\0show state\0\0\x01\0\0\0\x17").await;
        client.send(b'D', b"Ss\0").await;
        client.send(b'H', b"").await;
        assert_eq!(client.message().await.as_deref(), Some("1"));
        assert_eq!(client.message().await.as_deref(), Some("t"));
        assert_eq!(client.message().await.as_deref(), Some("T key:25|value:25"));
        client.send(b'B', b"p\0s\0\0\0\0\0\0\0").await;
        // One row, the rest, and once more.
        for max_rows in [1, 0, 0] {
            client.send(b'E', &[b'p', 0, 0, 0, 0, max_rows]).await;
        }
        client.send(b'S', b"").await;
        let again = "E SERROR C55000 Mportal \"p\" cannot be run again";
        let expected = ["2", "D active|yes", "s", "D paused|no", "C SHOW", again];
        assert_eq!(client.answers().await, expected);
        client.send(b'C', b"Ss\0").await;
        client.send(b'C', b"Pp\0").await;
        client.send(b'D', b"Ss\0").await;
        client.send(b'S', b"").await;
        let gone = "E SERROR C26000 Mprepared statement \"s\" does not exist";
        assert_eq!(client.answers().await, ["3", "3", gone]);
    })
    .await;
}

#[tokio::test]
async fn after_an_error_everything_is_skipped_up_to_sync() {
    let fake = databases();
    let desk = Desk::new(Instant::now());
    with_console(&fake, &desk, user(Role::Admin, 1), async |mut client| {
        client.send(b'P', b"\0foo\0\0\0").await;
        client.query("RELOAD").await;
        client.send(b'H', b"").await;
        client.send(b'E', b"\0\0\0\0\0").await;
        client.send(b'S', b"").await;
        let invalid = refused("invalid command 'foo', use SHOW HELP;");
        assert_eq!(client.answers().await, [invalid]);
        assert_eq!(client.ask("RELOAD").await, ["C RELOAD"]);
    })
    .await;
    assert_eq!(fake.told(), ["reload"]);
}

#[tokio::test]
async fn a_command_of_a_portal_runs_at_most_once() {
    let fake = databases();
    let desk = Desk::new(Instant::now());
    with_console(&fake, &desk, user(Role::Stats, 1), async |mut client| {
        client.send(b'P', b"\0KILL\0\0\0").await;
        client.send(b'B', b"\0\0\0\0\0\0\0\0").await;
        client.send(b'E', b"\0\0\0\0\0").await;
        client.send(b'S', b"").await;
        assert_eq!(
            client.answers().await,
            ["1", "2", &refused("admin access needed")]
        );
        // The portal went with the Sync.
        client.send(b'E', b"\0\0\0\0\0").await;
        client.send(b'S', b"").await;
        assert_eq!(
            client.answers().await,
            ["E SERROR C34000 Mportal \"\" does not exist"]
        );
    })
    .await;
    assert!(fake.told().is_empty());
}

/// tokio-postgres prepares everything and asks for binary results.
#[tokio::test]
async fn a_driver_that_prepares_everything() {
    let fake = databases();
    let desk = Desk::new(Instant::now());
    let (mut ours, theirs) = tokio::io::duplex(PIPE);
    let console = async {
        let len = ours.read_u32().await.unwrap();
        let mut startup = vec![0; len as usize - 4];
        ours.read_exact(&mut startup).await.unwrap();
        serve(ours, &fake, &desk, user(Role::Admin, 1)).await
    };
    let client = async {
        let mut config = tokio_postgres::Config::new();
        let (client, connection) = config
            .user("adm")
            .connect_raw(theirs, tokio_postgres::NoTls)
            .await
            .unwrap();
        let queries = async move {
            let version = client.query_one("SHOW VERSION", &[]).await.unwrap();
            assert_eq!(version.get::<_, &str>("version"), "PgBouncer 1.26.1");
            let lists = client.query("SHOW LISTS", &[]).await.unwrap();
            assert_eq!(
                (lists[3].get::<_, &str>(0), lists[3].get::<_, i32>(1)),
                ("pools", 1)
            );
            let stats = client.query_one("SHOW STATS", &[]).await.unwrap();
            assert_eq!(stats.columns()[1].type_(), &Type::NUMERIC);
            assert_eq!(client.execute("PAUSE one", &[]).await.unwrap(), 0);
            let error = client.execute("PAUSE three", &[]).await.unwrap_err();
            assert_eq!(
                error.as_db_error().unwrap().message(),
                "no such database: three"
            );
            client.batch_execute("RESUME one; RECONNECT").await.unwrap();
        };
        tokio::join!(queries, connection).1.unwrap();
    };
    let (ending, ()) = tokio::join!(console, client);
    assert_eq!(ending, Ending::Terminated);
    assert_eq!(
        fake.told(),
        [
            "pause Some(\"one\")",
            "resume Some(\"one\")",
            "reconnect None"
        ]
    );
}
