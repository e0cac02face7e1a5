//! The attributes a SCRAM message is made of: `k=value`, separated by commas (RFC 5802, section 5.1).
//!
//! A cursor over borrowed bytes. It does not know which attributes belong to which message.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::MESSAGE_BYTES_MAX;
use super::crypto::Key;

/// The message does not follow the grammar, or is too long.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// The attributes still unread.
pub(super) struct Attributes<'a> {
    message: &'a [u8],
    /// Where the next attribute begins; one past the end of the message when all were read.
    at: usize,
}

impl<'a> Attributes<'a> {
    /// All attributes of `message`.
    pub(super) fn of(message: &'a [u8]) -> Result<Self, Malformed> {
        match message.len() {
            1..=MESSAGE_BYTES_MAX => Ok(Attributes { message, at: 0 }),
            _ => Err(Malformed),
        }
    }

    /// Whether the last one was read.
    pub(super) fn is_done(&self) -> bool {
        self.at > self.message.len()
    }

    /// The name of the next attribute, if there is one.
    pub(super) fn peek(&self) -> Option<u8> {
        self.message.get(self.at).copied()
    }

    /// What precedes the next attribute, without the comma between.
    pub(super) fn before(&self) -> &'a [u8] {
        &self.message[..self.at.saturating_sub(1)]
    }

    /// The next attribute, whatever it is called.
    pub(super) fn next(&mut self) -> Result<(u8, &'a [u8]), Malformed> {
        let rest = self.message.get(self.at..).ok_or(Malformed)?;
        let end = rest
            .iter()
            .position(|byte| *byte == b',')
            .unwrap_or(rest.len());
        match &rest[..end] {
            [name, b'=', value @ ..] if name.is_ascii_alphabetic() => {
                self.at += end + 1;
                Ok((*name, value))
            }
            _ => Err(Malformed),
        }
    }

    /// The value of the next attribute, which must be called `name`.
    pub(super) fn value_of(&mut self, name: u8) -> Result<&'a [u8], Malformed> {
        match self.next()? {
            (found, value) if found == name => Ok(value),
            _ => Err(Malformed),
        }
    }

    /// Steps over optional extensions up to the end: nobody knows any, and everybody must ignore them.
    pub(super) fn skip_extensions(mut self) -> Result<(), Malformed> {
        while !self.is_done() {
            self.next()?;
        }
        Ok(())
    }
}

/// Canonical base64 with padding, of at most `bytes_max` bytes when decoded.
pub(super) fn decode(text: &[u8], bytes_max: usize) -> Result<Vec<u8>, Malformed> {
    if text.len() > bytes_max.div_ceil(3) * 4 {
        return Err(Malformed);
    }
    let decoded = STANDARD.decode(text).map_err(|_| Malformed)?;
    if decoded.len() > bytes_max {
        return Err(Malformed);
    }
    Ok(decoded)
}

/// A base64 value of exactly one key's size.
pub(super) fn decode_key(text: &[u8]) -> Result<Key, Malformed> {
    let decoded = Zeroizing::new(decode(text, size_of::<Key>())?);
    decoded.as_slice().try_into().map_err(|_| Malformed)
}

/// A decimal number from 1 to `max`, without sign or leading zero.
pub(super) fn decode_iterations(text: &[u8], max: u32) -> Result<u32, Malformed> {
    let digits = text.iter().all(u8::is_ascii_digit) && text.len() <= 10;
    if !digits || !matches!(text.first(), Some(b'1'..=b'9')) {
        return Err(Malformed);
    }
    let number = text
        .iter()
        .fold(0u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    match u32::try_from(number) {
        Ok(iterations) if iterations <= max => Ok(iterations),
        _ => Err(Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(message: &[u8]) -> Result<Vec<(u8, Vec<u8>)>, Malformed> {
        let mut attributes = Attributes::of(message)?;
        let mut found = Vec::new();
        while !attributes.is_done() {
            let (name, value) = attributes.next()?;
            found.push((name, value.to_vec()));
        }
        Ok(found)
    }

    #[test]
    fn attributes_are_split_at_commas() {
        assert_eq!(
            all(b"n=,r=a=b"),
            Ok(vec![(b'n', vec![]), (b'r', b"a=b".to_vec())])
        );
    }

    #[test]
    fn what_is_no_attribute_is_malformed() {
        let malformed: [&[u8]; 9] = [
            b"",
            b",",
            b"n",
            b"n=,",
            b"n=,,r=x",
            b"=x",
            b"1=x",
            b"nr=x",
            &[b'n'; 5000],
        ];
        for message in malformed {
            assert_eq!(
                all(message),
                Err(Malformed),
                "{}",
                String::from_utf8_lossy(message)
            );
        }
    }

    #[test]
    fn reading_past_the_end_is_malformed() {
        let mut attributes = Attributes::of(b"n=x").unwrap();
        attributes.next().unwrap();
        assert_eq!(attributes.peek(), None);
        assert_eq!(attributes.next(), Err(Malformed));
        assert_eq!(attributes.next(), Err(Malformed));
    }

    #[test]
    fn before_ends_at_the_comma() {
        let mut attributes = Attributes::of(b"c=biws,r=x,p=y").unwrap();
        assert_eq!(attributes.before(), b"");
        attributes.next().unwrap();
        attributes.next().unwrap();
        assert_eq!(
            (attributes.peek(), attributes.before()),
            (Some(b'p'), &b"c=biws,r=x"[..])
        );
        attributes.next().unwrap();
        assert_eq!(attributes.before(), b"c=biws,r=x,p=y");
    }

    #[test]
    fn iterations_are_plain_decimals_within_the_limit() {
        assert_eq!(decode_iterations(b"1", 10), Ok(1));
        assert_eq!(decode_iterations(b"4294967295", u32::MAX), Ok(u32::MAX));
        for bad in [
            "",
            "0",
            "-1",
            "+1",
            "01",
            "1 ",
            "0x10",
            "11",
            "4294967296",
            "99999999999999999999",
        ] {
            assert_eq!(
                decode_iterations(bad.as_bytes(), 10),
                Err(Malformed),
                "{bad}"
            );
        }
    }

    #[test]
    fn base64_is_bounded() {
        assert_eq!(decode(b"QUJD", 3).unwrap(), b"ABC");
        for bad in ["QUJDRA==", "QUJ", "QU!D", "QUJD\n"] {
            assert_eq!(decode(bad.as_bytes(), 3), Err(Malformed), "{bad}");
        }
        assert_eq!(decode(b"QUI=", 1), Err(Malformed));
    }
}
