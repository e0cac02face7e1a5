//! Builders of server messages, for servers that speak from a script.

use super::msg::typed;

pub fn auth_ok() -> Vec<u8> {
    auth(0, b"")
}

/// An Authentication message of any kind, with its data.
pub fn auth(code: i32, data: &[u8]) -> Vec<u8> {
    typed(b'R', &[&code.to_be_bytes(), data].concat())
}

pub fn sasl_mechanisms(names: &[&str]) -> Vec<u8> {
    let mut data: Vec<u8> = names
        .iter()
        .flat_map(|n| [n.as_bytes(), b"\0"].concat())
        .collect();
    data.push(0);
    auth(10, &data)
}

pub fn parameter(name: &str, value: &str) -> Vec<u8> {
    typed(b'S', format!("{name}\0{value}\0").as_bytes())
}

pub fn key(pid: i32, secret: i32) -> Vec<u8> {
    typed(b'K', &[pid.to_be_bytes(), secret.to_be_bytes()].concat())
}

pub fn ready(status: u8) -> Vec<u8> {
    typed(b'Z', &[status])
}

/// An ErrorResponse with these fields, in this order.
pub fn error(fields: &[(u8, &str)]) -> Vec<u8> {
    typed(b'E', &fields_body(fields))
}

pub fn notice(message: &str) -> Vec<u8> {
    typed(
        b'N',
        &fields_body(&[(b'S', "NOTICE"), (b'C', "00000"), (b'M', message)]),
    )
}

fn fields_body(fields: &[(u8, &str)]) -> Vec<u8> {
    let mut body: Vec<u8> = fields
        .iter()
        .flat_map(|(code, text)| [&[*code], text.as_bytes(), b"\0"].concat())
        .collect();
    body.push(0);
    body
}

/// A row description with one text column.
pub fn one_column(name: &str) -> Vec<u8> {
    let mut body = 1i16.to_be_bytes().to_vec();
    body.extend(name.as_bytes());
    body.push(0);
    body.extend([0; 6]);
    body.extend(25u32.to_be_bytes());
    body.extend((-1i16).to_be_bytes());
    body.extend((-1i32).to_be_bytes());
    body.extend(0i16.to_be_bytes());
    typed(b'T', &body)
}

/// A row with one value.
pub fn row(value: &str) -> Vec<u8> {
    let mut body = 1i16.to_be_bytes().to_vec();
    body.extend((value.len() as i32).to_be_bytes());
    body.extend(value.as_bytes());
    typed(b'D', &body)
}

pub fn complete(tag: &str) -> Vec<u8> {
    typed(b'C', format!("{tag}\0").as_bytes())
}

/// The whole reply to a query that gives one value.
pub fn value(text: &str) -> Vec<u8> {
    [
        one_column("v"),
        row(text),
        complete("SELECT 1"),
        ready(b'I'),
    ]
    .concat()
}

/// What a server says after a successful login.
pub fn welcome() -> Vec<u8> {
    let parameters = [
        ("server_version", "15.0"),
        ("server_encoding", "UTF8"),
        ("client_encoding", "UTF8"),
        ("DateStyle", "ISO, MDY"),
        ("TimeZone", "UTC"),
        ("standard_conforming_strings", "on"),
        ("application_name", ""),
        ("integer_datetimes", "on"),
        ("IntervalStyle", "postgres"),
        ("is_superuser", "off"),
        ("session_authorization", "u_trust"),
        ("default_transaction_read_only", "off"),
        ("in_hot_standby", "off"),
    ];
    let mut out = auth_ok();
    parameters
        .iter()
        .for_each(|(n, v)| out.extend(parameter(n, v)));
    out.extend(key(4711, 42));
    out.extend(ready(b'I'));
    out
}
