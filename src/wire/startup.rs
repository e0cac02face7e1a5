//! The first packet of a connection: start-up parameters, or a request for TLS, GSS or a cancellation.

use std::fmt;

use super::build::{CANCEL_REQUEST, GSSENC_REQUEST, PROTOCOL_3_0, SSL_REQUEST};

/// The largest start-up packet, its length field included; the same as PostgreSQL's and PgBouncer's.
pub const STARTUP_LEN_MAX: u32 = 65_535;
/// The smallest first packet: length and code.
pub const STARTUP_LEN_MIN: u32 = 8;

/// What the first packet asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FirstPacket {
    /// SSLRequest
    Ssl,
    /// GSSENCRequest
    GssEnc,
    /// CancelRequest with an eight-byte key
    Cancel([u8; 8]),
    /// StartupMessage of protocol 3.x
    Startup(Startup),
}

/// A StartupMessage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Startup {
    /// The minor version asked for; above zero, the client is negotiated down to 3.0.
    pub minor: u16,
    /// Names and values in the order given, without the `_pq_.` ones.
    pub parameters: Vec<(Vec<u8>, Vec<u8>)>,
    /// Names that begin with `_pq_.`: protocol options, none of which is known.
    pub protocol_options: Vec<Vec<u8>>,
}

impl Startup {
    /// The value of a parameter; the last one wins if it is given more than once.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        let found = self.parameters.iter().rev().find(|(key, _)| key == name);
        found.map(|(_, value)| &value[..])
    }

    /// True if the client has to be told that less is spoken here than it asked for.
    pub fn needs_negotiation(&self) -> bool {
        self.minor > 0 || !self.protocol_options.is_empty()
    }
}

/// Why a first packet can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartupError {
    /// The length or the code is none that the protocol knows.
    BadHeader,
    /// Protocol 2.0, which PostgreSQL has dropped.
    ProtocolV2,
    /// A CancelRequest without exactly eight bytes of key.
    BadCancel,
    /// The parameters don't end where the packet ends, or a name has no value.
    NoTerminator,
}

impl fmt::Display for StartupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StartupError::BadHeader => "bad packet header",
            StartupError::ProtocolV2 => "old V2 protocol not supported",
            StartupError::BadCancel => "bad cancel request",
            StartupError::NoTerminator => {
                "invalid startup packet layout: expected terminator as last byte"
            }
        })
    }
}

impl std::error::Error for StartupError {}

/// Checks the length field of a first packet before anything is allocated for it; returns the length of the whole packet.
pub fn packet_len(first_four: [u8; 4]) -> Result<usize, StartupError> {
    let len = u32::from_be_bytes(first_four);
    if (STARTUP_LEN_MIN..=STARTUP_LEN_MAX).contains(&len) {
        Ok(len as usize)
    } else {
        Err(StartupError::BadHeader)
    }
}

/// Reads a whole first packet, length field included.
pub fn parse(packet: &[u8]) -> Result<FirstPacket, StartupError> {
    let Some((head, body)) = packet.split_first_chunk::<8>() else {
        return Err(StartupError::BadHeader);
    };
    let code = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
    match code {
        SSL_REQUEST if body.is_empty() => Ok(FirstPacket::Ssl),
        GSSENC_REQUEST if body.is_empty() => Ok(FirstPacket::GssEnc),
        CANCEL_REQUEST => body
            .try_into()
            .map(FirstPacket::Cancel)
            .map_err(|_| StartupError::BadCancel),
        _ if code >> 16 == 2 => Err(StartupError::ProtocolV2),
        _ if code >> 16 == PROTOCOL_3_0 >> 16 => {
            parse_parameters(code as u16, body).map(FirstPacket::Startup)
        }
        _ => Err(StartupError::BadHeader),
    }
}

fn parse_parameters(minor: u16, body: &[u8]) -> Result<Startup, StartupError> {
    let mut startup = Startup {
        minor,
        ..Startup::default()
    };
    let mut rest = body.strip_suffix(&[0]).ok_or(StartupError::NoTerminator)?;
    while !rest.is_empty() {
        let (name, after) = split_cstr(rest).ok_or(StartupError::NoTerminator)?;
        let (value, after) = split_cstr(after).ok_or(StartupError::NoTerminator)?;
        if name.is_empty() {
            return Err(StartupError::NoTerminator);
        }
        if name.starts_with(b"_pq_.") {
            startup.protocol_options.push(name.to_vec());
        } else {
            startup.parameters.push((name.to_vec(), value.to_vec()));
        }
        rest = after;
    }
    Ok(startup)
}

/// Splits a zero-terminated text off the front: the text without its zero, and what follows.
pub fn split_cstr(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|b| *b == 0)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::super::build;
    use super::*;
    use proptest::prelude::*;

    fn packet(code: u32, body: &[u8]) -> Vec<u8> {
        let mut out = (8 + body.len() as u32).to_be_bytes().to_vec();
        out.extend_from_slice(&code.to_be_bytes());
        out.extend_from_slice(body);
        out
    }

    #[test]
    fn requests() {
        assert_eq!(parse(&packet(SSL_REQUEST, b"")), Ok(FirstPacket::Ssl));
        assert_eq!(parse(&packet(GSSENC_REQUEST, b"")), Ok(FirstPacket::GssEnc));
        assert_eq!(
            parse(&packet(CANCEL_REQUEST, b"12345678")),
            Ok(FirstPacket::Cancel(*b"12345678"))
        );
        assert_eq!(
            parse(&packet(CANCEL_REQUEST, b"123456789")),
            Err(StartupError::BadCancel)
        );
        assert_eq!(parse(&packet(2 << 16, b"")), Err(StartupError::ProtocolV2));
        assert_eq!(parse(&packet(7 << 16, b"\0")), Err(StartupError::BadHeader));
    }

    #[test]
    fn parameters() {
        let Ok(FirstPacket::Startup(got)) =
            parse(&packet(3 << 16 | 2, b"user\0u\0_pq_.x\0\0user\0v\0\0"))
        else {
            panic!("not read");
        };
        assert_eq!((got.minor, got.get(b"user")), (2, Some(&b"v"[..])));
        assert_eq!(got.protocol_options, [b"_pq_.x".to_vec()]);
        assert!(got.needs_negotiation());
        for broken in [
            &b""[..],
            b"user",
            b"user\0u",
            b"user\0\0",
            b"user\0u\0",
            b"\0\0\0",
        ] {
            assert!(parse(&packet(3 << 16, broken)).is_err(), "{broken:?}");
        }
    }

    #[test]
    fn cve_2026_107348_lengths_are_checked_before_anything_is_allocated() {
        for len in [0, 7, 65_536, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
            assert_eq!(packet_len(len.to_be_bytes()), Err(StartupError::BadHeader));
        }
        assert_eq!(packet_len(65_535u32.to_be_bytes()), Ok(65_535));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn what_is_built_is_read(pairs in prop::collection::vec(("[a-z_.]{1,8}", "[^\0]{0,8}"), 0..8)) {
            let mut out = Vec::new();
            build::startup(&mut out, pairs.iter().map(|(k, v)| (k.as_bytes(), v.as_bytes())));
            let Ok(FirstPacket::Startup(got)) = parse(&out) else { panic!("not read") };
            let want: Vec<_> = pairs.iter().map(|(k, v)| (k.clone().into_bytes(), v.clone().into_bytes())).collect();
            prop_assert_eq!(got.parameters, want);
        }
    }
}
