//! What a server answers to `auth_query`: from its messages to the user found. Pure; the server is trusted with nothing.
//!
//! One row of two columns is expected, name and secret. Of several rows the last counts; a row whose name is NULL or empty is no
//! user. Sending the query is [`Server::inquire`](crate::server::conn::Server::inquire)'s.

use std::fmt;

use super::secret::Secret;
use super::user::{USER_BYTES_MAX, User};
use crate::wire::read;
use crate::wire::tag::from_server as tag;

/// The most bytes of one answer, whatever is in it: room for the longest secret, and for some notices.
pub const ANSWER_BYTES_MAX: usize = 256 << 10;
/// The most bytes of an error's text that are kept for the log.
const ERROR_BYTES_MAX: usize = 4096;
/// Name and secret.
const COLUMNS: u16 = 2;

/// Why an answer is none. `Display` is the reason for which the server connection is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The server refused the query: severity and message.
    Error(String, String),
    /// So many columns, instead of two.
    Columns(u16),
    /// A message that may not come here: its tag.
    Unexpected(u8),
    /// A message that contradicts itself.
    Malformed,
    /// More than [`ANSWER_BYTES_MAX`].
    TooLong,
    /// A user name longer than [`USER_BYTES_MAX`].
    NameTooLong,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Error(..) => f.write_str("error response from auth_query"),
            Fault::Columns(count) => write!(f, "expected 2 columns from auth_query, not {count}"),
            Fault::Unexpected(_) => f.write_str("unexpected response from auth_query"),
            Fault::Malformed => f.write_str("malformed response from auth_query"),
            Fault::TooLong => f.write_str("too long a response from auth_query"),
            Fault::NameTooLong => f.write_str("too long a user name from auth_query"),
        }
    }
}

impl std::error::Error for Fault {}

/// An answer, as far as it has come.
#[derive(Debug, Default)]
pub struct Answer {
    bytes: usize,
    described: bool,
    complete: bool,
    user: Option<User>,
}

impl Answer {
    /// Takes one whole message.
    ///
    /// # Errors
    /// This is no answer; the connection it came from is not to be used any more.
    pub fn take(&mut self, tag: u8, body: &[u8]) -> Result<(), Fault> {
        self.bytes += body.len() + crate::wire::frame::HEADER_LEN;
        if self.bytes > ANSWER_BYTES_MAX {
            return Err(Fault::TooLong);
        }
        match tag {
            tag::ROW_DESCRIPTION => self.describe(body),
            tag::NO_DATA => Err(Fault::Columns(0)),
            tag::DATA_ROW if self.described => self.row(body),
            tag::ERROR_RESPONSE => Err(refusal(body)),
            tag::PARSE_COMPLETE
            | tag::BIND_COMPLETE
            | tag::COMMAND_COMPLETE
            | tag::NOTICE_RESPONSE
            | tag::NOTIFICATION_RESPONSE
            | tag::PARAMETER_STATUS => Ok(()),
            tag::READY_FOR_QUERY if self.described => {
                self.complete = true;
                Ok(())
            }
            other => Err(Fault::Unexpected(other)),
        }
    }

    /// The server is done, and nothing more of this answer will come.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Bytes of the answer so far.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The user of the last row, if it named one.
    pub fn into_user(self) -> Option<User> {
        self.user
    }

    fn describe(&mut self, body: &[u8]) -> Result<(), Fault> {
        let (count, _) = split_count(body)?;
        self.described = true;
        check_columns(count)
    }

    fn row(&mut self, body: &[u8]) -> Result<(), Fault> {
        let (count, rest) = split_count(body)?;
        check_columns(count)?;
        let (name, rest) = split_value(rest)?;
        let (secret, rest) = split_value(rest)?;
        if !rest.is_empty() {
            return Err(Fault::Malformed);
        }
        self.user = match name {
            None | Some([]) => None,
            Some(name) if name.len() > USER_BYTES_MAX => return Err(Fault::NameTooLong),
            Some(name) if name.contains(&0) => return Err(Fault::Malformed),
            Some(name) => Some(User::new(name, secret.map_or(Secret::None, Secret::parse))),
        };
        Ok(())
    }
}

