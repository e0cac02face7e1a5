//! One test for each of PgBouncer's published vulnerabilities that a client could use, and their neighbours.

use std::time::{Duration, Instant};

use super::*;
use crate::proto::scram;

const SCRAM: &[(&str, &str)] = &[
    ("auth_type", "scram-sha-256"),
    ("client_login_timeout", "3"),
];

/// Begins a SCRAM login and reads the request for it.
async fn asked(pooler: &Pooler, user: &str, database: &str) -> Conn {
    let mut conn = pooler.raw().await;
    conn.send(&msg::startup(&[("user", user), ("database", database)]))
        .await;
    let frame = conn.frame().await;
    assert_eq!((frame.tag, frame.int()), (b'R', 10));
    conn
}

/// As [`asked`], then sends client-first and reads the challenge.
async fn challenged(pooler: &Pooler, user: &str, client: &scram::Client) -> (Conn, String) {
    let mut conn = asked(pooler, user, "p").await;
    conn.send(&msg::sasl_initial("SCRAM-SHA-256", &client.first()))
        .await;
    let frame = conn.frame().await;
    assert_eq!((frame.tag, frame.int()), (b'R', 11), "{frame:?}");
    let text = String::from_utf8_lossy(&frame.body[4..]).into_owned();
    (conn, text)
}

/// The connection must end with an error or in silence, never with a success.
async fn rejected(mut conn: Conn, what: &str) {
    let (frames, _) = conn.until_closed_anyhow().await;
    let accepted = frames
        .iter()
        .any(|f| f.is(b'Z') || f.is(b'R') && f.int() == 0);
    assert!(!accepted, "{what} was accepted: {frames:?}");
}

/// CVE-2026-107350: a second StartupMessage during SCRAM, after an unknown database, changed who was being authenticated.
#[tokio::test]
async fn identity_is_fixed_when_the_exchange_starts() {
    bounded(60, async {
        let (_, pooler) = stage(SCRAM).await;
        for database in ["nowhere", "p"] {
            let second = msg::startup(&[("user", "u_scram"), ("database", "p")]);
            let mut conn = asked(&pooler, "u_plain", database).await;
            conn.send(&second).await;
            rejected(conn, "a second startup").await;

            let client = scram::Client::new("u_plain_pw");
            let mut conn = asked(&pooler, "u_plain", database).await;
            conn.send(&msg::sasl_initial("SCRAM-SHA-256", &client.first()))
                .await;
            conn.frame().await;
            conn.send(&second).await;
            rejected(conn, "a second startup after client-first").await;
        }
        still_serves(&pooler).await;
    })
    .await;
}

/// CVE-2026-107349: an empty name in `options` looped for ever.
#[tokio::test]
async fn options_with_empty_names_end() {
    bounded(60, async {
        let (_, pooler) = stage(&[]).await;
        let started = Instant::now();
        for options in [
            "-c=",
            "-c =",
            "-c =x",
            "--=",
            "-c",
            "--",
            "-",
            "-c \\",
            "-c a",
            "\\",
            " -c = -c = ",
            "-c=-c=-c=",
        ] {
            let packet =
                msg::startup(&[("user", "u_trust"), ("database", "p"), ("options", options)]);
            let error = answer_to(&pooler, &packet).await.unwrap_or_default();
            assert!(
                error.starts_with("FATAL 08P01 unsupported"),
                "{options:?}: {error}"
            );
        }
        assert!(started.elapsed() < Duration::from_secs(10));
        still_serves(&pooler).await;
    })
    .await;
}

