//! Where a message begins and ends: the five-byte header of every message after start-up.
//!
//! [`header`] looks at one header; [`Passing`] remembers how much of a message that is being passed through is still to come,
//! so that a message larger than any buffer never needs to be held.

/// Bytes of a header: the tag and the length that counts itself but not the tag.
pub const HEADER_LEN: usize = 5;

/// The header of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What message it is; see [`super::tag`].
    pub tag: u8,
    /// Bytes of the whole message, tag and length included.
    pub total: u64,
}

impl Header {
    /// Bytes of the body.
    pub fn body_len(self) -> u64 {
        self.total - HEADER_LEN as u64
    }
}

/// A length field that no message can have: below four, or above the limit in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadLength {
    /// The length as the peer declared it.
    pub declared: u32,
}

/// Reads the header at the start of `bytes`: `None` while fewer than five bytes are there.
///
/// The length is checked here, before anybody allocates for it: `limit` is the largest acceptable value of the length field.
pub fn header(bytes: &[u8], limit: u32) -> Result<Option<Header>, BadLength> {
    let Some((head, _)) = bytes.split_first_chunk::<HEADER_LEN>() else {
        return Ok(None);
    };
    let declared = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
    if declared < 4 || declared > limit {
        return Err(BadLength { declared });
    }
    Ok(Some(Header {
        tag: head[0],
        total: u64::from(declared) + 1,
    }))
}

/// How much of the message being passed through is still to come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passing {
    left: u64,
}

impl Passing {
    /// True between messages: the next byte is a tag.
    pub fn at_boundary(self) -> bool {
        self.left == 0
    }

    /// Starts a message of `total` bytes at the head of `available` bytes; returns how many of these belong to it.
    pub fn begin(&mut self, total: u64, available: usize) -> usize {
        debug_assert!(self.at_boundary());
        self.left = total;
        self.advance(available)
    }

    /// Takes as many of `available` bytes as the current message still needs.
    pub fn advance(&mut self, available: usize) -> usize {
        let taken = self.left.min(available as u64);
        self.left -= taken;
        // `taken` is at most `available`, which is a usize.
        taken as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn headers() {
        assert_eq!(header(b"", 100), Ok(None));
        assert_eq!(header(b"Q\0\0\0", 100), Ok(None));
        let got = header(b"Q\0\0\0\x04", 100).unwrap().unwrap();
        assert_eq!((got.tag, got.total, got.body_len()), (b'Q', 5, 0));
        assert_eq!(header(b"Q\0\0\0\x03", 100), Err(BadLength { declared: 3 }));
        assert_eq!(
            header(b"Q\0\0\0\x65", 100),
            Err(BadLength { declared: 101 })
        );
        assert!(header(b"Q\xff\xff\xff\xff", u32::MAX).unwrap().is_some());
    }

    proptest! {
        /// However the bytes are cut, the same messages are found and nothing is left over.
        #[test]
        fn cutting_does_not_matter(bodies in prop::collection::vec(0usize..300, 1..20), cuts in prop::collection::vec(1usize..64, 1..200)) {
            let mut bytes = Vec::new();
            for len in &bodies {
                bytes.push(b'd');
                bytes.extend_from_slice(&(*len as u32 + 4).to_be_bytes());
                bytes.extend(std::iter::repeat_n(7u8, *len));
            }
            let mut passing = Passing::default();
            let mut held: Vec<u8> = Vec::new();
            let mut found = Vec::new();
            let mut cuts = cuts.iter().cycle();
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let n = (*cuts.next().unwrap()).min(rest.len());
                held.extend_from_slice(&rest[..n]);
                rest = &rest[n..];
                let mut at = 0;
                loop {
                    at += passing.advance(held.len() - at);
                    if !passing.at_boundary() { break; }
                    match header(&held[at..], u32::MAX).unwrap() {
                        None => break,
                        Some(h) => { found.push(h.body_len() as usize); at += passing.begin(h.total, held.len() - at); }
                    }
                }
                held.drain(..at);
            }
            prop_assert!(held.is_empty() && passing.at_boundary());
            prop_assert_eq!(found, bodies);
        }
    }
}
