//! The messages that the pooler itself originates, appended to a buffer.
//!
//! Each function appends one whole message. Texts given here must not contain a zero byte; one that does is cut there, since the
//! protocol has no way to carry it.

use super::tag::{from_client, from_server};

/// Version number of protocol 3.0 in a start-up packet.
pub const PROTOCOL_3_0: u32 = 3 << 16;
/// Code of an SSLRequest.
pub const SSL_REQUEST: u32 = 80_877_103;
/// Code of a GSSENCRequest.
pub const GSSENC_REQUEST: u32 = 80_877_104;
/// Code of a CancelRequest.
pub const CANCEL_REQUEST: u32 = 80_877_102;

/// How bad an error is, as the `S` field says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The statement failed; the connection goes on.
    Error,
    /// The connection ends.
    Fatal,
    /// Not an error: a NoticeResponse.
    Notice,
}

impl Severity {
    fn word(self) -> &'static str {
        match self {
            Severity::Error => "ERROR",
            Severity::Fatal => "FATAL",
            Severity::Notice => "NOTICE",
        }
    }
}

/// Appends a message with this tag, whose body `body` writes.
pub fn message(out: &mut Vec<u8>, tag: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    untagged(out, body);
}

fn untagged(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    body(out);
    let len = (out.len() - at) as u32;
    out[at..at + 4].copy_from_slice(&len.to_be_bytes());
}

/// Appends a zero-terminated text.
pub fn cstr(out: &mut Vec<u8>, text: &[u8]) {
    let end = text.iter().position(|b| *b == 0).unwrap_or(text.len());
    out.extend_from_slice(&text[..end]);
    out.push(0);
}

/// ErrorResponse, or NoticeResponse for [`Severity::Notice`], with the fields severity, SQLSTATE and message, as PgBouncer sends
/// them.
pub fn error(out: &mut Vec<u8>, severity: Severity, sqlstate: &str, text: &[u8]) {
    error_with_detail(out, severity, sqlstate, text, None);
}

/// As [`error`], with a detail field when there is one.
pub fn error_with_detail(
    out: &mut Vec<u8>,
    severity: Severity,
    sqlstate: &str,
    text: &[u8],
    detail: Option<&[u8]>,
) {
    let tag = match severity {
        Severity::Notice => from_server::NOTICE_RESPONSE,
        Severity::Error | Severity::Fatal => from_server::ERROR_RESPONSE,
    };
    message(out, tag, |out| {
        out.push(b'S');
        cstr(out, severity.word().as_bytes());
        out.push(b'C');
        cstr(out, sqlstate.as_bytes());
        out.push(b'M');
        cstr(out, text);
        if let Some(detail) = detail {
            out.push(b'D');
            cstr(out, detail);
        }
        out.push(0);
    });
}

/// ReadyForQuery; `status` is `I`, `T` or `E`.
pub fn ready_for_query(out: &mut Vec<u8>, status: u8) {
    message(out, from_server::READY_FOR_QUERY, |out| out.push(status));
}

/// ParameterStatus
pub fn parameter_status(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    message(out, from_server::PARAMETER_STATUS, |out| {
        cstr(out, name);
        cstr(out, value);
    });
}

/// BackendKeyData with an eight-byte key, of which the first half is called the process id.
pub fn backend_key_data(out: &mut Vec<u8>, key: [u8; 8]) {
    message(out, from_server::BACKEND_KEY_DATA, |out| {
        out.extend_from_slice(&key)
    });
}

/// AuthenticationOk
pub fn authentication_ok(out: &mut Vec<u8>) {
    authentication(out, 0, b"");
}

/// AuthenticationCleartextPassword
pub fn authentication_cleartext(out: &mut Vec<u8>) {
    authentication(out, 3, b"");
}

/// AuthenticationMD5Password
pub fn authentication_md5(out: &mut Vec<u8>, salt: [u8; 4]) {
    authentication(out, 5, &salt);
}

/// AuthenticationSASL with one mechanism
pub fn authentication_sasl(out: &mut Vec<u8>, mechanism: &str) {
    message(out, from_server::AUTHENTICATION, |out| {
        out.extend_from_slice(&10u32.to_be_bytes());
        cstr(out, mechanism.as_bytes());
        out.push(0);
    });
}

/// AuthenticationSASLContinue
pub fn authentication_sasl_continue(out: &mut Vec<u8>, data: &[u8]) {
    authentication(out, 11, data);
}