/// CVE-2026-107348 and CVE-2026-6668: declared lengths near 2^31.
#[tokio::test]
async fn huge_lengths_allocate_nothing() {
    bounded(120, async {
        let (_, pooler) = stage(SCRAM).await;
        still_serves(&pooler).await;
        let before = pooler.resident_bytes();
        let lengths = [
            0x0001_0000u32,
            0x4000_0000,
            0x7fff_fff0,
            0x7fff_ffff,
            0x8000_0000,
            0x8000_0001,
            0xffff_fff0,
            0xffff_ffff,
        ];
        let mut kept = Vec::new();
        for length in lengths {
            let mut first = pooler.raw().await;
            first
                .send(
                    &[
                        &length.to_be_bytes()[..],
                        &msg::PROTOCOL_3_0.to_be_bytes(),
                        &[b'x'; 500],
                    ]
                    .concat(),
                )
                .await;
            kept.push(first);
            let mut password = asked(&pooler, "u_scram", "p").await;
            password
                .send(&[&b"p"[..], &length.to_be_bytes(), &[b'x'; 500]].concat())
                .await;
            kept.push(password);
            let mut query = Conn::login(pooler.port, "u_scram", "p", Some("u_scram_pw")).await;
            query
                .send(&[&b"Q"[..], &length.to_be_bytes(), &[b'x'; 500]].concat())
                .await;
            kept.push(query);
            let mut parse = Conn::login(pooler.port, "u_scram", "p", Some("u_scram_pw")).await;
            parse
                .send(&[&b"P"[..], &length.to_be_bytes(), b"name\0SELECT "].concat())
                .await;
            kept.push(parse);
        }
        sleep_ms(500).await;
        let growth = pooler.resident_bytes().saturating_sub(before);
        assert!(growth < 32 << 20, "{growth} bytes for announced lengths");
        still_serves(&pooler).await;
        drop(kept);
        pooler.wait_pool_quiet("p", "u_scram").await;
    })
    .await;
}

#[tokio::test]
async fn impossible_lengths_end_the_connection() {
    bounded(60, async {
        let (_, pooler) = stage(&[]).await;
        for length in 0..4u32 {
            let mut client = pooler.client("u_trust", "p").await;
            client
                .send(&[&b"Q"[..], &length.to_be_bytes(), b"SELECT 1\0"].concat())
                .await;
            let (frames, _) = client.until_closed_anyhow().await;
            assert!(frames.iter().all(|f| f.is(b'E')), "{length}: {frames:?}");
        }
        for length in 0..8u32 {
            let packet = [
                &length.to_be_bytes()[..],
                &msg::PROTOCOL_3_0.to_be_bytes(),
                b"user\0u_trust\0\0",
            ]
            .concat();
            let error = answer_to_all_of(&pooler, &packet).await;
            assert!(
                error.is_none_or(|e| e.starts_with("FATAL 08P01")),
                "{length}"
            );
        }
        still_serves(&pooler).await;
        pooler.wait_pool_quiet("p", "u_trust").await;
    })
    .await;
}

/// CVE-2026-19888: client-final without a nonce, for users and for strangers.
#[tokio::test]
async fn a_final_without_a_nonce() {
    bounded(60, async {
        let (_, pooler) = stage(SCRAM).await;
        for user in ["u_scram", "stranger"] {
            for last in [
                "c=biws,p=AAAA",
                "c=biws",
                "",
                "p=AAAA",
                "c=biws,r=",
                "c=biws,r=,p=",
                "r=x,p=AAAA",
                ",",
                "c=biws,,p=AAAA",
            ] {
                let (mut conn, _) = challenged(&pooler, user, &scram::Client::new("x")).await;
                conn.send(&msg::sasl_response(last)).await;
                rejected(conn, last).await;
            }
        }
        still_serves(&pooler).await;
    })
    .await;
}