fn refusal(body: &[u8]) -> Fault {
    let fields = read::error_fields(body);
    let text = |bytes: Option<&[u8]>, otherwise: &'static str| match bytes {
        Some(bytes) => {
            String::from_utf8_lossy(&bytes[..bytes.len().min(ERROR_BYTES_MAX)]).into_owned()
        }
        None => otherwise.to_owned(),
    };
    Fault::Error(
        text(fields.severity, "ERROR"),
        text(fields.message, "unknown error"),
    )
}

fn check_columns(count: u16) -> Result<(), Fault> {
    match count {
        COLUMNS => Ok(()),
        other => Err(Fault::Columns(other)),
    }
}

fn split_count(body: &[u8]) -> Result<(u16, &[u8]), Fault> {
    let (count, rest) = body.split_first_chunk::<2>().ok_or(Fault::Malformed)?;
    Ok((u16::from_be_bytes(*count), rest))
}

/// The next value of a row, `None` for NULL, and what follows it.
fn split_value(body: &[u8]) -> Result<(Option<&[u8]>, &[u8]), Fault> {
    let (len, rest) = body.split_first_chunk::<4>().ok_or(Fault::Malformed)?;
    match i32::from_be_bytes(*len) {
        -1 => Ok((None, rest)),
        len => {
            let len = usize::try_from(len).map_err(|_| Fault::Malformed)?;
            let (value, rest) = rest.split_at_checked(len).ok_or(Fault::Malformed)?;
            Ok((Some(value), rest))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::build;

    type Row<'a> = [Option<&'a str>];

    /// The body of a message that was built with its header.
    fn body(build: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        build(&mut out);
        out.split_off(crate::wire::frame::HEADER_LEN)
    }

    fn row(values: &Row<'_>) -> Vec<u8> {
        let values = values.iter().map(|value| value.map(str::as_bytes));
        body(|out| build::data_row(out, values))
    }

    fn description(columns: usize) -> Vec<u8> {
        let columns = std::iter::repeat_n(("c", 25), columns).collect::<Vec<_>>();
        body(|out| build::row_description(out, columns.into_iter()))
    }

    fn answer(rows: &[&Row<'_>]) -> Result<Option<User>, Fault> {
        let mut answer = Answer::default();
        answer.take(tag::PARSE_COMPLETE, b"")?;
        answer.take(tag::BIND_COMPLETE, b"")?;
        answer.take(tag::ROW_DESCRIPTION, &description(2))?;
        for values in rows {
            answer.take(tag::DATA_ROW, &row(values))?;
        }
        answer.take(tag::COMMAND_COMPLETE, b"SELECT 1\0")?;
        assert!(!answer.is_complete());
        answer.take(tag::READY_FOR_QUERY, b"I")?;
        assert!(answer.is_complete());
        Ok(answer.into_user())
    }

    #[track_caller]
    fn check(rows: &[&Row<'_>], expected: Option<(&str, &str)>) {
        let found = answer(rows).unwrap();
        let found = found.as_ref();
        assert_eq!(
            found.map(|user| user.name()),
            expected.map(|(name, _)| name.as_bytes())
        );
        if let (Some(found), Some((_, secret))) = (found, expected) {
            assert!(
                found.secret().same_as(&Secret::parse(secret.as_bytes())),
                "{found:?}"
            );
        }
    }

    #[test]
    fn a_row_is_a_user() {
        let md5 = "md5c2a8cc1e0e8e2cdf0a0b0b0b0b0b0b0b";
        check(&[&[Some("ann"), Some("pencil")]], Some(("ann", "pencil")));
        check(&[&[Some("ann"), Some(md5)]], Some(("ann", md5)));
        check(&[], None);
    }

    #[test]
    fn of_several_rows_the_last_counts() {
        let (ann, bob) = ([Some("ann"), Some("1")], [Some("bob"), Some("2")]);
        check(&[&ann, &bob], Some(("bob", "2")));
        check(&[&ann, &[None, Some("2")]], None);
    }

    #[test]
    fn no_secret_and_an_empty_one_match_nothing() {
        check(&[&[Some("ann"), None]], Some(("ann", "")));
        check(&[&[Some("ann"), Some("")]], Some(("ann", "")));
    }

    #[test]
    fn a_row_without_a_name_is_nobody() {
        check(&[&[None, Some("pencil")]], None);
        check(&[&[Some(""), Some("pencil")]], None);
    }

    #[test]
    fn two_columns_and_no_other_number() {
        for count in [0, 1, 3] {
            let mut answer = Answer::default();
            let described = answer.take(tag::ROW_DESCRIPTION, &description(count));
            assert_eq!(described, Err(Fault::Columns(count as u16)));
        }
        assert_eq!(answer(&[&[Some("ann")]]).unwrap_err(), Fault::Columns(1));
        let no_data = Answer::default().take(tag::NO_DATA, b"");
        let text = no_data.unwrap_err().to_string();
        assert_eq!(text, "expected 2 columns from auth_query, not 0");
    }

    #[test]
    fn errors_may_lack_every_field() {
        for (body, severity, message) in [
            (&b"SERROR\0VFEHLER\0Mno\0\0"[..], "FEHLER", "no"),
            (b"SERROR\0\0", "ERROR", "unknown error"),
            (b"", "ERROR", "unknown error"),
        ] {
            let error = Answer::default().take(tag::ERROR_RESPONSE, body);
            assert_eq!(
                error,
                Err(Fault::Error(severity.to_owned(), message.to_owned()))
            );
        }
    }

    #[test]
    fn nothing_else_may_come() {
        for other in [
            tag::DATA_ROW, // not described yet
            tag::READY_FOR_QUERY,
            tag::COPY_IN_RESPONSE,
            tag::COPY_OUT_RESPONSE,
            tag::COPY_BOTH_RESPONSE,
            tag::PORTAL_SUSPENDED,
            tag::AUTHENTICATION,
            b'?',
        ] {
            let taken = Answer::default().take(other, b"");
            assert_eq!(taken, Err(Fault::Unexpected(other)));
        }
    }

    #[test]
    fn rows_that_contradict_themselves() {
        for bad in [
            &b""[..],
            b"\0\x02",
            b"\0\x02\0\0\0\x01",
            b"\0\x02\0\0\0\x01a\0\0\0\x02b",
            b"\0\x02\0\0\0\x01a\x7f\xff\xff\xff",
            b"\0\x02\0\0\0\x01a\xff\xff\xff\xfe",
            b"\0\x02\0\0\0\x01a\0\0\0\x01b+",
            b"\0\x02\0\0\0\x02a\0\0\0\0\x01b",
        ] {
            let mut answer = Answer::default();
            answer.take(tag::ROW_DESCRIPTION, &description(2)).unwrap();
            assert_eq!(
                answer.take(tag::DATA_ROW, bad),
                Err(Fault::Malformed),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn lengths_are_limited() {
        let (longest, longer) = ("u".repeat(USER_BYTES_MAX), "u".repeat(USER_BYTES_MAX + 1));
        check(&[&[Some(&longest), Some("x")]], Some((&longest, "x")));
        assert_eq!(
            answer(&[&[Some(&longer), Some("x")]]).unwrap_err(),
            Fault::NameTooLong
        );
        let secret = "s".repeat(super::super::secret::SECRET_BYTES_MAX + 1);
        check(&[&[Some("ann"), Some(&secret)]], Some(("ann", "")));
        let row = [Some("ann"), Some(&secret[..])];
        assert_eq!(answer(&[&row[..]; 5]).unwrap_err(), Fault::TooLong);
    }

    proptest! {
        #[test]
        fn any_messages_are_survived(messages in prop::collection::vec((any::<u8>(), any::<Vec<u8>>()), 0..8)) {
            let mut answer = Answer::default();
            let _ = answer.take(tag::ROW_DESCRIPTION, &description(2));
            for (tag, body) in messages {
                let _ = answer.take(tag, &body);
            }
        }

        #[test]
        fn any_row_is_survived(body: Vec<u8>) {
            let mut answer = Answer::default();
            answer.take(tag::ROW_DESCRIPTION, &description(2)).unwrap();
            let _ = answer.take(tag::DATA_ROW, &body);
        }
    }
}
