//! Every kind of first packet.

use super::*;
use crate::proto::Frame;

const NAMES: [(&str, &str); 2] = [("user", "u_trust"), ("database", "p")];

#[tokio::test]
async fn newer_protocols_are_negotiated_down() {
    bounded(60, async {
        let (_, pooler) = stage(&[]).await;
        let minor = |n: i32| msg::PROTOCOL_3_0 + n;
        let with_option = [&NAMES[..], &[("_pq_.fancy", "1"), ("_pq_.other", "2")]].concat();
        type Case<'a> = (i32, &'a [(&'a str, &'a str)], &'a [&'a str]);
        let cases: [Case<'_>; 4] = [
            (minor(1), &NAMES, &[]),
            (minor(2), &NAMES, &[]),
            (minor(9999), &NAMES, &[]),
            (minor(0), &with_option, &["_pq_.fancy", "_pq_.other"]),
        ];
        for (version, params, refused) in cases {
            let mut conn = pooler.raw().await;
            conn.send(&msg::startup_version(version, params)).await;
            let frame = conn.frame().await;
            let mut expected = [
                msg::PROTOCOL_3_0.to_be_bytes(),
                (refused.len() as i32).to_be_bytes(),
            ]
            .concat();
            refused
                .iter()
                .for_each(|name| expected.extend([name.as_bytes(), b"\0"].concat()));
            assert_eq!(
                (frame.tag, &frame.body),
                (b'v', &expected),
                "version {version:x}"
            );
            conn.authenticate("u_trust", None).await.unwrap();
            conn.welcome().await.unwrap();
            assert_eq!(conn.ok("SELECT 1").await.value(), "1");
        }
    })
    .await;
}

#[tokio::test]
async fn malformed_parameters_are_refused() {
    bounded(60, async {
        let (_, pooler) = stage(&[]).await;
        let raw = |body: &[u8]| msg::untyped(msg::PROTOCOL_3_0, body);
        let layout = "FATAL 08P01 invalid startup packet layout: expected terminator as last byte";
        let nameless = "FATAL 08P01 no username supplied";
        let cases: [(Vec<u8>, &str); 7] = [
            (
                msg::untyped(131_072, b"user\0x\0\0"),
                "FATAL 08P01 old V2 protocol not supported",
            ),
            (raw(b"user\0u_trust\0database\0p\0"), layout),
            (raw(b"user\0u_trust\0database\0p\0\0junk"), layout),
            (raw(b"user\0u_trust\0database"), layout),
            (raw(b"\0"), nameless),
            (raw(b"database\0p\0\0"), nameless),
            (raw(b"user\0\0database\0p\0\0"), nameless),
        ];
        for (packet, error) in cases {
            assert_eq!(
                answer_to(&pooler, &packet).await.as_deref(),
                Some(error),
                "{}",
                packet.escape_ascii()
            );
        }
        still_serves(&pooler).await;
    })
    .await;
}

#[tokio::test]
async fn unknown_packets_are_refused() {
    bounded(60, async {
        let (_, pooler) = stage(&[]).await;
        let too_long = [
            &65_536i32.to_be_bytes()[..],
            &msg::PROTOCOL_3_0.to_be_bytes(),
            &[b'x'; 100],
        ]
        .concat();
        let packets = [
            msg::untyped(0x0004_0000, b"user\0x\0\0"),
            msg::untyped(80_877_199, b""),
            msg::untyped(0, b""),
            too_long,
        ];
        for packet in packets {
            let error = answer_to(&pooler, &packet).await.unwrap_or_default();
            assert!(
                error.starts_with("FATAL 08P01 bad packet header: '"),
                "{error} for {}",
                packet[..20.min(packet.len())].escape_ascii()
            );
        }
        still_serves(&pooler).await;
    })
    .await;
}

#[tokio::test]
async fn typed_messages_before_startup_are_refused() {
    bounded(60, async {
        let (_, pooler) = stage(&[]).await;
        let error = answer_to(&pooler, &msg::password("secret")).await;
        assert_eq!(
            error.as_deref(),
            Some("FATAL 08P01 client password pkt before startup packet")
        );
        for message in [
            msg::query("SELECT 1"),
            msg::sync(),
            msg::terminate(),
            msg::copy_data(b"x"),
        ] {
            assert_eq!(
                answer_to_all_of(&pooler, &message).await,
                None,
                "{}",
                message.escape_ascii()
            );
        }
        still_serves(&pooler).await;
    })
    .await;
}

