//! What a server sends, however it is cut into pieces. Pure: given bytes, gives the few replies that a load cares for.
//!
//! Bodies are skipped where they lie, except those of Authentication and ErrorResponse, so that no client needs a buffer of its own.

use std::fmt;

use pgweir::wire::tag::from_server;

/// A reply that a load cares for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// Authentication request of any kind; its body is kept.
    Authentication,
    /// ErrorResponse; its body is kept.
    Error,
    /// DataRow
    Row,
    /// ReadyForQuery
    Ready,
}

/// What no load expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadReply {
    /// A length field below four.
    Length(u32),
    /// The query is a COPY that wants data from us.
    WantsCopyData,
}

impl fmt::Display for BadReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadReply::Length(length) => write!(f, "a reply of impossible length {length}"),
            BadReply::WantsCopyData => f.write_str("the query waits for data of a COPY"),
        }
    }
}

impl std::error::Error for BadReply {}

/// Longest body that is kept; of longer ones, the head.
const KEPT_BYTES_MAX: usize = 16 * 1024;
const HEADER_LEN: usize = 5;

/// Finds replies in a stream of bytes.
#[derive(Default)]
pub struct Replies {
    header: [u8; HEADER_LEN],
    header_have: usize,
    /// Bytes of the current body that are still to come.
    body_left: usize,
    kept: Vec<u8>,
}

impl Replies {
    /// Takes bytes from the front of `input` up to the end of the next reply; `None` when all were taken before that.
    ///
    /// # Errors
    /// What no load expects; nothing more can be read then.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<Reply>, BadReply> {
        loop {
            if self.header_have < HEADER_LEN && !self.take_header(input)? {
                return Ok(None);
            }
            self.take_body(input);
            if self.body_left > 0 {
                return Ok(None);
            }
            self.header_have = 0;
            if let Some(reply) = self.reply() {
                return Ok(Some(reply));
            }
        }
    }

    /// Body of the last Authentication or ErrorResponse.
    pub fn body(&self) -> &[u8] {
        &self.kept
    }

    /// Whether the header is complete now.
    fn take_header(&mut self, input: &mut &[u8]) -> Result<bool, BadReply> {
        let taken = (HEADER_LEN - self.header_have).min(input.len());
        self.header[self.header_have..][..taken].copy_from_slice(&input[..taken]);
        *input = &input[taken..];
        self.header_have += taken;
        if self.header_have < HEADER_LEN {
            return Ok(false);
        }
        let [tag, a, b, c, d] = self.header;
        let length = u32::from_be_bytes([a, b, c, d]);
        self.body_left = length.checked_sub(4).ok_or(BadReply::Length(length))? as usize;
        match tag {
            from_server::COPY_IN_RESPONSE | from_server::COPY_BOTH_RESPONSE => {
                return Err(BadReply::WantsCopyData);
            }
            from_server::AUTHENTICATION | from_server::ERROR_RESPONSE => self.kept.clear(),
            _ => {}
        }
        Ok(true)
    }

    fn take_body(&mut self, input: &mut &[u8]) {
        let taken = self.body_left.min(input.len());
        if matches!(
            self.header[0],
            from_server::AUTHENTICATION | from_server::ERROR_RESPONSE
        ) {
            let kept = taken.min(KEPT_BYTES_MAX - self.kept.len());
            self.kept.extend_from_slice(&input[..kept]);
        }
        *input = &input[taken..];
        self.body_left -= taken;
    }

    /// What the message that has just ended was.
    fn reply(&self) -> Option<Reply> {
        match self.header[0] {
            from_server::AUTHENTICATION => Some(Reply::Authentication),
            from_server::ERROR_RESPONSE => Some(Reply::Error),
            from_server::DATA_ROW => Some(Reply::Row),
            from_server::READY_FOR_QUERY => Some(Reply::Ready),
            _ => None,
        }
    }
}

/// Severity, SQLSTATE and message out of the body of an ErrorResponse.
pub fn error_text(body: &[u8]) -> String {
    let field = |tag: u8| {
        let mut fields = body.split(|&byte| byte == 0);
        let found = fields.find(|field| field.first() == Some(&tag));
        found.map_or("?".into(), |field| String::from_utf8_lossy(&field[1..]))
    };
    format!("{} {}: {}", field(b'S'), field(b'C'), field(b'M'))
}

#[cfg(test)]
mod tests {
    use pgweir::wire::build;

    use super::*;

    fn bytes() -> Vec<u8> {
        let mut out = Vec::new();
        build::authentication_sasl(&mut out, "SCRAM-SHA-256");
        build::authentication_ok(&mut out);
        build::parameter_status(&mut out, b"TimeZone", b"UTC");
        build::ready_for_query(&mut out, b'I');
        build::row_description(&mut out, [("a", 23)].into_iter());
        build::data_row(&mut out, [Some(b"1".as_slice())].into_iter());
        build::bare(&mut out, b'3');
        build::error(
            &mut out,
            build::Severity::Error,
            "22012",
            b"division by zero",
        );
        build::ready_for_query(&mut out, b'I');
        out
    }

    /// Replies with the bodies of those that are kept, the bytes coming in pieces of this size.
    fn read(bytes: &[u8], piece: usize) -> Vec<(Reply, Vec<u8>)> {
        let mut replies = Replies::default();
        let mut seen = Vec::new();
        for mut input in bytes.chunks(piece) {
            while let Some(reply) = replies.next(&mut input).unwrap() {
                let body = match reply {
                    Reply::Authentication | Reply::Error => replies.body().to_vec(),
                    Reply::Row | Reply::Ready => Vec::new(),
                };
                seen.push((reply, body));
            }
            assert!(input.is_empty());
        }
        seen
    }

    #[test]
    fn the_same_replies_however_the_bytes_are_cut() {
        let bytes = bytes();
        let whole = read(&bytes, bytes.len());
        let kinds: Vec<Reply> = whole.iter().map(|(reply, _)| *reply).collect();
        use Reply::{Authentication, Error, Ready, Row};
        assert_eq!(
            kinds,
            [Authentication, Authentication, Ready, Row, Error, Ready]
        );
        assert_eq!(whole[0].1, b"\0\0\0\x0aSCRAM-SHA-256\0\0");
        assert_eq!(whole[1].1, [0; 4]);
        assert_eq!(error_text(&whole[4].1), "ERROR 22012: division by zero");
        for piece in 1..bytes.len() {
            assert_eq!(read(&bytes, piece), whole, "pieces of {piece}");
        }
    }

    #[test]
    fn what_no_load_expects_is_an_error() {
        let next = |mut input: &[u8]| Replies::default().next(&mut input);
        assert_eq!(next(b"Z\0\0\0\x03"), Err(BadReply::Length(3)));
        assert_eq!(next(b"G\0\0\0\x07\0\0\0"), Err(BadReply::WantsCopyData));
    }

    #[test]
    fn a_long_error_is_kept_in_part_and_skipped_as_a_whole() {
        let mut bytes = Vec::new();
        let text = vec![b'x'; 3 * KEPT_BYTES_MAX];
        build::error(&mut bytes, build::Severity::Error, "XX000", &text);
        build::ready_for_query(&mut bytes, b'I');
        let seen = read(&bytes, 1000);
        assert_eq!(seen[0].1.len(), KEPT_BYTES_MAX);
        assert_eq!(seen[1].0, Reply::Ready);
    }

    #[test]
    fn an_error_without_fields_has_a_text() {
        assert_eq!(error_text(b""), "? ?: ?");
    }
}
