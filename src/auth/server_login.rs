//! Our own login at a server: what it asks for, what we can answer, and when we believe that it let us in.
//!
//! [`ServerLogin`] takes the body of each Authentication message (`R`) and gives the body of the reply (`p`), if one is
//! due. ErrorResponse and everything after AuthenticationOk are the caller's, and so is the start-up packet before.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::md5;
use super::scram::{ClientExchange, ClientProof, Nonce, ScramKeys, ServerError, sasl};
use super::secret::Secret;
use super::user::User;

/// What an Authentication message asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request<'a> {
    Ok,
    Cleartext,
    Md5([u8; 4]),
    /// The list of mechanisms.
    Sasl(&'a [u8]),
    SaslContinue(&'a [u8]),
    SaslFinal(&'a [u8]),
    Other(u32),
}

impl<'a> Request<'a> {
    fn parse(body: &'a [u8]) -> Result<Request<'a>, LoginError> {
        let (code, rest) = body.split_first_chunk::<4>().ok_or(LoginError::Malformed)?;
        match (u32::from_be_bytes(*code), rest) {
            (0, []) => Ok(Request::Ok),
            (3, []) => Ok(Request::Cleartext),
            (5, salt) => Ok(Request::Md5(
                salt.try_into().map_err(|_| LoginError::Malformed)?,
            )),
            (10, list) => Ok(Request::Sasl(list)),
            (11, message) => Ok(Request::SaslContinue(message)),
            (12, message) => Ok(Request::SaslFinal(message)),
            (0 | 3, _) => Err(LoginError::Malformed),
            (other, _) => Ok(Request::Other(other)),
        }
    }
}

/// What to do after an Authentication message.
#[derive(PartialEq, Eq)]
pub enum Step {
    /// Send a message `p` with this body. Wiped when dropped.
    Send(Zeroizing<Vec<u8>>),
    /// Nothing; read on.
    Wait,
    /// AuthenticationOk: we are in.
    Accepted,
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Send(_) => "Send(..)",
            Step::Wait => "Wait",
            Step::Accepted => "Accepted",
        })
    }
}

/// Why a login cannot go on; the connection must be closed. `Display` is what waiting clients are told,
/// [`log_text`](LoginError::log_text) what the log says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoginError {
    /// There is no secret for this user.
    NoSecret,
    /// The server wants md5, the secret is SCRAM.
    Md5WithScramSecret,
    /// The server wants SCRAM, the secret is md5.
    ScramWithMd5Secret,
    /// The server wants SCRAM, the secret is SCRAM, and no client has shown us its keys yet.
    ScramWithoutKeys,
    /// The server wants SASL, but not SCRAM-SHA-256.
    NoMechanism,
    /// The server wants something else altogether: GSSAPI, SSPI …
    UnknownMethod(u32),
    /// A message that is none, or not the one due now.
    Malformed,
    /// The server broke the rules of SCRAM.
    Scram(ServerError),
    /// The server let us in without showing that it knows our secret.
    SignatureSkipped,
    /// No random numbers for a nonce.
    NoRandomness,
}

impl LoginError {
    /// The reason in full.
    pub fn log_text(&self) -> String {
        match self {
            LoginError::NoSecret => "no password is known for this user".into(),
            LoginError::Md5WithScramSecret => {
                "cannot do MD5 authentication: password is SCRAM secret".into()
            }
            LoginError::ScramWithMd5Secret => {
                "cannot do SCRAM authentication: password is MD5 hash".into()
            }
            LoginError::ScramWithoutKeys => {
                "cannot do SCRAM authentication: password is SCRAM secret but client \
                                             authentication did not provide SCRAM keys"
                    .into()
            }
            LoginError::NoMechanism => {
                "none of the server's SASL authentication mechanisms are supported".into()
            }
            LoginError::UnknownMethod(code) => format!("unknown/unsupported auth method: {code}"),
            LoginError::Malformed => {
                "malformed or unexpected authentication message from server".into()
            }
            LoginError::Scram(error) => error.to_string(),
            LoginError::SignatureSkipped => "server skipped its SCRAM signature".into(),
            LoginError::NoRandomness => "no random numbers available".into(),
        }
    }
}

