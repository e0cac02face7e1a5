//! What a server says between our StartupMessage and the moment when it can be used: pure, one message in, one action out.

use std::mem;

use zeroize::Zeroizing;

use super::error::ConnectError;
use crate::auth::{LoginError, ServerLogin, Step};
use crate::types::{BackendKey, TxStatus};
use crate::wire::build;
use crate::wire::read;
use crate::wire::tag::{from_client, from_server};

/// The most parameters that a server may report. PostgreSQL reports about fifteen; extensions may add some.
pub const PARAMETERS_MAX: usize = 256;

/// What to do after a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Read the next one.
    Read,
    /// Send these bytes, then read the next one.
    Send(Zeroizing<Vec<u8>>),
    /// The connect query has failed with this; tell the log, then read the next one.
    Remark(String),
    /// The connection can be used, once everything that has arrived was looked at as well.
    Ready,
}

/// How far the server is.
enum Phase {
    /// It has not let us in yet.
    Proving(ServerLogin),
    /// It tells its parameters.
    Starting,
    /// It runs the connect query.
    Querying,
    /// It has told that it is ready.
    Ready,
}

/// One login from behind the StartupMessage on.
pub struct Handshake {
    phase: Phase,
    connect_query: Option<String>,
    key: BackendKey,
    parameters: Vec<(Vec<u8>, Vec<u8>)>,
    /// Why the proofs failed, in full.
    failed_proof: Option<LoginError>,
}

impl Handshake {
    /// A login with these proofs, after which `connect_query` is run.
    pub fn new(login: ServerLogin, connect_query: Option<String>) -> Handshake {
        Handshake {
            phase: Phase::Proving(login),
            connect_query,
            key: BackendKey::default(),
            parameters: Vec::new(),
            failed_proof: None,
        }
    }

    /// Why we could not answer the server, in words that are for the log only.
    pub fn failed_proof(&self) -> Option<String> {
        self.failed_proof.as_ref().map(LoginError::log_text)
    }

    /// The cancel key, and the parameters in the order of their first appearance.
    pub fn into_results(self) -> (BackendKey, Vec<(Vec<u8>, Vec<u8>)>) {
        (self.key, self.parameters)
    }

