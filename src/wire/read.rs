//! Reading the few messages that the pooler must understand. Every field of a message is optional until checked: a server is as
//! little trusted as a client.

use super::startup::split_cstr;

/// The fields of an ErrorResponse or NoticeResponse that matter here; each may be missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ErrorFields<'a> {
    /// `V` if there is one, else `S`: the severity.
    pub severity: Option<&'a [u8]>,
    /// `C`: the SQLSTATE.
    pub sqlstate: Option<&'a [u8]>,
    /// `M`: the primary message.
    pub message: Option<&'a [u8]>,
    /// `R`: the routine that raised it, which is the same in every language.
    pub routine: Option<&'a [u8]>,
}

/// Reads the body of an ErrorResponse; stops quietly where it is malformed.
pub fn error_fields(mut body: &[u8]) -> ErrorFields<'_> {
    let mut fields = ErrorFields::default();
    while let Some((kind, rest)) = body.split_first() {
        let Some((value, rest)) = split_cstr(rest) else {
            break;
        };
        match kind {
            b'V' => fields.severity = Some(value),
            b'S' => fields.severity = fields.severity.or(Some(value)),
            b'C' => fields.sqlstate = Some(value),
            b'M' => fields.message = Some(value),
            b'R' => fields.routine = Some(value),
            _ => {}
        }
        body = rest;
    }
    fields
}

/// Name and value of a ParameterStatus; `None` if it is malformed.
pub fn parameter_status(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let (name, rest) = split_cstr(body)?;
    let (value, rest) = split_cstr(rest)?;
    rest.is_empty().then_some((name, value))
}

/// The kind and the data of an Authentication message; `None` if it is malformed.
pub fn authentication(body: &[u8]) -> Option<(u32, &[u8])> {
    let (kind, data) = body.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*kind), data))
}

/// Name of the statement and the rest (text and types) of a Parse body; `None` if it is malformed.
pub fn parse(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let (name, rest) = split_cstr(body)?;
    let (_text, types) = split_cstr(rest)?;
    let (count, types) = types.split_first_chunk::<2>()?;
    (types.len() == usize::from(u16::from_be_bytes(*count)) * 4).then_some((name, rest))
}

/// Portal and statement name at the front of a Bind body, and what follows them; `None` while they aren't all there.
pub fn bind(body: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (portal, rest) = split_cstr(body)?;
    let (statement, rest) = split_cstr(rest)?;
    Some((portal, statement, rest))
}

/// What a Close or Describe body names: `S` or `P`, and the name; `None` if it is malformed.
pub fn target(body: &[u8]) -> Option<(u8, &[u8])> {
    let (kind, rest) = body.split_first()?;
    let (name, rest) = split_cstr(rest)?;
    (rest.is_empty() && matches!(kind, b'S' | b'P')).then_some((*kind, name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn errors() {
        let got = error_fields(b"SFATAL\0C28P01\0Mno\0Rauth\0\0");
        let want = (Some(&b"FATAL"[..]), Some(&b"28P01"[..]), Some(&b"no"[..]));
        assert_eq!((got.severity, got.sqlstate, got.message), want);
    }

    #[test]
    fn cve_2026_6666_an_error_without_sqlstate_is_survived() {
        assert_eq!(error_fields(b"SFATAL\0\0").sqlstate, None);
        assert_eq!(error_fields(b""), ErrorFields::default());
        assert_eq!(error_fields(b"C"), ErrorFields::default());
    }

    #[test]
    fn statements() {
        assert_eq!(
            parse(b"s\0select\0\0\x01\0\0\0\x17"),
            Some((&b"s"[..], &b"select\0\0\x01\0\0\0\x17"[..]))
        );
        assert_eq!(parse(b"s\0select\0\0\x02\0\0\0\x17"), None);
        assert_eq!(parse(b"s\0select"), None);
        assert_eq!(
            bind(b"p\0s\0rest"),
            Some((&b"p"[..], &b"s"[..], &b"rest"[..]))
        );
        assert_eq!(target(b"Ss\0"), Some((b'S', &b"s"[..])));
        assert_eq!(target(b"Xs\0"), None);
        assert_eq!(target(b"Ss\0x"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = (error_fields(&bytes), parameter_status(&bytes), authentication(&bytes));
            let _ = (parse(&bytes), bind(&bytes), target(&bytes));
        }
    }
}