/// AuthenticationSASLFinal
pub fn authentication_sasl_final(out: &mut Vec<u8>, data: &[u8]) {
    authentication(out, 12, data);
}

fn authentication(out: &mut Vec<u8>, kind: u32, data: &[u8]) {
    message(out, from_server::AUTHENTICATION, |out| {
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(data);
    });
}

/// NegotiateProtocolVersion: the newest version spoken is 3.0, and these parameters are not known.
pub fn negotiate_protocol_version(out: &mut Vec<u8>, unknown: &[&[u8]]) {
    message(out, from_server::NEGOTIATE_PROTOCOL_VERSION, |out| {
        out.extend_from_slice(&PROTOCOL_3_0.to_be_bytes());
        out.extend_from_slice(&(unknown.len() as u32).to_be_bytes());
        for name in unknown {
            cstr(out, name);
        }
    });
}

/// CommandComplete
pub fn command_complete(out: &mut Vec<u8>, tag: &str) {
    message(out, from_server::COMMAND_COMPLETE, |out| {
        cstr(out, tag.as_bytes())
    });
}

/// RowDescription in text format: name and type oid of each column, typmod -1, no table.
pub fn row_description<'a>(
    out: &mut Vec<u8>,
    columns: impl ExactSizeIterator<Item = (&'a str, u32)>,
) {
    message(out, from_server::ROW_DESCRIPTION, |out| {
        out.extend_from_slice(&(columns.len() as u16).to_be_bytes());
        for (name, oid) in columns {
            cstr(out, name.as_bytes());
            out.extend_from_slice(&0u32.to_be_bytes());
            out.extend_from_slice(&0u16.to_be_bytes());
            out.extend_from_slice(&oid.to_be_bytes());
            out.extend_from_slice(&type_len(oid).to_be_bytes());
            out.extend_from_slice(&(-1i32).to_be_bytes());
            out.extend_from_slice(&0u16.to_be_bytes());
        }
    });
}

fn type_len(oid: u32) -> i16 {
    match oid {
        20 => 8,
        23 => 4,
        _ => -1,
    }
}

/// DataRow in text format; `None` is NULL.
pub fn data_row<'a>(out: &mut Vec<u8>, values: impl ExactSizeIterator<Item = Option<&'a [u8]>>) {
    message(out, from_server::DATA_ROW, |out| {
        out.extend_from_slice(&(values.len() as u16).to_be_bytes());
        for value in values {
            match value {
                None => out.extend_from_slice(&(-1i32).to_be_bytes()),
                Some(bytes) => {
                    out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
                    out.extend_from_slice(bytes);
                }
            }
        }
    });
}

/// A reply without a body (ParseComplete, CloseComplete, …)
pub fn bare(out: &mut Vec<u8>, tag: u8) {
    message(out, tag, |_| {});
}

/// Query
pub fn query(out: &mut Vec<u8>, sql: &[u8]) {
    message(out, from_client::QUERY, |out| cstr(out, sql));
}

/// Parse whose text and parameter types are given as they stood in a client's message, behind the name.
pub fn parse_raw(out: &mut Vec<u8>, name: &[u8], text_and_types: &[u8]) {
    message(out, from_client::PARSE, |out| {
        cstr(out, name);
        out.extend_from_slice(text_and_types);
    });
}

/// Parse of an unnamed statement; the server finds out the types of its parameters.
pub fn parse(out: &mut Vec<u8>, sql: &[u8]) {
    message(out, from_client::PARSE, |out| {
        cstr(out, b"");
        cstr(out, sql);
        out.extend_from_slice(&0u16.to_be_bytes());
    });
}

/// Bind of the unnamed statement to the unnamed portal, with one parameter; all in text format.
pub fn bind_text(out: &mut Vec<u8>, parameter: &[u8]) {
    message(out, from_client::BIND, |out| {
        cstr(out, b"");
        cstr(out, b"");
        out.extend_from_slice(&0u16.to_be_bytes());
        out.extend_from_slice(&1u16.to_be_bytes());
        out.extend_from_slice(&(parameter.len() as u32).to_be_bytes());
        out.extend_from_slice(parameter);
        out.extend_from_slice(&0u16.to_be_bytes());
    });
}

/// Describe of the unnamed portal
pub fn describe_portal(out: &mut Vec<u8>) {
    message(out, from_client::DESCRIBE, |out| {
        out.extend_from_slice(b"P\0")
    });
}

