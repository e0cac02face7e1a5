//! Tags and lengths of BER, as far as LDAP uses them: one byte of tag, definite lengths.
//!
//! Reading never recurses and never allocates: elements are slices of what came in. What the elements mean is
//! [`super::message`]'s business.

use std::fmt;

/// BOOLEAN
pub const BOOLEAN: u8 = 0x01;
/// INTEGER
pub const INTEGER: u8 = 0x02;
/// OCTET STRING
pub const OCTETS: u8 = 0x04;
/// ENUMERATED
pub const ENUMERATED: u8 = 0x0a;
/// SEQUENCE
pub const SEQUENCE: u8 = 0x30;

/// In the first byte of a length: how many more follow is in the other bits.
const LONG_FORM: u8 = 0x80;
/// Bytes of the longest length that is read; more is nothing that anybody would send us.
const LENGTH_BYTES_MAX: usize = 4;
/// The low bits of a tag: all set means that the tag goes on, which LDAP's never do.
const TAG_NUMBER: u8 = 0x1f;

/// Bytes that are no BER, or not the element that has to come here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BerError;

impl fmt::Display for BerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("malformed LDAP message")
    }
}

impl std::error::Error for BerError {}

/// The elements in a row of bytes.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Reads from the beginning of these.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader(bytes)
    }

    /// The next element: tag and content; `None` after the last.
    ///
    /// # Errors
    /// It is cut off, or its tag or length is of a form that LDAP has not.
    pub fn element(&mut self) -> Result<Option<(u8, &'a [u8])>, BerError> {
        let Some(tag) = self.0.first().copied() else {
            return Ok(None);
        };
        let (begin, end) = extent(self.0)?.ok_or(BerError)?;
        let content = self.0.get(begin..end).ok_or(BerError)?;
        self.0 = &self.0[end..];
        Ok(Some((tag, content)))
    }

    /// The content of the next element, which has to have this tag.
    ///
    /// # Errors
    /// It has not, or there is none.
    pub fn expect(&mut self, tag: u8) -> Result<&'a [u8], BerError> {
        match self.element()? {
            Some((found, content)) if found == tag => Ok(content),
            _ => Err(BerError),
        }
    }

    /// A number that is not negative, below 2^31.
    ///
    /// # Errors
    /// It is another number, or none.
    pub fn number(&mut self, tag: u8) -> Result<u32, BerError> {
        let content = self.expect(tag)?;
        match content {
            [first, ..] if content.len() <= 4 && first & 0x80 == 0 => {
                let value = content.iter().fold(0, |n, byte| n << 8 | u32::from(*byte));
                Ok(value)
            }
            _ => Err(BerError),
        }
    }
}

/// Where the content of the first element begins and ends, as far as its first bytes say; `None`: more bytes are needed to know.
///
/// # Errors
/// The tag or the length is of a form that LDAP has not.
pub fn extent(bytes: &[u8]) -> Result<Option<(usize, usize)>, BerError> {
    let (Some(tag), Some(first)) = (bytes.first(), bytes.get(1)) else {
        return Ok(None);
    };
    if tag & TAG_NUMBER == TAG_NUMBER {
        return Err(BerError);
    }
    if first & LONG_FORM == 0 {
        return Ok(Some((2, 2 + usize::from(*first))));
    }
    let count = usize::from(first & !LONG_FORM);
    if count == 0 || count > LENGTH_BYTES_MAX {
        return Err(BerError);
    }
    let Some(digits) = bytes.get(2..2 + count) else {
        return Ok(None);
    };
    let length = digits
        .iter()
        .fold(0u64, |n, byte| n << 8 | u64::from(*byte));
    let end = (2 + count) as u64 + length;
    Ok(Some((
        2 + count,
        usize::try_from(end).map_err(|_| BerError)?,
    )))
}

/// Bytes of an element with this much content, at most.
pub fn size_max(content: usize) -> usize {
    2 + size_of::<usize>() + content
}

/// Appends an element.
pub fn put(out: &mut Vec<u8>, tag: u8, content: &[u8]) {
    out.push(tag);
    let length = content.len();
    match u8::try_from(length) {
        Ok(short) if short & LONG_FORM == 0 => out.push(short),
        _ => {
            let digits = length.to_be_bytes();
            let zeros = digits.iter().take_while(|digit| **digit == 0).count();
            let digits = &digits[zeros..];
            // At most eight of them.
            out.push(LONG_FORM | digits.len() as u8);
            out.extend_from_slice(digits);
        }
    }
    out.extend_from_slice(content);
}

/// Appends a number.
pub fn put_number(out: &mut Vec<u8>, tag: u8, value: u32) {
    let digits = u64::from(value).to_be_bytes();
    // A leading bit that is set would make it negative.
    let is_needed =
        |at: &usize| digits[*at] != 0 || digits.get(at + 1).is_none_or(|d| d & 0x80 != 0);
    let begin = (0..digits.len())
        .find(is_needed)
        .unwrap_or(digits.len() - 1);
    put(out, tag, &digits[begin..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lengths() {
        for (length, head) in [
            (0, vec![4, 0]),
            (127, vec![4, 127]),
            (128, vec![4, 0x81, 128]),
            (256, vec![4, 0x82, 1, 0]),
            (65_536, vec![4, 0x83, 1, 0, 0]),
        ] {
            let mut out = vec![];
            put(&mut out, OCTETS, &vec![7; length]);
            assert!(out.starts_with(&head), "{length}");
            assert!(out.len() <= size_max(length));
            let mut reader = Reader::new(&out);
            assert_eq!(reader.expect(OCTETS).unwrap().len(), length);
            assert_eq!(reader.element(), Ok(None));
        }
    }

    #[test]
    fn numbers() {
        for (value, bytes) in [
            (0, vec![2, 1, 0]),
            (127, vec![2, 1, 127]),
            (128, vec![2, 2, 0, 128]),
            (256, vec![2, 2, 1, 0]),
            (0x7fff_ffff, vec![2, 4, 0x7f, 0xff, 0xff, 0xff]),
        ] {
            let mut out = vec![];
            put_number(&mut out, INTEGER, value);
            assert_eq!(out, bytes);
            assert_eq!(Reader::new(&out).number(INTEGER), Ok(value));
        }
        for bad in [
            &[2, 0][..],
            &[2, 1, 0x80],
            &[2, 5, 0, 0, 0, 0, 1],
            &[10, 1, 0],
        ] {
            assert_eq!(Reader::new(bad).number(INTEGER), Err(BerError), "{bad:?}");
        }
    }

    #[test]
    fn forms_that_ldap_has_not() {
        for bad in [
            &[0x30, 0x80, 0, 0][..],
            &[0x30, 0x85, 0, 0, 0, 0, 1, 0],
            &[0x3f, 1, 0],
            &[0x30, 2, 0],
            &[0x30],
        ] {
            assert_eq!(Reader::new(bad).element(), Err(BerError), "{bad:?}");
        }
        assert_eq!(
            extent(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]),
            Ok(Some((6, 0x1_0000_0005)))
        );
        assert_eq!(extent(&[0x30, 0x82, 1]), Ok(None));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_to_an_end(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut reader = Reader::new(&bytes);
            while let Ok(Some((_, content))) = reader.element() {
                prop_assert!(content.len() <= bytes.len());
            }
        }
    }
}
