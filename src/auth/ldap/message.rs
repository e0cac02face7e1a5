//! The messages of RFC 4511 that a password check needs: bind, search, StartTLS and unbind, and what a server says to them.
//!
//! Of replies only what decides is kept. Controls and attributes are passed over.

use std::fmt;

use zeroize::Zeroizing;

use super::ber::{self, BerError, Reader};

/// The protocol's version.
const VERSION: u32 = 3;
/// StartTLS, as an extended operation.
const START_TLS: &[u8] = b"1.3.6.1.4.1.1466.20037";
/// Asks for no attributes.
const NO_ATTRIBUTES: &[u8] = b"1.1";
/// Most entries that a search may give: the second already makes the user ambiguous.
const ENTRIES_MAX: u32 = 2;
/// Most characters of a server's words that are kept for the log.
const TEXT_CHARS_MAX: usize = 200;

const BIND: u8 = 0x60;
const BIND_REPLY: u8 = 0x61;
const UNBIND: u8 = 0x42;
const SEARCH: u8 = 0x63;
const SEARCH_ENTRY: u8 = 0x64;
const SEARCH_DONE: u8 = 0x65;
const SEARCH_REFERENCE: u8 = 0x73;
const EXTENDED: u8 = 0x77;
const EXTENDED_REPLY: u8 = 0x78;
/// The password in a bind, the operation's name in an extended request.
const CONTEXT_0: u8 = 0x80;

/// How far below its base a search looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Only the base.
    Base = 0,
    /// One level below.
    One = 1,
    /// The base and everything below.
    Subtree = 2,
}

/// A simple bind: whether this is the password of that DN.
pub fn bind(id: u32, dn: &str, password: &[u8]) -> Zeroizing<Vec<u8>> {
    // Of the right size from the start, so that growing leaves no copies behind.
    let room = 3 + ber::size_max(dn.len()) + ber::size_max(password.len());
    let mut body = Zeroizing::new(Vec::with_capacity(room));
    ber::put_number(&mut body, ber::INTEGER, VERSION);
    ber::put(&mut body, ber::OCTETS, dn.as_bytes());
    ber::put(&mut body, CONTEXT_0, password);
    message(id, BIND, &body)
}

/// Asks for the DNs of entries, at most two.
pub fn search(
    id: u32,
    base: &str,
    scope: Scope,
    filter: &[u8],
    seconds: u32,
) -> Zeroizing<Vec<u8>> {
    let mut attributes = Vec::new();
    ber::put(&mut attributes, ber::OCTETS, NO_ATTRIBUTES);
    let mut body = Vec::new();
    ber::put(&mut body, ber::OCTETS, base.as_bytes());
    ber::put_number(&mut body, ber::ENUMERATED, scope as u32);
    ber::put_number(&mut body, ber::ENUMERATED, 0); // aliases are not followed
    ber::put_number(&mut body, ber::INTEGER, ENTRIES_MAX);
    ber::put_number(&mut body, ber::INTEGER, seconds);
    ber::put(&mut body, ber::BOOLEAN, &[0xff]); // types only, not that any were asked for
    body.extend_from_slice(filter);
    ber::put(&mut body, ber::SEQUENCE, &attributes);
    message(id, SEARCH, &body)
}

/// Asks for TLS on this connection.
pub fn start_tls(id: u32) -> Zeroizing<Vec<u8>> {
    let mut body = Vec::new();
    ber::put(&mut body, CONTEXT_0, START_TLS);
    message(id, EXTENDED, &body)
}

/// The farewell, which has no reply.
pub fn unbind(id: u32) -> Zeroizing<Vec<u8>> {
    message(id, UNBIND, &[])
}

fn message(id: u32, operation: u8, body: &[u8]) -> Zeroizing<Vec<u8>> {
    let room = ber::size_max(body.len());
    let mut content = Zeroizing::new(Vec::with_capacity(8 + room));
    ber::put_number(&mut content, ber::INTEGER, id);
    ber::put(&mut content, operation, body);
    let mut whole = Zeroizing::new(Vec::with_capacity(ber::size_max(content.len())));
    ber::put(&mut whole, ber::SEQUENCE, &content);
    whole
}

/// What a server has said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The number of the request that this belongs to; 0 if to none.
    pub id: u32,
    /// What it is.
    pub body: ReplyBody,
}

/// The kinds of replies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplyBody {
    /// How a bind ended.
    Bound(Outcome),
    /// A DN that was found.
    Entry(String),
    /// Look elsewhere as well.
    Reference,
    /// How a search ended.
    SearchDone(Outcome),
    /// How an extended operation ended.
    Extended(Outcome),
    /// Something else.
    Other,
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The result code.
    pub code: u32,
    /// The server's words, for the log: without control characters, of bounded length.
    pub text: String,
}

impl Outcome {
    /// It ended well.
    pub fn is_success(&self) -> bool {
        self.code == 0
    }

    /// The server is there, but cannot work now: another may.
    pub fn is_indisposed(&self) -> bool {
        matches!(self.code, 51 | 52)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.code {
            0 => "Success",
            1 => "Operations error",
            2 => "Protocol error",
            3 => "Time limit exceeded",
            4 => "Size limit exceeded",
            7 => "Authentication method not supported",
            8 => "Strong(er) authentication required",
            10 => "Referral",
            13 => "Confidentiality required",
            19 => "Constraint violation",
            32 => "No such object",
            34 => "Invalid DN syntax",
            48 => "Inappropriate authentication",
            49 => "Invalid credentials",
            50 => "Insufficient access",
            51 => "Server is busy",
            52 => "Server is unavailable",
            53 => "Server is unwilling to perform",
            code => return write!(f, "LDAP result {code}{}", Detail(&self.text)),
        };
        write!(f, "{name}{}", Detail(&self.text))
    }
}