#[tokio::test]
async fn the_database_defaults_to_the_user() {
    bounded(60, async {
        let cluster = Cluster::shared();
        let mut ini = Ini::new();
        ini.database("u_trust", format!("{} dbname=postgres", cluster.address()));
        let pooler = ini.start().await;
        for params in [
            &[("user", "u_trust")][..],
            &[("user", "u_trust"), ("database", "")],
        ] {
            let mut conn = pooler.raw().await;
            conn.log_in_with(params, None).await;
            assert_eq!(
                conn.ok("SELECT current_database()").await.value(),
                "postgres"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn silence_is_closed_and_not_logged() {
    bounded(60, async {
        let (_, pooler) = stage(&[("client_login_timeout", "1")]).await;
        drop(pooler.raw().await);
        let mut patient = pooler.raw().await;
        let frames = patient.until_closed().await;
        assert!(
            frames
                .iter()
                .all(|f| f.error_text() == "FATAL 08P01 client_login_timeout"),
            "{frames:?}"
        );
        assert!(!pooler.log().contains("unexpected eof"), "{}", pooler.log());
    })
    .await;
}

#[tokio::test]
async fn long_startup_packets_are_fine_up_to_the_limit() {
    bounded(60, async {
        let (_, pooler) = stage(&[("ignore_startup_parameters", "padding")]).await;
        let padding = "x".repeat(60_000);
        let mut conn = pooler.raw().await;
        conn.log_in_with(&[NAMES[0], NAMES[1], ("padding", &padding)], None)
            .await;
        assert_eq!(conn.ok("SELECT 1").await.value(), "1");
        let many: Vec<(&str, &str)> = NAMES
            .into_iter()
            .chain(std::iter::repeat_n(("padding", "x"), 3_000))
            .collect();
        let mut conn = pooler.raw().await;
        conn.log_in_with(&many, None).await;
        let mut in_pieces = pooler.raw().await;
        for byte in msg::startup(&NAMES) {
            in_pieces.send(&[byte]).await;
        }
        in_pieces.authenticate("u_trust", None).await.unwrap();
        in_pieces.welcome().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn long_names_are_refused() {
    bounded(60, async {
        let (_, pooler) = stage(&[]).await;
        let long = "n".repeat(500);
        let error = answer_to(
            &pooler,
            &msg::startup(&[("user", &long), ("database", "p")]),
        )
        .await
        .unwrap();
        assert_eq!(error, "FATAL 08P01 username too long");
        let error = answer_to(
            &pooler,
            &msg::startup(&[("user", "u_trust"), ("database", &long)]),
        )
        .await
        .unwrap();
        assert!(error.starts_with("FATAL 08P01"), "{error}");
        still_serves(&pooler).await;
    })
    .await;
}

#[tokio::test]
async fn replication_is_passed_through() {
    bounded(60, async {
        let (db, pooler) = stage(&[]).await;
        let mut conn = pooler.raw().await;
        conn.log_in_with(
            &[
                ("user", "postgres"),
                ("database", "p"),
                ("replication", "database"),
            ],
            None,
        )
        .await;
        let reply = conn.ok("IDENTIFY_SYSTEM").await;
        assert_eq!(reply.rows()[0][3].as_deref(), Some(db.as_str()));
        let clients = pooler.show("CLIENTS").await;
        assert!(
            clients
                .find(&[("user", "postgres"), ("replication", "logical")])
                .is_some()
        );
        let mut normal = pooler.client("postgres", "p").await;
        assert!(
            normal.query("IDENTIFY_SYSTEM").await.error_text().is_some(),
            "its server is no one else's"
        );
        conn.close().await;
        normal.close().await;
        let gone = || async { Cluster::shared().sessions(&db).await <= 1 };
        wait_until("the replication server to be closed", gone).await;
    })
    .await;
}

/// Nobody listens to what comes after a goodbye, or to a second start.
#[tokio::test]
async fn a_second_startup_is_no_message() {
    bounded(60, async {
        let (_, pooler) = stage(&[]).await;
        let mut conn = pooler.client("u_trust", "p").await;
        conn.send(&msg::startup(&[("user", "postgres"), ("database", "p")]))
            .await;
        let (frames, _) = conn.until_closed_anyhow().await;
        assert!(frames.iter().all(|f: &Frame| f.is(b'E')), "{frames:?}");
        let mut twice = pooler.raw().await;
        let startup = msg::startup(&NAMES);
        twice.send(&[startup.clone(), startup].concat()).await;
        let (frames, _) = twice.until_closed_anyhow().await;
        assert!(!frames.iter().any(|f| f.is(b'D')), "{frames:?}");
        still_serves(&pooler).await;
    })
    .await;
}