    /// Whether the connection can be used.
    pub fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Ready)
    }

    /// Whether a message of any length may come that nobody will look at: rows of the connect query.
    pub fn may_skip(&self, tag: u8) -> bool {
        let telling = [
            from_server::PARAMETER_STATUS,
            from_server::ERROR_RESPONSE,
            from_server::READY_FOR_QUERY,
        ];
        matches!(self.phase, Phase::Querying) && !telling.contains(&tag)
    }

    /// Takes a message. Slow where [`ServerLogin::on_authentication`] is.
    ///
    /// # Errors
    /// The server refuses, or we cannot answer it, or it breaks the protocol. The connection is of no use then.
    pub fn on_message(&mut self, tag: u8, body: &[u8]) -> Result<Action, ConnectError> {
        match (&mut self.phase, tag) {
            (_, from_server::NOTICE_RESPONSE) => Ok(Action::Read),
            (_, from_server::PARAMETER_STATUS) => self.on_parameter(body),
            (Phase::Querying, from_server::ERROR_RESPONSE) => Ok(remark(body)),
            (_, from_server::ERROR_RESPONSE) => {
                Err(ConnectError::refused(read::error_fields(body)))
            }
            (Phase::Proving(login), from_server::AUTHENTICATION) => {
                let step = login.on_authentication(body);
                self.on_step(step)
            }
            // We asked for 3.0 and nothing else, so whatever the server offers is that.
            (Phase::Proving(_), from_server::NEGOTIATE_PROTOCOL_VERSION) => Ok(Action::Read),
            (Phase::Starting, from_server::BACKEND_KEY_DATA) => self.on_key(body),
            (Phase::Starting, from_server::READY_FOR_QUERY) => self.on_started(body),
            (Phase::Querying, from_server::READY_FOR_QUERY) => self.on_query_done(body),
            // It would wait for our data until the timeout.
            (Phase::Querying, from_server::COPY_IN_RESPONSE) => Ok(refuse_copy()),
            (Phase::Querying, _) => Ok(Action::Read),
            (Phase::Ready, from_server::NOTIFICATION_RESPONSE) => Ok(Action::Read),
            _ => Err(ConnectError::Protocol("unexpected message from server")),
        }
    }

    fn on_step(&mut self, step: Result<Step, LoginError>) -> Result<Action, ConnectError> {
        match step {
            Ok(Step::Wait) => Ok(Action::Read),
            Ok(Step::Send(body)) => Ok(Action::Send(password_message(&body))),
            Ok(Step::Accepted) => {
                self.phase = Phase::Starting;
                Ok(Action::Read)
            }
            Err(error) => {
                let told = ConnectError::Login(error.to_string());
                self.failed_proof = Some(error);
                Err(told)
            }
        }
    }

    fn on_parameter(&mut self, body: &[u8]) -> Result<Action, ConnectError> {
        let malformed = ConnectError::Protocol("malformed ParameterStatus from server");
        let (name, value) = read::parameter_status(body).ok_or(malformed)?;
        match self.parameters.iter().position(|(known, _)| known == name) {
            Some(at) => self.parameters[at].1 = value.to_vec(),
            None if self.parameters.len() < PARAMETERS_MAX => {
                self.parameters.push((name.to_vec(), value.to_vec()));
            }
            None => return Err(ConnectError::Protocol("too many parameters from server")),
        }
        Ok(Action::Read)
    }

    fn on_key(&mut self, body: &[u8]) -> Result<Action, ConnectError> {
        let malformed = ConnectError::Protocol("malformed BackendKeyData from server");
        self.key = BackendKey(body.try_into().map_err(|_| malformed)?);
        Ok(Action::Read)
    }

    fn on_started(&mut self, body: &[u8]) -> Result<Action, ConnectError> {
        check_idle(body)?;
        match mem::take(&mut self.connect_query) {
            None => {
                self.phase = Phase::Ready;
                Ok(Action::Ready)
            }
            Some(sql) => {
                self.phase = Phase::Querying;
                let mut out = Zeroizing::default();
                build::query(&mut out, sql.as_bytes());
                Ok(Action::Send(out))
            }
        }
    }

    fn on_query_done(&mut self, body: &[u8]) -> Result<Action, ConnectError> {
        check_idle(body)?;
        self.phase = Phase::Ready;
        Ok(Action::Ready)
    }
}

/// A connection inside a transaction, which a connect query may have begun, is nothing that a pool could lend.
fn check_idle(body: &[u8]) -> Result<(), ConnectError> {
    match body {
        [status] => match TxStatus::from_byte(*status) {
            Some(TxStatus::Idle) => Ok(()),
            Some(_) => Err(ConnectError::Login(
                "connect_query has left a transaction open".to_owned(),
            )),
            None => Err(ConnectError::Protocol(
                "malformed ReadyForQuery from server",
            )),
        },
        _ => Err(ConnectError::Protocol(
            "malformed ReadyForQuery from server",
        )),
    }
}

fn password_message(body: &[u8]) -> Zeroizing<Vec<u8>> {
    // All the room at once, so that growing leaves no copies of a password behind.
    let mut out = Zeroizing::new(Vec::with_capacity(body.len() + 5));
    build::message(&mut out, from_client::PASSWORD, |out| {
        out.extend_from_slice(body);
    });
    out
}

fn refuse_copy() -> Action {
    let mut out = Zeroizing::default();
    build::message(&mut out, from_client::COPY_FAIL, |out| {
        build::cstr(out, b"connect_query cannot copy");
    });
    Action::Send(out)
}

