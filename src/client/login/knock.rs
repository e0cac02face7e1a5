//! The first bytes of a client: TLS in its two ways, requests that are answered with one byte, a cancel request, and at last the
//! StartupMessage.

use std::fmt::Write as _;

use tracing::warn;

use super::visitor::{BAD_PACKET, CLIENT_EOF, Ending, Visitor};
use crate::metrics::ErrorKind;
use crate::net::tls::{self, ClientTls, HANDSHAKE_FIRST_BYTE};
use crate::types::CancelKey;
use crate::wire::startup::{self, FirstPacket, Startup, StartupError};
use crate::wire::tag::from_client;

/// The most packets before the StartupMessage has come. Honest clients need three (GSSENCRequest, SSLRequest, StartupMessage).
pub const FIRST_PACKETS_MAX: usize = 8;
/// How much of a packet that is none is shown to its sender.
const SHOWN_BYTES_MAX: usize = 8;

/// What a client has come for.
pub enum Knock {
    /// To cancel a query.
    Cancel(CancelKey),
    /// To log in.
    Login(Startup),
}

/// Answers until the client has said what it wants.
pub async fn answer(visitor: &mut Visitor<'_>) -> Result<Knock, Ending> {
    direct_tls(visitor).await?;
    for number in 0..FIRST_PACKETS_MAX {
        let is_first = number == 0 && !visitor.is_tls()?;
        match read_packet(visitor, is_first).await? {
            FirstPacket::Ssl => answer_ssl(visitor).await?,
            FirstPacket::GssEnc => answer_gssenc(visitor).await?,
            FirstPacket::Cancel(key) => return Ok(Knock::Cancel(CancelKey(key))),
            FirstPacket::Startup(startup) => {
                check_encrypted(visitor)?;
                return Ok(Knock::Login(startup));
            }
        }
    }
    Err(Ending::Gone(BAD_PACKET))
}

/// TLS towards this client, if it can have it: never over a Unix socket.
fn tls_for<'a>(visitor: &Visitor<'a>) -> Option<&'a ClientTls> {
    let tls = visitor.desk.tls.as_deref();
    tls.filter(|_| !visitor.peer.is_unix())
}

fn check_encrypted(visitor: &mut Visitor<'_>) -> Result<(), Ending> {
    let required = tls_for(visitor).is_some_and(|tls| tls.mode().requires_tls());
    if required && !visitor.is_tls()? {
        return Err(Ending::fatal("SSL required"));
    }
    Ok(())
}

/// A client may begin with a TLS handshake instead of asking for one.
async fn direct_tls(visitor: &mut Visitor<'_>) -> Result<(), Ending> {
    let Some(tls) = tls_for(visitor) else {
        return Ok(()); // the byte will be seen when the packet is read
    };
    let first = visitor.inbox()?.peek_first_byte().await;
    // Who comes and goes without a word (a health check, a port scan) is not worth a line.
    let Ok(Some(first)) = first else {
        return Err(Ending::Unnoticed);
    };
    match first {
        HANDSHAKE_FIRST_BYTE => shake_hands(visitor, tls).await,
        _ => Ok(()),
    }
}

async fn shake_hands(visitor: &mut Visitor<'_>, tls: &ClientTls) -> Result<(), Ending> {
    visitor.step_aside().await?;
    let (stream, _) = visitor.take_inbox()?.into_parts()?;
    match tls::accept(stream, tls).await {
        Ok(encrypted) => {
            visitor.put_stream(encrypted);
            Ok(())
        }
        Err(error) => {
            warn!(who = %visitor.who(), "TLS handshake error: {error}");
            Err(Ending::Gone(CLIENT_EOF))
        }
    }
}

async fn answer_ssl(visitor: &mut Visitor<'_>) -> Result<(), Ending> {
    if visitor.is_tls()? {
        return Err(Ending::Gone("SSL request inside SSL"));
    }
    refuse_smuggled(visitor, "received unencrypted data after SSL request")?;
    match tls_for(visitor) {
        Some(tls) => {
            answer_byte(visitor, b'S').await?;
            shake_hands(visitor, tls).await
        }
        None => answer_byte(visitor, b'N').await,
    }
}

async fn answer_gssenc(visitor: &mut Visitor<'_>) -> Result<(), Ending> {
    let text = "received unencrypted data after GSSAPI encryption request";
    refuse_smuggled(visitor, text)?;
    answer_byte(visitor, b'N').await
}

async fn answer_byte(visitor: &mut Visitor<'_>, answer: u8) -> Result<(), Ending> {
    visitor.outgoing.push(answer);
    visitor.flush().await
}

/// Nothing may follow a request for encryption before its answer: what follows would later pass for encrypted (CVE-2021-3935).
fn refuse_smuggled(visitor: &mut Visitor<'_>, text: &str) -> Result<(), Ending> {
    let inbox = visitor.inbox()?;
    if !inbox.held().is_empty() || inbox.input_waiting()? {
        return Err(Ending::fatal(text));
    }
    Ok(())
}

async fn read_packet(visitor: &mut Visitor<'_>, is_first: bool) -> Result<FirstPacket, Ending> {
    let len_max = visitor.desk.config.settings.max_packet_size as usize;
    let inbox = visitor.inbox()?;
    match inbox.fill(1).await {
        // Who comes and goes without a word (a health check, a port scan) is not worth a line.
        Err(_) if is_first => return Err(Ending::Unnoticed),
        filled => filled?,
    }
    if inbox.held()[0] != 0 {
        return Err(typed_message(inbox.held()));
    }
    inbox.fill(4).await?;
    let held = inbox.held();
    let len = match startup::packet_len([held[0], held[1], held[2], held[3]]) {
        Ok(len) if len <= len_max => len,
        _ => return Err(bad_header(held)),
    };
    inbox.fill(len).await?;
    let packet = inbox.take(len);
    startup::parse(&packet).map_err(|error| match error {
        StartupError::BadHeader => bad_header(&packet),
        StartupError::BadCancel => Ending::Gone("bad cancel request"),
        StartupError::ProtocolV2 | StartupError::NoTerminator => {
            Ending::counted(ErrorKind::Protocol, error)
        }
    })
}

/// A message with a tag where the first packet, which has none, should be.
fn typed_message(held: &[u8]) -> Ending {
    match held[0] {
        from_client::PASSWORD => Ending::counted(
            ErrorKind::Protocol,
            "client password pkt before startup packet",
        ),
        tag if tag.is_ascii_alphabetic() => Ending::Gone(BAD_PACKET),
        _ => bad_header(held),
    }
}

fn bad_header(held: &[u8]) -> Ending {
    let mut hex = String::new();
    for byte in held.iter().take(SHOWN_BYTES_MAX) {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    Ending::counted(
        ErrorKind::Protocol,
        format_args!("bad packet header: '{hex}'"),
    )
}