struct Detail<'a>(&'a str);

impl fmt::Display for Detail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            "" => Ok(()),
            text => write!(f, " ({text})"),
        }
    }
}

/// Reads one whole message.
///
/// # Errors
/// It is no message of LDAP.
pub fn read(bytes: &[u8]) -> Result<Reply, BerError> {
    let mut outside = Reader::new(bytes);
    let mut message = Reader::new(outside.expect(ber::SEQUENCE)?);
    if outside.element()?.is_some() {
        return Err(BerError);
    }
    let id = message.number(ber::INTEGER)?;
    let (operation, content) = message.element()?.ok_or(BerError)?;
    let mut content = Reader::new(content);
    let body = match operation {
        BIND_REPLY => ReplyBody::Bound(outcome(&mut content)?),
        SEARCH_ENTRY => ReplyBody::Entry(dn(&mut content)?),
        SEARCH_DONE => ReplyBody::SearchDone(outcome(&mut content)?),
        SEARCH_REFERENCE => ReplyBody::Reference,
        EXTENDED_REPLY => ReplyBody::Extended(outcome(&mut content)?),
        _ => ReplyBody::Other,
    };
    Ok(Reply { id, body })
}

fn dn(entry: &mut Reader<'_>) -> Result<String, BerError> {
    let dn = entry.expect(ber::OCTETS)?;
    String::from_utf8(dn.to_vec()).map_err(|_| BerError)
}

fn outcome(result: &mut Reader<'_>) -> Result<Outcome, BerError> {
    let code = result.number(ber::ENUMERATED)?;
    result.expect(ber::OCTETS)?; // how far the DN exists
    let text = String::from_utf8_lossy(result.expect(ber::OCTETS)?).into_owned();
    let shown = text.chars().filter(|c| !c.is_control());
    Ok(Outcome {
        code,
        text: shown.take(TEXT_CHARS_MAX).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reply(id: u32, operation: u8, body: &[u8]) -> Vec<u8> {
        message(id, operation, body).to_vec()
    }

    fn ended(code: u32, text: &str) -> Vec<u8> {
        let mut body = vec![];
        ber::put_number(&mut body, ber::ENUMERATED, code);
        ber::put(&mut body, ber::OCTETS, b"");
        ber::put(&mut body, ber::OCTETS, text.as_bytes());
        body
    }

    #[test]
    fn a_bind_as_it_stands_in_the_standard() {
        let expected = b"\x30\x12\x02\x01\x01\x60\x0d\x02\x01\x03\x04\x04cn=a\x80\x02pw";
        assert_eq!(*bind(1, "cn=a", b"pw"), expected);
        assert_eq!(*unbind(3), [0x30, 5, 2, 1, 3, 0x42, 0]);
    }

    #[test]
    fn replies_are_told_apart() {
        let done = Outcome {
            code: 49,
            text: "no".into(),
        };
        let body = ended(49, "n\no");
        let kinds = [
            (BIND_REPLY, ReplyBody::Bound(done.clone())),
            (SEARCH_DONE, ReplyBody::SearchDone(done.clone())),
            (EXTENDED_REPLY, ReplyBody::Extended(done)),
            (SEARCH_REFERENCE, ReplyBody::Reference),
            (0x79, ReplyBody::Other),
        ];
        for (tag, body_read) in kinds {
            let read = read(&reply(7, tag, &body)).unwrap();
            assert_eq!(
                read,
                Reply {
                    id: 7,
                    body: body_read
                }
            );
        }
        let mut entry = vec![];
        ber::put(&mut entry, ber::OCTETS, b"uid=ann");
        ber::put(&mut entry, ber::SEQUENCE, b"");
        let read = read(&reply(2, SEARCH_ENTRY, &entry)).unwrap();
        assert_eq!(read.body, ReplyBody::Entry("uid=ann".into()));
    }

    #[test]
    fn a_reply_that_is_cut_off_or_has_more_behind_it_is_none() {
        let whole = reply(1, BIND_REPLY, &ended(0, ""));
        assert!(read(&whole).is_ok());
        for end in 0..whole.len() {
            assert_eq!(read(&whole[..end]), Err(BerError));
        }
        assert_eq!(read(&[&whole[..], &whole[..]].concat()), Err(BerError));
        assert_eq!(read(&reply(1, BIND_REPLY, b"")), Err(BerError));
        assert_eq!(
            read(&reply(1, BIND_REPLY, &[2, 1, 0, 4, 0, 4, 0])),
            Err(BerError)
        );
    }

    #[test]
    fn outcomes_for_people() {
        let say = |code, text: &str| {
            let text = text.to_owned();
            Outcome { code, text }.to_string()
        };
        assert_eq!(say(49, ""), "Invalid credentials");
        assert_eq!(say(49, "80090308"), "Invalid credentials (80090308)");
        assert_eq!(say(4711, ""), "LDAP result 4711");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = read(&bytes);
        }

        #[test]
        fn only_a_bind_reply_is_read_as_one(tag in any::<u8>(), id in 0..100u32) {
            if let Ok(reply) = read(&reply(id, tag, &ended(0, ""))) {
                prop_assert_eq!(matches!(reply.body, ReplyBody::Bound(_)), tag == BIND_REPLY);
            }
        }
    }
}