/// CVE-2026-6664: malformed SCRAM packets of every kind.
#[tokio::test]
async fn malformed_first_messages() {
    bounded(60, async {
        let (_, pooler) = stage(SCRAM).await;
        let long = format!("n,,n=,r={}", "x".repeat(60_000));
        let firsts = [
            "",
            "n",
            "n,",
            "n,,",
            "n,,r=",
            "n,,n=",
            "n,,n=,r=",
            "n,,r=abc",
            "n,a=other,n=,r=abc",
            "p=tls-unique,,n=,r=abc",
            "x,,n=,r=abc",
            "n,,m=ext,n=,r=abc",
            "n,,n=,r=a\u{7f}b",
            "n,,n=,r=a\0b",
            &long,
            "y,,n=,r=",
            "n,,n=,x=abc",
        ];
        for first in firsts {
            let mut conn = asked(&pooler, "u_scram", "p").await;
            conn.send(&msg::sasl_initial("SCRAM-SHA-256", first)).await;
            // A first message that is merely odd may still be challenged; then the proof fails.
            conn.send(&msg::sasl_response("c=biws,r=abc,p=AAAA")).await;
            rejected(conn, &first[..first.len().min(40)]).await;
        }
        let bodies: [&[u8]; 9] = [
            b"",
            b"\0",
            b"SCRAM-SHA-256",
            b"SCRAM-SHA-256\0",
            b"SCRAM-SHA-256\0\0\0",
            b"SCRAM-SHA-256\0\xff\xff\xff\xff",
            b"SCRAM-SHA-256\0\x7f\xff\xff\xffn,,n=,r=abc",
            b"SCRAM-SHA-256\0\0\0\0\x03n,,n=,r=abc",
            b"SCRAM-SHA-256-PLUS\0\0\0\0\x0cn,,n=,r=abcd",
        ];
        for body in bodies {
            let mut conn = asked(&pooler, "u_scram", "p").await;
            conn.send(&msg::typed(b'p', body)).await;
            conn.send(&msg::sasl_response("c=biws,r=abc,p=AAAA")).await;
            rejected(conn, &body.escape_ascii().to_string()).await;
        }
        still_serves(&pooler).await;
    })
    .await;
}

