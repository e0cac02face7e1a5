//! The exchange in which a client proves who it is: asks, waits for answers, and leaves the judging to [`crate::auth`].
//!
//! Whose secret counts was decided before the first byte of the exchange, and nothing the client sends can change it.

use std::sync::Arc;

use tracing::{debug, warn};
use zeroize::Zeroizing;

use super::elsewhere;
use super::visitor::{BAD_PACKET, CLIENT_GOODBYE, Ending, Visitor};
use crate::auth::method::{decide, scram_secret, secret_of};
use crate::auth::scram::{
    ClientError as ScramError, MESSAGE_BYTES_MAX, Nonce, ServerExchange, sasl,
};
use crate::auth::secret::SECRET_BYTES_MAX;
use crate::auth::{Exchange, Method, User, cleartext, md5, text};
use crate::metrics::ErrorKind;
use crate::server::inbox::InboxError;
use crate::wire::build;
use crate::wire::frame::HEADER_LEN;
use crate::wire::tag::from_client;

/// Bytes of the length field, which counts itself.
const LENGTH_BYTES: u32 = 4;
/// The largest length field of a PasswordMessage: the longest password and its zero.
pub const PASSWORD_MESSAGE_MAX: u32 = SECRET_BYTES_MAX as u32 + 1 + LENGTH_BYTES;
/// The largest length field of a SASLInitialResponse.
pub const SASL_INITIAL_MAX: u32 = sasl::INITIAL_RESPONSE_BYTES_MAX as u32 + LENGTH_BYTES;
/// The largest length field of a SASLResponse.
pub const SASL_RESPONSE_MAX: u32 = MESSAGE_BYTES_MAX as u32 + LENGTH_BYTES;

/// The system has no random numbers to give.
const NO_RANDOMNESS: &str = "bouncer resources exhaustion";

/// Who has to prove what.
#[derive(Clone, Copy)]
pub struct Claim<'a> {
    /// The name that the client gave, and made its md5 answer with.
    pub given: &'a [u8],
    /// The name that is to be proved: the same, unless `auth_query` has given another.
    pub name: &'a [u8],
    /// The user of that name; `None` for one who is unknown, who meets the same exchange and fails it.
    pub user: Option<&'a Arc<User>>,
    /// How it is to be proved.
    pub method: &'a Method,
}

/// Holds the exchange. What still has to be sent (SCRAM's last message) is left in `visitor.outgoing`.
///
/// Gives the user with the password that was shown where others than us know it (LDAP, PAM): servers are logged in to with it.
///
/// # Errors
/// The claim was not proved.
pub async fn prove(
    visitor: &mut Visitor<'_>,
    claim: Claim<'_>,
) -> Result<Option<Arc<User>>, Ending> {
    let user = claim.user.map(|user| &**user);
    let exchange = decide(claim.method, user);
    match exchange {
        // Boxed: the others should not have to carry what these need.
        Exchange::Ldap | Exchange::Pam => {
            return Box::pin(elsewhere::prove(visitor, claim)).await.map(Some);
        }
        Exchange::Accept => Ok(()),
        Exchange::Reject(reason) => Err(Ending::counted(ErrorKind::AuthFailed, reason)),
        Exchange::Cleartext => prove_cleartext(visitor, claim).await,
        Exchange::Md5 => prove_md5(visitor, claim).await,
        Exchange::Scram => prove_scram(visitor, claim).await,
    }?;
    Ok(None)
}

async fn prove_cleartext(visitor: &mut Visitor<'_>, claim: Claim<'_>) -> Result<(), Ending> {
    build::authentication_cleartext(&mut visitor.outgoing);
    let body = answer(visitor, PASSWORD_MESSAGE_MAX, text::PASSWORD_FAILED).await?;
    let password = cleartext::password(&body)
        .map_err(|error| Ending::counted(ErrorKind::AuthFailed, error.client_text()))?;
    visitor.step_aside().await?;
    let secret = secret_of(claim.user.map(|user| &**user));
    judge(cleartext::verify(claim.name, secret, password))
}