impl fmt::Display for LoginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("server login failed: ")?;
        f.write_str(match self {
            LoginError::NoSecret
            | LoginError::Md5WithScramSecret
            | LoginError::ScramWithMd5Secret
            | LoginError::ScramWithoutKeys => "wrong password type",
            LoginError::NoMechanism => {
                "none of the server's SASL authentication mechanisms are supported"
            }
            LoginError::UnknownMethod(_) => "unsupported authentication method",
            LoginError::Scram(ServerError::Signature) | LoginError::SignatureSkipped => {
                "invalid server signature"
            }
            LoginError::Scram(_) => "SASL authentication failed",
            LoginError::Malformed => "malformed authentication message",
            LoginError::NoRandomness => "internal error",
        })
    }
}

impl std::error::Error for LoginError {}

impl From<ServerError> for LoginError {
    fn from(error: ServerError) -> LoginError {
        LoginError::Scram(error)
    }
}

/// How far the login is.
enum State {
    /// Nothing asked yet.
    Start,
    /// Password or md5 answer sent; the server decides.
    PasswordSent,
    /// client-first-message sent.
    ScramBegun(ClientExchange),
    /// client-final-message sent.
    ScramProved(ClientProof),
    /// The server has shown that it knows our secret.
    ScramVerified,
    /// Accepted, or failed: nothing may follow.
    Over,
}

/// One login, from the start-up packet to AuthenticationOk.
pub struct ServerLogin {
    user: Arc<User>,
    state: State,
}

impl ServerLogin {
    /// A login as this user, with its secret.
    pub fn new(user: Arc<User>) -> ServerLogin {
        ServerLogin {
            user,
            state: State::Start,
        }
    }

    /// Takes the body of an Authentication message. Slow when a server's SCRAM challenge meets a plain secret whose keys
    /// for this server are not known yet.
    ///
    /// # Errors
    /// When we have no answer, or the server breaks the rules; every later call fails too.
    pub fn on_authentication(&mut self, body: &[u8]) -> Result<Step, LoginError> {
        let state = std::mem::replace(&mut self.state, State::Over);
        let (next, step) = self.advance(state, Request::parse(body)?)?;
        self.state = next;
        Ok(step)
    }

    fn advance(&self, state: State, request: Request<'_>) -> Result<(State, Step), LoginError> {
        match (state, request) {
            (State::Start | State::PasswordSent | State::ScramVerified, Request::Ok) => {
                Ok((State::Over, Step::Accepted))
            }
            (State::ScramProved(_), Request::Ok) => Err(LoginError::SignatureSkipped),
            (State::Start, Request::Cleartext) => {
                Ok((State::PasswordSent, self.answer_cleartext()?))
            }
            (State::Start, Request::Md5(salt)) => Ok((State::PasswordSent, self.answer_md5(salt)?)),
            (State::Start, Request::Sasl(list)) => self.begin_scram(list),
            (State::ScramBegun(exchange), Request::SaslContinue(message)) => {
                prove(exchange, message)
            }
            (State::ScramProved(proof), Request::SaslFinal(message)) => self.verify(proof, message),
            (State::Start, Request::Other(code)) => Err(LoginError::UnknownMethod(code)),
            _ => Err(LoginError::Malformed),
        }
    }

    /// Sends what is stored, as PgBouncer does; only the password itself will succeed.
    fn answer_cleartext(&self) -> Result<Step, LoginError> {
        match self.user.secret() {
            Secret::None => Err(LoginError::NoSecret),
            Secret::Plain(password) => Ok(password_message(password)),
            Secret::Md5(hash) => Ok(password_message(&hash.stored())),
            Secret::Scram(verifier) => {
                let stored = Zeroizing::new(verifier.to_string());
                Ok(password_message(stored.as_bytes()))
            }
        }
    }

