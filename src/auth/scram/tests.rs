//! Both roles, against the RFC's example, against PostgreSQL's verifiers, and against each other.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;

const SEED: [u8; 32] = [7; 32];

fn nonce(text: &str) -> Nonce {
    Nonce::parse(text).unwrap()
}

fn known(verifier: ScramVerifier) -> ServerSecret {
    ServerSecret::known(Arc::new(verifier))
}

fn pencil() -> ScramVerifier {
    ScramVerifier::derive(b"pencil", b"0123456789abcdef", 2)
}

fn mock(user: &[u8]) -> ServerSecret {
    ServerSecret::mock(user, &MockSeed::from_bytes(SEED), 2)
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn begun(secret: ServerSecret) -> (Vec<u8>, ServerAwaitingProof) {
    ServerExchange::new(secret, nonce("server"))
        .on_client_first(b"n,,n=,r=client")
        .unwrap()
}

fn first_error(message: &[u8]) -> ClientError {
    ServerExchange::new(known(pencil()), nonce("server"))
        .on_client_first(message)
        .unwrap_err()
}

fn final_error(secret: ServerSecret, message: &[u8]) -> ClientError {
    begun(secret).1.on_client_final(message).unwrap_err()
}

fn server_first_error(message: &[u8]) -> ServerError {
    ClientExchange::from_password(b"pencil", nonce("client"))
        .on_server_first(message)
        .unwrap_err()
}

/// Both roles to the end, or to the first error of the server role.
fn exchange(
    client: ClientExchange,
    secret: ServerSecret,
) -> Result<(DerivedKeys, ScramKeys), ClientError> {
    let server = ServerExchange::new(secret, nonce("server"));
    let (first, server) = server.on_client_first(&client.first())?;
    let (proof, client) = client.on_server_first(&first).unwrap();
    let (last, keys) = server.on_client_final(&proof)?;
    Ok((client.on_server_final(&last).unwrap(), keys))
}

mod rfc_7677 {
    use super::*;

    const CLIENT_NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
    const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const SERVER_FIRST: &str =
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const CLIENT_FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
        p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    const SERVER_FINAL: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    fn salt() -> Vec<u8> {
        message::decode(b"W22ZaJ0SNY7soEsUEjb6gQ==", SALT_BYTES_MAX).unwrap()
    }

    #[test]
    fn server_role() {
        let verifier = ScramVerifier::derive(b"pencil", &salt(), 4096);
        let server = ServerExchange::new(known(verifier), nonce(SERVER_NONCE));
        let client_first = format!("n,,n=user,r={CLIENT_NONCE}");
        let (first, server) = server.on_client_first(client_first.as_bytes()).unwrap();
        assert_eq!(text(&first), SERVER_FIRST);
        let (last, keys) = server.on_client_final(CLIENT_FINAL.as_bytes()).unwrap();
        assert_eq!(text(&last), SERVER_FINAL);
        assert_eq!(keys, ScramKeys::derive(b"pencil", &salt(), 4096));
    }

    /// The RFC's client says `n=user`; ours, like libpq, says `n=`, so the proofs differ and the server role must judge.
    #[test]
    fn client_role() {
        let client = ClientExchange::from_password(b"pencil", nonce(CLIENT_NONCE));
        assert_eq!(text(&client.first()), format!("n,,n=,r={CLIENT_NONCE}"));
        let verifier = ScramVerifier::derive(b"pencil", &salt(), 4096);
        let server = ServerExchange::new(known(verifier), nonce(SERVER_NONCE));
        let (first, server) = server.on_client_first(&client.first()).unwrap();
        assert_eq!(text(&first), SERVER_FIRST);
        let (proof, client) = client.on_server_first(&first).unwrap();
        let (last, _) = server.on_client_final(&proof).unwrap();
        assert!(client.on_server_final(&last).is_ok());
    }
}

/// Verifiers that PostgreSQL 15 stored for these passwords.
mod postgresql {
    use super::*;

    const STORED: [(&str, &str); 5] = [
        (
            "pencil",
            "SCRAM-SHA-256$4096:aTPjoEwqdjNbwKcvT9uVeA==$beGXrWK8Zb9mGvBpLeHwW2NfoCAQEVALDxQ5XWOgwjk=:U2UHAGS4SOHtMgEsCXvatGTOq1Aq1eOC+bgGQPId4/0=",
        ),
        (
            "\u{a0}a\u{ad}b\u{2168}",
            "SCRAM-SHA-256$4096:4z/iZKP9HvXRBIxKN9LU7Q==$RB6FevFPJ7kRJMDCURQHEbMVZtz+V51AK5hxB2dL1hs=:0JSq0vYUDlVPQ7lDyoi1zJlQVqTdri4CFJ/hx1rY9ws=",
        ),
        (
            "a\x07b",
            "SCRAM-SHA-256$4096:YKd91h6YQpeWJqGuFiEVUA==$vSJAEstddsLcNZzKDwFK2lFX39gz9JuOB7qMDov7ckY=:/+AdwnH1yPAngBYspMVZI8ypxJGAjQRkmd/7NP993K0=",
        ),
        (
            "пароль µ ½",
            "SCRAM-SHA-256$4096:qxgfstY/YKJeDx2xJtS59A==$jcuzpso3mvpJNQn7X6T0Xkvf71Z2uSwHxR+DtTkj62w=:ysSVqCJW0GLZ3o221mNNhuZ82bDbwnLABLzR/Ol5WOs=",
        ),
        (
            "SCRAM-SHA-256$4096:nope",
            "SCRAM-SHA-256$4096:p1WLnek9OtCVob6IXjsvVw==$WfjAGzNtY9nC1LfUFUIB5gJOWLLm4GW1C5CRiY8qAyI=:FlWyNo7pJNbr/F1cYsmbakhPmcdnUfXwmLaZ0rrJ1lY=",
        ),
    ];

    #[test]
    fn verifiers_are_read_written_and_derived_alike() {
        for (password, stored) in STORED {
            let verifier = ScramVerifier::parse(stored.as_bytes()).unwrap();
            assert_eq!(verifier.to_string(), stored);
            let derived =
                ScramVerifier::derive(password.as_bytes(), &verifier.salt, verifier.iterations());
            assert_eq!(derived.to_string(), stored, "{password:?}");
            assert!(verifier.matches_password(password.as_bytes()));
            assert!(!verifier.matches_password(b"another"));
        }
    }
}

#[test]
fn damaged_verifiers_are_not_read() {
    let stored = pencil().to_string();
    assert!(ScramVerifier::parse(stored.as_bytes()).is_some());
    for end in 0..stored.len() {
        assert!(ScramVerifier::parse(&stored.as_bytes()[..end]).is_none());
    }
    for (from, to) in [
        ("$2:", "$0:"),
        ("$2:", "$02:"),
        ("$2:", "$2147483648:"),
        ("$2:", "$:"),
        ("256$", "256-PLUS$"),
    ] {
        assert!(
            ScramVerifier::parse(stored.replace(from, to).as_bytes()).is_none(),
            "{to}"
        );
    }
    let empty_salt = "SCRAM-SHA-256$1:$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    assert!(ScramVerifier::parse(empty_salt.as_bytes()).is_none());
}

#[test]
fn debug_shows_no_keys() {
    assert_eq!(
        format!("{:?}", pencil()),
        "ScramVerifier { iterations: 2, .. }"
    );
    assert_eq!(
        format!("{:?}", ScramKeys::derive(b"pencil", b"salt", 1)),
        "ScramKeys(..)"
    );
    assert_eq!(format!("{:?}", MockSeed::from_bytes(SEED)), "MockSeed(..)");
}

#[test]
fn both_flags_without_channel_binding_are_accepted() {
    for (flag, binding) in [("n", "biws"), ("y", "eSws")] {
        let server = ServerExchange::new(known(pencil()), nonce("server"));
        let first = format!("{flag},,n=ignored,r=client,x=unknown");
        let (_, server) = server.on_client_first(first.as_bytes()).unwrap();
        let message =
            format!("c={binding},r=clientserver,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
        assert_eq!(
            server.on_client_final(message.as_bytes()).unwrap_err(),
            ClientError::Proof
        );
    }
}

#[test]
fn what_a_client_may_not_begin_with() {
    let cases = [
        ("", ClientError::Malformed),
        ("n", ClientError::Malformed),
        ("n,,", ClientError::Malformed),
        ("x,,n=,r=c", ClientError::Malformed),
        (
            "p=tls-server-end-point,,n=,r=c",
            ClientError::ChannelBindingRequested,
        ),
        ("n,a=root,n=,r=c", ClientError::AuthorizationId),
        ("n,,m=x,n=,r=c", ClientError::MandatoryExtension),
        ("n,,r=c", ClientError::Malformed),
        ("n,,n=", ClientError::Malformed),
        ("n,,n=,", ClientError::Malformed),
        ("n,,n=,r=", ClientError::Nonce),
        ("n,,n=,r=a b", ClientError::Nonce),
        ("n,,n=,r=a\0", ClientError::Nonce),
        ("n,,n=,r=é", ClientError::Nonce),
        ("n,,n=,r=c,", ClientError::Malformed),
        ("n,,n=,r=c,1=x", ClientError::Malformed),
    ];
    for (message, error) in cases {
        assert_eq!(first_error(message.as_bytes()), error, "{message:?}");
    }
    let long = |bytes: usize| format!("n,,n=,r={}", "c".repeat(bytes));
    assert_eq!(
        first_error(long(NONCE_BYTES_MAX + 1).as_bytes()),
        ClientError::Nonce
    );
    assert_eq!(
        first_error(long(MESSAGE_BYTES_MAX).as_bytes()),
        ClientError::Malformed
    );
}

const ZERO_PROOF: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

#[test]
fn what_a_client_may_not_end_with() {
    let cases = [
        (
            format!("c=biws,r=clientserver,p={ZERO_PROOF}"),
            ClientError::Proof,
        ),
        (
            format!("c=biws,r=clientserver,x=y,p={ZERO_PROOF}"),
            ClientError::Proof,
        ),
        (
            format!("c=eSws,r=clientserver,p={ZERO_PROOF}"),
            ClientError::ChannelBindingMismatch,
        ),
        (
            format!("c=!!!!,r=clientserver,p={ZERO_PROOF}"),
            ClientError::ChannelBindingMismatch,
        ),
        (
            format!("c=,r=clientserver,p={ZERO_PROOF}"),
            ClientError::ChannelBindingMismatch,
        ),
        (
            format!("c=biws,r=client,p={ZERO_PROOF}"),
            ClientError::NonceMismatch,
        ),
        (
            format!("c=biws,r=,p={ZERO_PROOF}"),
            ClientError::NonceMismatch,
        ),
        (
            format!("r=clientserver,c=biws,p={ZERO_PROOF}"),
            ClientError::Malformed,
        ),
        (
            format!("c=biws,r=clientserver,p={ZERO_PROOF},x=y"),
            ClientError::Malformed,
        ),
        ("c=biws,r=clientserver".into(), ClientError::Malformed),
        ("c=biws,r=clientserver,p=".into(), ClientError::Malformed),
        (
            "c=biws,r=clientserver,p=AAAA".into(),
            ClientError::Malformed,
        ),
        ("c=biws,r=clientserver,p=!".into(), ClientError::Malformed),
        (
            format!("c=biws,r=clientserver,p={ZERO_PROOF}AAAA"),
            ClientError::Malformed,
        ),
        (String::new(), ClientError::Malformed),
    ];
    for (message, error) in cases {
        assert_eq!(
            final_error(known(pencil()), message.as_bytes()),
            error,
            "{message:?}"
        );
        assert_eq!(
            final_error(mock(b"nobody"), message.as_bytes()),
            error,
            "{message:?}"
        );
    }
}

#[test]
fn cve_2026_19888_client_final_without_a_nonce_fails_cleanly() {
    let without = [
        format!("c=biws,p={ZERO_PROOF}"),
        "c=biws".into(),
        format!("p={ZERO_PROOF}"),
        "c=biws,r".into(),
    ];
    for message in without {
        assert_eq!(
            final_error(known(pencil()), message.as_bytes()),
            ClientError::Malformed
        );
        assert_eq!(
            final_error(mock(b"nobody"), message.as_bytes()),
            ClientError::Malformed
        );
    }
}

#[test]
fn cve_2026_107350_identity_is_fixed_when_the_exchange_starts() {
    // A start-up packet for another user, where the proof is due, is just a malformed proof …
    let startup = b"\0\0\0\x28\0\x03\0\0user\0root\0database\0nowhere\0\0";
    assert_eq!(
        final_error(known(pencil()), startup),
        ClientError::Malformed
    );
    // … and a name inside SCRAM changes nothing about whose secret is checked.
    let server = ServerExchange::new(known(pencil()), nonce("server"));
    let (first, _) = server.on_client_first(b"n,,n=root,r=client").unwrap();
    assert_eq!(first, begun(known(pencil())).0);
}

#[test]
fn cve_2026_6669_iterations_from_a_server_are_bounded() {
    let with = |iterations: &str| format!("r=clientserver,s=c2FsdA==,i={iterations}");
    for iterations in [
        "0",
        "1000001",
        "4294967295",
        "4294967297",
        "99999999999999999999",
        "-1",
        "",
    ] {
        assert_eq!(
            server_first_error(with(iterations).as_bytes()),
            ServerError::Iterations,
            "{iterations}"
        );
    }
    let client = ClientExchange::from_password(b"pencil", nonce("client"));
    assert!(client.on_server_first(with("1").as_bytes()).is_ok());
    // Keys need no derivation, and are held to the same rule.
    let keys = ScramKeys::derive(b"pencil", b"salt", 1);
    let client = ClientExchange::from_keys(keys.clone(), nonce("client"));
    assert!(client.on_server_first(with("1000000").as_bytes()).is_ok());
    let client = ClientExchange::from_keys(keys, nonce("client"));
    assert!(client.on_server_first(with("1000001").as_bytes()).is_err());
}

#[test]
fn cve_2026_6664_malformed_scram_packets_fail_cleanly() {
    let attribute = |length: usize| [b"n,,n=,r=c,x=".as_slice(), &vec![b'x'; length]].concat();
    assert!(
        ServerExchange::new(known(pencil()), nonce("s"))
            .on_client_first(&attribute(4000))
            .is_ok()
    );
    assert_eq!(
        first_error(&attribute(MESSAGE_BYTES_MAX)),
        ClientError::Malformed
    );
    assert_eq!(first_error(&attribute(1 << 20)), ClientError::Malformed);
    let long_final = [b"c=biws,r=".as_slice(), &vec![b'x'; 1 << 20]].concat();
    assert_eq!(
        final_error(known(pencil()), &long_final),
        ClientError::Malformed
    );
    let salt = format!("r=clientserver,s={},i=1", "A".repeat(1 << 20));
    assert_eq!(server_first_error(salt.as_bytes()), ServerError::Malformed);
}

#[test]
fn cve_2026_6665_a_hostile_server_nonce_is_bounded() {
    let with = |nonce: &str| format!("r={nonce},s=c2FsdA==,i=1");
    let long = |bytes: usize| format!("client{}", "s".repeat(bytes));
    for bad in [
        "",
        "client",
        "clien",
        "server",
        "clientré",
        "client\0",
        "client r",
        &long(NONCE_PAIR_BYTES_MAX),
    ] {
        assert_eq!(
            server_first_error(with(bad).as_bytes()),
            ServerError::Nonce,
            "{bad:?}"
        );
    }
    let client = ClientExchange::from_password(b"pencil", nonce("client"));
    let (proof, _) = client
        .on_server_first(with(&long(NONCE_PAIR_BYTES_MAX - 6)).as_bytes())
        .unwrap();
    assert!(proof.len() < NONCE_PAIR_BYTES_MAX + 64);
}

#[test]
fn what_a_server_may_not_begin_with() {
    let long_salt = format!("r=clientserver,s={},i=1", "AAAA".repeat(400));
    let cases = [
        ("", ServerError::Malformed),
        ("r=clientserver", ServerError::Malformed),
        ("r=clientserver,s=c2FsdA==", ServerError::Malformed),
        (
            "m=x,r=clientserver,s=c2FsdA==,i=1",
            ServerError::MandatoryExtension,
        ),
        ("r=clientserver,i=1,s=c2FsdA==", ServerError::Malformed),
        ("r=clientserver,s=,i=1", ServerError::Salt),
        ("r=clientserver,s=c2F,i=1", ServerError::Salt),
        ("r=clientserver,s=c2FsdA==,i=1,", ServerError::Malformed),
        (&long_salt, ServerError::Salt),
    ];
    for (message, error) in cases {
        assert_eq!(server_first_error(message.as_bytes()), error, "{message:?}");
    }
}

#[test]
fn what_a_server_may_not_end_with() {
    let awaiting = || {
        let client = ClientExchange::from_password(b"pencil", nonce("client"));
        client
            .on_server_first(b"r=clientserver,s=c2FsdA==,i=1")
            .unwrap()
            .1
    };
    let cases = [
        ("".into(), ServerError::Malformed),
        ("v=".into(), ServerError::Malformed),
        ("v=AAAA".into(), ServerError::Malformed),
        ("x=y".into(), ServerError::Malformed),
        (format!("v={ZERO_PROOF},"), ServerError::Malformed),
        (format!("v={ZERO_PROOF}"), ServerError::Signature),
        (
            "e=invalid-proof".into(),
            ServerError::Refused("invalid-proof".into()),
        ),
        (
            "e=\x1b[31mred\n".into(),
            ServerError::Refused("?[31mred?".into()),
        ),
        (
            format!("e={}", "x".repeat(4000)),
            ServerError::Refused("x".repeat(64)),
        ),
    ];
    for (message, error) in cases {
        assert_eq!(
            awaiting().on_server_final(message.as_bytes()).unwrap_err(),
            error,
            "{message:?}"
        );
    }
}

#[test]
fn an_unknown_user_sees_the_shape_of_a_known_one() {
    let shape = |secret: ServerSecret| {
        let (first, server) = begun(secret);
        let error =
            server.on_client_final(format!("c=biws,r=clientserver,p={ZERO_PROOF}").as_bytes());
        (first.len(), error.unwrap_err())
    };
    assert_eq!(shape(known(pencil())), shape(mock(b"nobody")));
}

#[test]
fn an_unknown_user_has_the_same_salt_each_time_and_another_than_others() {
    let first = |secret| begun(secret).0;
    assert_eq!(first(mock(b"nobody")), first(mock(b"nobody")));
    assert_ne!(first(mock(b"nobody")), first(mock(b"noone")));
    let elsewhere = ServerSecret::mock(b"nobody", &MockSeed::from_bytes([8; 32]), 2);
    assert_ne!(first(mock(b"nobody")), first(elsewhere));
    let salt = crypto::hash(&[b"nobody", &SEED]);
    let expected = known(ScramVerifier::derive(b"any", &salt[..16], 2));
    assert_eq!(first(mock(b"nobody")), first(expected));
}

#[test]
fn an_empty_stored_secret_never_matches() {
    use crate::auth::method::scram_secret;
    use crate::auth::{Secret, User};
    let user = User::new(b"ann", Secret::parse(b""));
    let secret = scram_secret(b"ann", Some(&user), &MockSeed::from_bytes(SEED), 2);
    let client = ClientExchange::from_password(b"", nonce("client"));
    assert_eq!(exchange(client, secret).unwrap_err(), ClientError::Proof);
}

#[test]
fn an_md5_secret_meets_a_mock() {
    use crate::auth::method::scram_secret;
    use crate::auth::{Secret, User};
    let user = User::new(
        b"ann",
        Secret::parse(b"md5c2a8cc1e0e8e2cdf0a0b0b0b0b0b0b0b"),
    );
    let seed = MockSeed::from_bytes(SEED);
    let first = |secret| begun(secret).0;
    assert_eq!(
        first(scram_secret(b"ann", Some(&user), &seed, 2)),
        first(scram_secret(b"ann", None, &seed, 2))
    );
}

#[test]
fn keys_from_a_client_log_into_a_server_with_the_same_verifier_only() {
    let client = ClientExchange::from_password(b"pencil", nonce("client"));
    let (_, keys) = exchange(client, known(pencil())).unwrap();
    assert!(bool::from(keys.fits(&pencil())));
    assert!(
        exchange(
            ClientExchange::from_keys(keys.clone(), nonce("c2")),
            known(pencil())
        )
        .is_ok()
    );
    let other = known(ScramVerifier::derive(b"pencil", b"another salt", 2));
    assert_eq!(
        exchange(ClientExchange::from_keys(keys, nonce("c2")), other).unwrap_err(),
        ClientError::Proof
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_roles_agree_on_the_right_password(
        password in prop::collection::vec(any::<u8>(), 1..40),
        salt in prop::collection::vec(any::<u8>(), 1..40),
        iterations in 1..5u32,
    ) {
        let secret = known(ScramVerifier::derive(&password, &salt, iterations));
        let client = ClientExchange::from_password(&password, nonce("client"));
        let (derived, keys) = exchange(client, secret.clone()).unwrap();
        prop_assert_eq!(&keys, &ScramKeys::derive(&password, &salt, iterations));
        let again = ClientExchange::from_password(&password, nonce("client")).reusing(derived);
        prop_assert!(exchange(again, secret.clone()).is_ok());
        prop_assert!(exchange(ClientExchange::from_keys(keys, nonce("client")), secret).is_ok());
    }

    #[test]
    fn the_roles_agree_on_passwords_in_any_script(password in "\\PC{1,20}") {
        let stored = ScramVerifier::derive(password.as_bytes(), b"salt", 1).to_string();
        let secret = known(ScramVerifier::parse(stored.as_bytes()).unwrap());
        let client = ClientExchange::from_password(password.as_bytes(), nonce("client"));
        prop_assert!(exchange(client, secret).is_ok());
    }

    #[test]
    fn a_wrong_password_never_proves(right in "[ -~]{1,20}", wrong in "[ -~]{0,20}") {
        prop_assume!(right != wrong);
        let secret = known(ScramVerifier::derive(right.as_bytes(), b"salt", 1));
        let client = ClientExchange::from_password(wrong.as_bytes(), nonce("client"));
        prop_assert_eq!(exchange(client, secret).unwrap_err(), ClientError::Proof);
    }

    #[test]
    fn nobody_ever_proves_to_be_a_mock(user: Vec<u8>, password: Vec<u8>) {
        let client = ClientExchange::from_password(&password, nonce("client"));
        prop_assert_eq!(exchange(client, mock(&user)).unwrap_err(), ClientError::Proof);
    }

    #[test]
    fn a_flipped_bit_anywhere_in_the_proof_fails(at in 0..300usize, bit in 0..8u8) {
        let client = ClientExchange::from_password(b"pencil", nonce("client"));
        let (first, server) = begun(known(pencil()));
        let (mut proof, _) = client.on_server_first(&first).unwrap();
        let at = at % proof.len();
        proof[at] ^= 1 << bit;
        prop_assert!(server.on_client_final(&proof).is_err());
    }

    #[test]
    fn any_bytes_from_a_client_fail_cleanly(
        first: Vec<u8>, last in "(c=(biws|eSws|.{0,4})?,?)?(r=(clientserver|.{0,9})?,?)?(.=.{0,3},)?(p=.{0,50})?",
    ) {
        let server = ServerExchange::new(known(pencil()), nonce("server"));
        let _ = server.on_client_first(&first);
        prop_assert!(begun(known(pencil())).1.on_client_final(last.as_bytes()).is_err());
        prop_assert!(begun(mock(b"x")).1.on_client_final(&first).is_err());
    }

    #[test]
    fn any_bytes_from_a_server_fail_cleanly(
        raw: Vec<u8>, first in "(m=.)?(r=(client)?.{0,9},?)?(s=[A-Za-z+/]{0,9}=?=?,?)?(i=[0-9]{0,3})?",
    ) {
        let _ = sasl::offers_scram(&raw);
        let client = || ClientExchange::from_password(b"pencil", nonce("client"));
        let _ = client().on_server_first(&raw);
        if let Ok((_, proof)) = client().on_server_first(first.as_bytes()) {
            prop_assert!(proof.on_server_final(&raw).is_err());
        }
    }
}