async fn prove_md5(visitor: &mut Visitor<'_>, claim: Claim<'_>) -> Result<(), Ending> {
    let mut salt = [0; 4];
    getrandom::fill(&mut salt)
        .map_err(|_| Ending::counted(ErrorKind::Configuration, NO_RANDOMNESS))?;
    build::authentication_md5(&mut visitor.outgoing, salt);
    let body = answer(visitor, PASSWORD_MESSAGE_MAX, text::PASSWORD_FAILED).await?;
    let response = cleartext::password(&body)
        .map_err(|error| Ending::counted(ErrorKind::AuthFailed, error.client_text()))?;
    let secret = secret_of(claim.user.map(|user| &**user));
    judge(md5::verify(claim.given, secret, salt, response))
}

fn judge(proved: bool) -> Result<(), Ending> {
    match proved {
        true => Ok(()),
        false => Err(Ending::counted(
            ErrorKind::AuthFailed,
            text::PASSWORD_FAILED,
        )),
    }
}

async fn prove_scram(visitor: &mut Visitor<'_>, claim: Claim<'_>) -> Result<(), Ending> {
    let nonce =
        Nonce::random().map_err(|_| Ending::counted(ErrorKind::Configuration, NO_RANDOMNESS))?;
    build::authentication_sasl(&mut visitor.outgoing, sasl::MECHANISM);
    let body = answer(visitor, SASL_INITIAL_MAX, text::SASL_FAILED).await?;
    let first = sasl::client_first(&body)
        .map_err(|error| Ending::counted(ErrorKind::AuthFailed, error.client_text()))?;

    if claim.user.is_some_and(|user| user.is_slow_to_verify()) {
        visitor.step_aside().await?;
    }
    let exchange = ServerExchange::new(secret_for_scram(visitor, claim), nonce);
    let begun = exchange.on_client_first(first);
    let (reply, awaiting) = begun.map_err(|error| refuse_scram(visitor, error))?;
    build::authentication_sasl_continue(&mut visitor.outgoing, &reply);

    let body = answer(visitor, SASL_RESPONSE_MAX, text::SASL_FAILED).await?;
    let ended = awaiting.on_client_final(&body);
    let (reply, keys) = ended.map_err(|error| refuse_scram(visitor, error))?;
    if let Some(user) = claim.user {
        user.keep_keys(keys);
    }
    build::authentication_sasl_final(&mut visitor.outgoing, &reply);
    Ok(())
}

fn secret_for_scram(visitor: &Visitor<'_>, claim: Claim<'_>) -> crate::auth::scram::ServerSecret {
    let desk = visitor.desk;
    let iterations = desk.config.settings.scram_iterations;
    let user = claim.user.map(|user| &**user);
    scram_secret(claim.name, user, &desk.mock, iterations)
}

fn refuse_scram(visitor: &Visitor<'_>, error: ScramError) -> Ending {
    match error {
        ScramError::Proof => debug!(who = %visitor.who(), "{error}"),
        _ => warn!(who = %visitor.who(), "{error}"),
    }
    Ending::counted(ErrorKind::AuthFailed, text::SASL_FAILED)
}

/// Sends what is to go out, and waits for the client's `p` message, whose length field is at most `limit`.
pub(super) async fn answer(
    visitor: &mut Visitor<'_>,
    limit: u32,
    failure: &'static str,
) -> Result<Zeroizing<Vec<u8>>, Ending> {
    visitor.flush().await?;
    let inbox = visitor.inbox()?;
    inbox.fill(1).await?;
    match inbox.held()[0] {
        from_client::PASSWORD => {}
        // A StartupMessage begins with its length, which is far below 2^24.
        0 => {
            return Err(Ending::counted(
                ErrorKind::Protocol,
                "client re-sent startup pkt",
            ));
        }
        from_client::TERMINATE => return Err(Ending::Gone(CLIENT_GOODBYE)),
        _ => return Err(Ending::counted(ErrorKind::Protocol, BAD_PACKET)),
    }
    inbox.fill(HEADER_LEN).await?;
    match inbox.message(limit).await {
        Ok((_, body)) => Ok(body),
        Err(InboxError::Length(_)) => Err(Ending::counted(ErrorKind::AuthFailed, failure)),
        Err(error) => Err(error.into()),
    }
}