    fn answer_md5(&self, salt: [u8; 4]) -> Result<Step, LoginError> {
        let secret = self.user.secret();
        match md5::md5_response(self.user.name(), secret, salt) {
            Some(answer) => Ok(password_message(answer.as_bytes())),
            None if secret.is_none() => Err(LoginError::NoSecret),
            None => Err(LoginError::Md5WithScramSecret),
        }
    }

    fn begin_scram(&self, list: &[u8]) -> Result<(State, Step), LoginError> {
        if !sasl::offers_scram(list).map_err(|_| LoginError::Malformed)? {
            return Err(LoginError::NoMechanism);
        }
        let exchange = self.scram_exchange()?;
        let body = sasl::initial_response(&exchange.first());
        Ok((
            State::ScramBegun(exchange),
            Step::Send(Zeroizing::new(body)),
        ))
    }

    fn scram_exchange(&self) -> Result<ClientExchange, LoginError> {
        let nonce = || Nonce::random().map_err(|_| LoginError::NoRandomness);
        match (self.user.secret(), self.user.keys()) {
            (Secret::Plain(password), _) => {
                let exchange = ClientExchange::from_password(password, nonce()?);
                Ok(match self.user.server_keys() {
                    Some(known) => exchange.reusing(known.clone()),
                    None => exchange,
                })
            }
            (Secret::Scram(_), Some(keys)) => {
                Ok(ClientExchange::from_keys(ScramKeys::clone(keys), nonce()?))
            }
            (Secret::Scram(_), None) => Err(LoginError::ScramWithoutKeys),
            (Secret::Md5(_), _) => Err(LoginError::ScramWithMd5Secret),
            (Secret::None, _) => Err(LoginError::NoSecret),
        }
    }

    fn verify(&self, proof: ClientProof, message: &[u8]) -> Result<(State, Step), LoginError> {
        self.user.keep_server_keys(proof.on_server_final(message)?);
        Ok((State::ScramVerified, Step::Wait))
    }
}

impl fmt::Debug for ServerLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerLogin({:?})", self.user.display_name())
    }
}

fn prove(exchange: ClientExchange, message: &[u8]) -> Result<(State, Step), LoginError> {
    let (reply, proof) = exchange.on_server_first(message)?;
    Ok((State::ScramProved(proof), Step::Send(Zeroizing::new(reply))))
}