fn remark(body: &[u8]) -> Action {
    let fields = read::error_fields(body);
    let text =
        |field: Option<&[u8]>| String::from_utf8_lossy(field.unwrap_or_default()).into_owned();
    Action::Remark(format!(
        "error while executing exec_on_query: {}: {}",
        text(fields.severity),
        text(fields.message)
    ))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::auth::{Secret, User};

    fn handshake(query: Option<&str>) -> Handshake {
        let user = Arc::new(User::new(b"ann", Secret::parse(b"pencil")));
        Handshake::new(ServerLogin::new(user), query.map(str::to_owned))
    }

    fn started(query: Option<&str>) -> Handshake {
        let mut handshake = handshake(query);
        assert_eq!(handshake.on_message(b'R', &[0; 4]), Ok(Action::Read));
        handshake
    }

    #[test]
    fn parameters_and_key_are_collected() {
        let mut handshake = started(None);
        for (name, value) in [("a", "1"), ("b", "2"), ("a", "3")] {
            let body = format!("{name}\0{value}\0");
            assert_eq!(
                handshake.on_message(b'S', body.as_bytes()),
                Ok(Action::Read)
            );
        }
        assert_eq!(handshake.on_message(b'K', b"12345678"), Ok(Action::Read));
        assert_eq!(handshake.on_message(b'N', b"anything"), Ok(Action::Read));
        assert!(!handshake.is_ready());
        assert_eq!(handshake.on_message(b'Z', b"I"), Ok(Action::Ready));
        let (key, parameters) = handshake.into_results();
        assert_eq!(key, BackendKey(*b"12345678"));
        let expected = [("a", "3"), ("b", "2")].map(|(k, v)| (k.into(), v.into()));
        assert_eq!(parameters, expected);
    }

    #[test]
    fn a_connect_query_is_run_and_its_errors_are_remarks() {
        let mut handshake = started(Some("set x"));
        let Ok(Action::Send(sent)) = handshake.on_message(b'Z', b"I") else {
            panic!("no query");
        };
        assert_eq!(&sent[..], b"Q\0\0\0\x0aset x\0");
        assert!(handshake.may_skip(b'D') && !handshake.may_skip(b'E'));
        let remark = handshake.on_message(b'E', b"SERROR\0Mno\0\0");
        let expected = "error while executing exec_on_query: ERROR: no".to_owned();
        assert_eq!(remark, Ok(Action::Remark(expected)));
        assert!(matches!(
            handshake.on_message(b'G', b""),
            Ok(Action::Send(_))
        ));
        assert_eq!(handshake.on_message(b'C', b"SET\0"), Ok(Action::Read));
        assert_eq!(handshake.on_message(b'Z', b"I"), Ok(Action::Ready));
    }

    #[test]
    fn a_connect_query_may_not_leave_a_transaction_open() {
        let mut handshake = started(Some("begin"));
        assert!(handshake.on_message(b'Z', b"I").is_ok());
        assert!(matches!(
            handshake.on_message(b'Z', b"T"),
            Err(ConnectError::Login(_))
        ));
    }

    #[test]
    fn a_server_may_not_skip_its_own_login() {
        for (tag, body) in [(b'Z', &b"I"[..]), (b'K', b"12345678"), (b'D', b"")] {
            assert!(handshake(None).on_message(tag, body).is_err());
        }
    }

    #[test]
    fn an_error_is_final_at_any_time() {
        for mut handshake in [handshake(None), started(None)] {
            let refused = handshake.on_message(b'E', b"SFATAL\0C28P01\0Mno\0\0");
            assert!(matches!(refused, Err(ConnectError::Refused { .. })));
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (tag, body) in [
            (b'K', &b"1234"[..]),
            (b'K', b"123456789"),
            (b'Z', b""),
            (b'Z', b"X"),
            (b'S', b"a"),
            (b'R', &[0; 4]),
            (b'T', b""),
        ] {
            assert!(started(None).on_message(tag, body).is_err(), "{tag}");
        }
    }

    #[test]
    fn parameters_are_bounded() {
        let mut handshake = started(None);
        for n in 0..PARAMETERS_MAX {
            let body = format!("p{n}\0x\0");
            assert_eq!(
                handshake.on_message(b'S', body.as_bytes()),
                Ok(Action::Read)
            );
        }
        assert!(handshake.on_message(b'S', b"one\0more\0").is_err());
        assert!(handshake.on_message(b'S', b"p0\0again\0").is_ok());
    }

    proptest! {
        #[test]
        fn any_messages_are_survived(
            messages in prop::collection::vec(
                ("[RSKZENvCG]", prop::collection::vec(any::<u8>(), 0..12)),
                0..20,
            ),
        ) {
            let mut handshake = handshake(Some("x"));
            for (tag, body) in messages {
                if handshake.on_message(tag.as_bytes()[0], &body).is_err() {
                    break;
                }
            }
        }
    }
}