/// Every mutilation of a valid client-final is refused; the untouched one is accepted.
#[tokio::test]
async fn mutilated_proofs() {
    bounded(120, async {
        let (_, pooler) = stage(SCRAM).await;
        for round in 0..40usize {
            let mut client = scram::Client::new("u_scram_pw");
            let (mut conn, challenge) = challenged(&pooler, "u_scram", &client).await;
            let mut last = client.last(&challenge).into_bytes();
            let at = round * 7919 % last.len();
            match round % 4 {
                0 => last[at] = last[at].wrapping_add(1),
                1 => drop(last.remove(at)),
                2 => last.truncate(at),
                _ => last.insert(at, b'='),
            }
            conn.send(&msg::typed(b'p', &last)).await;
            rejected(conn, &last.escape_ascii().to_string()).await;
        }
        let mut client = scram::Client::new("u_scram_pw");
        let (mut conn, challenge) = challenged(&pooler, "u_scram", &client).await;
        conn.send(&msg::sasl_response(&client.last(&challenge)))
            .await;
        assert_eq!(conn.frame().await.int(), 12);
        conn.authenticate("u_scram", None).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_proof_cannot_be_used_again() {
    bounded(60, async {
        let (_, pooler) = stage(SCRAM).await;
        let mut client = scram::Client::new("u_scram_pw");
        let (mut conn, challenge) = challenged(&pooler, "u_scram", &client).await;
        let proof = client.last(&challenge);
        conn.send(&msg::sasl_response(&proof)).await;
        assert_eq!(conn.frame().await.int(), 12);
        let (mut again, _) = challenged(&pooler, "u_scram", &client).await;
        again.send(&msg::sasl_response(&proof)).await;
        rejected(again, "an old proof").await;
    })
    .await;
}

/// Anything but the expected message while a password is awaited.
#[tokio::test]
async fn other_messages_during_a_login() {
    bounded(60, async {
        for method in ["plain", "md5", "scram-sha-256"] {
            let (_, pooler) = stage(&[("auth_type", method)]).await;
            let messages = [
                msg::query("SELECT 1"),
                msg::parse("", "SELECT 1", &[]),
                msg::sync(),
                msg::typed(b'p', b""),
                msg::typed(b'p', b"no terminator"),
                msg::typed(b'p', &[b'x'; 70_000]),
                msg::typed(b'Z', b"I"),
                msg::typed(b'R', &[0; 4]),
                msg::ssl_request(),
                msg::cancel(&[0; 8]),
            ];
            for message in messages {
                let mut conn = pooler.raw().await;
                conn.send(&msg::startup(&[("user", "u_plain"), ("database", "p")]))
                    .await;
                assert!(conn.frame().await.is(b'R'));
                conn.send(&message).await;
                conn.send(&msg::query("SELECT 1")).await;
                conn.shut_down_writing().await;
                rejected(
                    conn,
                    &message[..message.len().min(30)].escape_ascii().to_string(),
                )
                .await;
            }
            still_serves(&pooler).await;
        }
    })
    .await;
}

/// A query sent behind the password, before the answer: waits for the login, or is lost with it.
#[tokio::test]
async fn queries_ahead_of_the_welcome() {
    bounded(60, async {
        let (_, pooler) = stage(&[("auth_type", "plain")]).await;
        let ahead = |password: &str| {
            [
                msg::startup(&[("user", "u_plain"), ("database", "p")]),
                msg::password(password),
                msg::query("SELECT 'ahead'"),
            ]
            .concat()
        };
        let mut wrong = pooler.raw().await;
        wrong.send(&ahead("wrong")).await;
        let frames = wrong.until_closed_anyhow().await.0;
        assert!(!frames.iter().any(|f| f.is(b'D')), "{frames:?}");
        let mut right = pooler.raw().await;
        right.send(&ahead("u_plain_pw")).await;
        right.frame().await;
        right.authenticate("u_plain", None).await.unwrap();
        right.welcome().await.unwrap();
        assert_eq!(right.until_ready().await.value(), "ahead");
    })
    .await;
}

/// Bytes without sense, as a first packet and after a login; the seeds are fixed.
#[tokio::test]
async fn noise() {
    bounded(120, async {
        let (_, pooler) = stage(&[("client_login_timeout", "2")]).await;
        let mut state = 0x9E37_79B9_7F4A_7C15u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for round in 0..300 {
            let bytes: Vec<u8> = (0..random() % 200).map(|_| random() as u8).collect();
            let mut conn = if round % 2 == 0 {
                pooler.raw().await
            } else {
                pooler.client("u_trust", "p").await
            };
            conn.send(&bytes).await;
            if round % 2 == 1 {
                // Typed noise: a plausible tag and length with nonsense inside.
                let tag = b"QPBDECSHFdcfpX"[(random() % 14) as usize];
                conn.send(&msg::typed(tag, &bytes)).await;
            }
            conn.shut_down_writing().await;
            conn.until_closed_anyhow().await;
        }
        still_serves(&pooler).await;
        pooler.wait_pool_quiet("p", "u_trust").await;
    })
    .await;
}

/// Messages whose inside does not fit their length, in a working session: PostgreSQL's error or the pooler's, then the next one works.
#[tokio::test]
async fn malformed_messages_of_a_session() {
    bounded(60, async {
        let (_, pooler) = stage(&[]).await;
        let bodies: [(u8, &[u8]); 12] = [
            (b'P', b""),
            (b'P', b"name"),
            (b'P', b"name\0SELECT 1"),
            (b'P', b"name\0SELECT 1\0\xff\xff"),
            (b'B', b""),
            (b'B', b"portal"),
            (b'B', b"\0name"),
            (b'B', b"\0\0\xff\xff\xff\xff"),
            (b'D', b""),
            (b'D', b"Sname"),
            (b'C', b"X\0"),
            (b'E', b"\0"),
        ];
        for (tag, body) in bodies {
            let mut client = pooler.client("u_trust", "p").await;
            client
                .send(&[msg::typed(tag, body), msg::sync(), msg::query("SELECT 1")].concat())
                .await;
            let first = client.next_frame().await;
            let what = format!("{} {:?}", char::from(tag), body.escape_ascii().to_string());
            assert!(
                first.as_ref().is_none_or(|f| f.is(b'E')),
                "{what}: {first:?}"
            );
        }
        still_serves(&pooler).await;
        pooler.wait_pool_quiet("p", "u_trust").await;
    })
    .await;
}