/// A PasswordMessage body: the bytes and a zero.
fn password_message(password: &[u8]) -> Step {
    let mut body = Zeroizing::new(Vec::with_capacity(password.len() + 1));
    body.extend_from_slice(password);
    body.push(0);
    Step::Send(body)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::scram::{ScramVerifier, ServerAwaitingProof, ServerExchange, ServerSecret};
    use super::*;

    const OK: &[u8] = &[0, 0, 0, 0];
    const CLEARTEXT: &[u8] = &[0, 0, 0, 3];
    const MD5: &[u8] = &[0, 0, 0, 5, 1, 2, 3, 4];

    fn sasl(list: &str) -> Vec<u8> {
        [&[0, 0, 0, 10], list.as_bytes()].concat()
    }

    fn coded(code: u8, message: &[u8]) -> Vec<u8> {
        [&[0, 0, 0, code], message].concat()
    }

    fn scram_secret() -> String {
        ScramVerifier::derive(b"pencil", b"salt", 1).to_string()
    }

    fn md5_secret() -> String {
        String::from_utf8(md5::hash(b"ann", b"pencil").stored().to_vec()).unwrap()
    }

    fn user(stored: &str) -> Arc<User> {
        Arc::new(User::new(b"ann", Secret::parse(stored.as_bytes())))
    }

    fn login(stored: &str) -> ServerLogin {
        ServerLogin::new(user(stored))
    }

    fn sent(step: Result<Step, LoginError>) -> Vec<u8> {
        match step {
            Ok(Step::Send(body)) => body.to_vec(),
            other => panic!("{other:?}"),
        }
    }

    /// A server with this verifier, up to its server-final-message.
    fn server_side(login: &mut ServerLogin, verifier: &ScramVerifier) -> Vec<u8> {
        let (first, server) = server_begun(login, verifier);
        let proof = sent(login.on_authentication(&coded(11, &first)));
        let (last, _) = server.on_client_final(&proof).unwrap();
        coded(12, &last)
    }

    fn server_begun(
        login: &mut ServerLogin,
        verifier: &ScramVerifier,
    ) -> (Vec<u8>, ServerAwaitingProof) {
        let initial = sent(login.on_authentication(&sasl("SCRAM-SHA-256\0\0")));
        let secret = ServerSecret::known(Arc::new(verifier.clone()));
        let exchange = ServerExchange::new(secret, Nonce::random().unwrap());
        exchange
            .on_client_first(sasl::client_first(&initial).unwrap())
            .unwrap()
    }

    #[test]
    fn trust_is_accepted_at_once_and_only_once() {
        let mut login = login("");
        assert_eq!(login.on_authentication(OK), Ok(Step::Accepted));
        assert_eq!(login.on_authentication(OK), Err(LoginError::Malformed));
    }

    #[test]
    fn cleartext_is_answered_with_what_is_stored() {
        for stored in ["pencil", &md5_secret(), &scram_secret()] {
            let mut login = login(stored);
            let body = sent(login.on_authentication(CLEARTEXT));
            assert_eq!(body, [stored.as_bytes(), b"\0"].concat());
            assert_eq!(login.on_authentication(OK), Ok(Step::Accepted));
        }
    }

    #[test]
    fn md5_is_answered_from_plain_and_md5() {
        let expected = md5::md5_response(b"ann", &Secret::plain(b"pencil"), [1, 2, 3, 4]).unwrap();
        for stored in ["pencil", &md5_secret()] {
            let body = sent(login(stored).on_authentication(MD5));
            assert_eq!(body, [expected.as_bytes(), b"\0"].concat());
        }
    }

    #[test]
    fn what_cannot_be_answered_says_so_in_pgbouncers_words() {
        let scram = sasl("SCRAM-SHA-256\0\0");
        let cases = [
            (
                scram_secret(),
                MD5.to_vec(),
                "server login failed: wrong password type",
            ),
            (
                md5_secret(),
                scram.clone(),
                "server login failed: wrong password type",
            ),
            (
                scram_secret(),
                scram.clone(),
                "server login failed: wrong password type",
            ),
            (
                String::new(),
                scram,
                "server login failed: wrong password type",
            ),
            (
                "pencil".into(),
                sasl("SCRAM-SHA-256-PLUS\0\0"),
                "server login failed: none of the server's SASL authentication mechanisms are supported",
            ),
        ];
        for (stored, request, expected) in cases {
            let error = login(&stored).on_authentication(&request).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn an_empty_secret_is_never_sent() {
        for request in [CLEARTEXT, MD5, &sasl("SCRAM-SHA-256\0\0")] {
            assert_eq!(
                login("").on_authentication(request),
                Err(LoginError::NoSecret)
            );
        }
    }

    #[test]
    fn other_methods_are_logged_by_number() {
        let error = login("pencil")
            .on_authentication(&coded(7, b""))
            .unwrap_err();
        assert_eq!(error.log_text(), "unknown/unsupported auth method: 7");
    }

    #[test]
    fn scram_with_a_password_succeeds_and_is_remembered() {
        let user = user("pencil");
        let verifier = ScramVerifier::derive(b"pencil", b"salt", 3);
        for _ in 0..2 {
            let mut login = ServerLogin::new(user.clone());
            let last = server_side(&mut login, &verifier);
            assert_eq!(login.on_authentication(&last), Ok(Step::Wait));
            assert_eq!(login.on_authentication(OK), Ok(Step::Accepted));
            assert!(user.server_keys().is_some());
        }
        // Another server with another salt: what is remembered does not fit, and must not be used.
        let mut login = ServerLogin::new(user);
        let last = server_side(&mut login, &ScramVerifier::derive(b"pencil", b"pepper", 3));
        assert_eq!(login.on_authentication(&last), Ok(Step::Wait));
    }

    #[test]
    fn pass_through_uses_the_keys_a_client_has_shown() {
        let user = user(&scram_secret());
        user.keep_keys(ScramKeys::derive(b"pencil", b"salt", 1));
        let mut login = ServerLogin::new(user);
        let last = server_side(&mut login, &ScramVerifier::derive(b"pencil", b"salt", 1));
        assert_eq!(login.on_authentication(&last), Ok(Step::Wait));
        assert_eq!(login.on_authentication(OK), Ok(Step::Accepted));
    }

    #[test]
    fn pass_through_without_keys_says_why_in_the_log() {
        let error = login(&scram_secret())
            .on_authentication(&sasl("SCRAM-SHA-256\0\0"))
            .unwrap_err();
        assert_eq!(
            error.log_text(),
            "cannot do SCRAM authentication: password is SCRAM secret but client authentication did not provide SCRAM keys"
        );
    }

    #[test]
    fn a_server_that_skips_its_signature_is_not_believed() {
        let mut login = login("pencil");
        server_side(&mut login, &ScramVerifier::derive(b"pencil", b"salt", 1));
        let error = login.on_authentication(OK).unwrap_err();
        assert_eq!(
            error.to_string(),
            "server login failed: invalid server signature"
        );
    }

    #[test]
    fn a_server_that_accepts_in_the_middle_of_scram_is_not_believed() {
        let mut login = login("pencil");
        server_begun(&mut login, &ScramVerifier::derive(b"pencil", b"salt", 1));
        assert_eq!(login.on_authentication(OK), Err(LoginError::Malformed));
    }

    #[test]
    fn a_server_cannot_ask_for_the_password_after_scram_began() {
        let mut login = login("pencil");
        server_begun(&mut login, &ScramVerifier::derive(b"pencil", b"salt", 1));
        assert_eq!(
            login.on_authentication(CLEARTEXT),
            Err(LoginError::Malformed)
        );
        assert_eq!(
            login.on_authentication(CLEARTEXT),
            Err(LoginError::Malformed)
        );
    }

    #[test]
    fn a_wrong_signature_fails_and_nothing_is_remembered() {
        let user = user("pencil");
        let mut login = ServerLogin::new(user.clone());
        let mut last = server_side(&mut login, &ScramVerifier::derive(b"pencil", b"salt", 1));
        let digit = &mut last[6];
        *digit = if *digit == b'A' { b'B' } else { b'A' };
        let error = login.on_authentication(&last).unwrap_err();
        assert_eq!(error, LoginError::Scram(ServerError::Signature));
        assert_eq!(
            error.to_string(),
            "server login failed: invalid server signature"
        );
        assert!(user.server_keys().is_none());
    }

    #[test]
    fn malformed_requests() {
        let malformed: [&[u8]; 7] = [
            b"",
            b"\0\0\0",
            &[0, 0, 0, 0, 0],
            &[0, 0, 0, 3, 0],
            &[0, 0, 0, 5, 1],
            &[0, 0, 0, 10],
            &[0, 0, 0, 11],
        ];
        for body in malformed {
            assert_eq!(
                login("pencil").on_authentication(body),
                Err(LoginError::Malformed),
                "{body:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_server_makes_us_panic(bodies: Vec<(u8, Vec<u8>)>) {
            let mut login = login("pencil");
            for (code, rest) in bodies {
                let _ = login.on_authentication(&coded(code % 14, &rest));
            }
        }
    }
}