/// Execute of the unnamed portal to its end
pub fn execute(out: &mut Vec<u8>) {
    message(out, from_client::EXECUTE, |out| {
        cstr(out, b"");
        out.extend_from_slice(&0u32.to_be_bytes());
    });
}

/// Sync
pub fn sync(out: &mut Vec<u8>) {
    message(out, from_client::SYNC, |_| {});
}

/// Parse, Bind, Execute and Sync of a text without parameters, under the empty names
pub fn unnamed_round(out: &mut Vec<u8>, text: &[u8]) {
    message(out, from_client::PARSE, |out| {
        cstr(out, b"");
        cstr(out, text);
        out.extend_from_slice(&[0; 2]);
    });
    // Portal, statement; no parameter formats, no parameters, no result formats.
    message(out, from_client::BIND, |out| out.extend_from_slice(&[0; 8]));
    message(out, from_client::EXECUTE, |out| {
        out.extend_from_slice(&[0; 5])
    });
    bare(out, from_client::SYNC);
}

/// Close of a statement
pub fn close_statement(out: &mut Vec<u8>, name: &[u8]) {
    message(out, from_client::CLOSE, |out| {
        out.push(b'S');
        cstr(out, name);
    });
}

/// Flush
pub fn flush(out: &mut Vec<u8>) {
    message(out, from_client::FLUSH, |_| {});
}

/// Terminate
pub fn terminate(out: &mut Vec<u8>) {
    message(out, from_client::TERMINATE, |_| {});
}

/// PasswordMessage with a zero-terminated password
pub fn password(out: &mut Vec<u8>, password: &[u8]) {
    message(out, from_client::PASSWORD, |out| cstr(out, password));
}

/// SASLInitialResponse
pub fn sasl_initial_response(out: &mut Vec<u8>, mechanism: &str, data: &[u8]) {
    message(out, from_client::PASSWORD, |out| {
        cstr(out, mechanism.as_bytes());
        out.extend_from_slice(&(data.len() as u32).to_be_bytes());
        out.extend_from_slice(data);
    });
}

/// SASLResponse
pub fn sasl_response(out: &mut Vec<u8>, data: &[u8]) {
    message(out, from_client::PASSWORD, |out| {
        out.extend_from_slice(data)
    });
}

/// StartupMessage 3.0
pub fn startup<'a>(out: &mut Vec<u8>, parameters: impl Iterator<Item = (&'a [u8], &'a [u8])>) {
    untagged(out, |out| {
        out.extend_from_slice(&PROTOCOL_3_0.to_be_bytes());
        for (name, value) in parameters {
            cstr(out, name);
            cstr(out, value);
        }
        out.push(0);
    });
}

/// SSLRequest
pub fn ssl_request(out: &mut Vec<u8>) {
    untagged(out, |out| out.extend_from_slice(&SSL_REQUEST.to_be_bytes()));
}

/// CancelRequest with the key that the server gave in its BackendKeyData.
pub fn cancel_request(out: &mut Vec<u8>, key: &[u8]) {
    untagged(out, |out| {
        out.extend_from_slice(&CANCEL_REQUEST.to_be_bytes());
        out.extend_from_slice(key);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_its_fields_and_length() {
        let mut out = Vec::new();
        error(&mut out, Severity::Fatal, "08P01", b"no\0pe");
        assert_eq!(out, b"E\0\0\0\x17SFATAL\0C08P01\0Mno\0\0");
    }

    #[test]
    fn a_batch_with_one_parameter() {
        let mut out = Vec::new();
        parse(&mut out, b"select $1");
        bind_text(&mut out, b"ann");
        describe_portal(&mut out);
        execute(&mut out);
        sync(&mut out);
        let parse = &b"P\0\0\0\x11\0select $1\0\0\0"[..];
        let bind = &b"B\0\0\0\x13\0\0\0\0\0\x01\0\0\0\x03ann\0\0"[..];
        let rest = &b"D\0\0\0\x06P\0E\0\0\0\x09\0\0\0\0\0S\0\0\0\x04"[..];
        assert_eq!(out, [parse, bind, rest].concat());
    }

    #[test]
    fn a_startup_packet_has_no_tag() {
        let mut out = Vec::new();
        startup(&mut out, [(&b"user"[..], &b"u"[..])].into_iter());
        assert_eq!(out, b"\0\0\0\x10\0\x03\0\0user\0u\0\0");
    }
}
