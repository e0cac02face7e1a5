//! Builders of client messages, as bytes.

/// A typed message with its length.
pub fn typed(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + 5);
    out.push(tag);
    out.extend((body.len() as i32 + 4).to_be_bytes());
    out.extend(body);
    out
}

/// A first packet: no tag, a length, a code, a body.
pub fn untyped(code: i32, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + 8);
    out.extend((body.len() as i32 + 8).to_be_bytes());
    out.extend(code.to_be_bytes());
    out.extend(body);
    out
}

pub const PROTOCOL_3_0: i32 = 196_608;

pub fn startup(params: &[(&str, &str)]) -> Vec<u8> {
    startup_version(PROTOCOL_3_0, params)
}

pub fn startup_version(version: i32, params: &[(&str, &str)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (key, value) in params {
        cstr(&mut body, key);
        cstr(&mut body, value);
    }
    body.push(0);
    untyped(version, &body)
}

pub fn ssl_request() -> Vec<u8> {
    untyped(80_877_103, b"")
}

pub fn gss_request() -> Vec<u8> {
    untyped(80_877_104, b"")
}

pub fn cancel(key: &[u8]) -> Vec<u8> {
    untyped(80_877_102, key)
}

pub fn password(secret: &str) -> Vec<u8> {
    let mut body = Vec::new();
    cstr(&mut body, secret);
    typed(b'p', &body)
}

pub fn sasl_initial(mechanism: &str, response: &str) -> Vec<u8> {
    let mut body = Vec::new();
    cstr(&mut body, mechanism);
    body.extend((response.len() as i32).to_be_bytes());
    body.extend(response.as_bytes());
    typed(b'p', &body)
}

pub fn sasl_response(response: &str) -> Vec<u8> {
    typed(b'p', response.as_bytes())
}

pub fn query(sql: &str) -> Vec<u8> {
    query_bytes(sql.as_bytes())
}

pub fn query_bytes(sql: &[u8]) -> Vec<u8> {
    let mut body = sql.to_vec();
    body.push(0);
    typed(b'Q', &body)
}

pub fn parse(name: &str, sql: &str, types: &[u32]) -> Vec<u8> {
    let mut body = Vec::new();
    cstr(&mut body, name);
    cstr(&mut body, sql);
    count(&mut body, types.len());
    types.iter().for_each(|oid| body.extend(oid.to_be_bytes()));
    typed(b'P', &body)
}

/// Bind; text parameters and results.
pub fn bind(portal: &str, statement: &str, params: &[Option<&[u8]>]) -> Vec<u8> {
    bind_formats(portal, statement, &[], params, &[])
}

pub fn bind_formats(
    portal: &str,
    statement: &str,
    formats: &[i16],
    params: &[Option<&[u8]>],
    results: &[i16],
) -> Vec<u8> {
    let mut body = Vec::new();
    cstr(&mut body, portal);
    cstr(&mut body, statement);
    count(&mut body, formats.len());
    formats.iter().for_each(|f| body.extend(f.to_be_bytes()));
    count(&mut body, params.len());
    params.iter().for_each(|p| value(&mut body, *p));
    count(&mut body, results.len());
    results.iter().for_each(|f| body.extend(f.to_be_bytes()));
    typed(b'B', &body)
}

/// `kind` is `S` for a statement, `P` for a portal.
pub fn describe(kind: u8, name: &str) -> Vec<u8> {
    kind_and_name(b'D', kind, name)
}

/// `kind` is `S` for a statement, `P` for a portal.
pub fn close(kind: u8, name: &str) -> Vec<u8> {
    kind_and_name(b'C', kind, name)
}

pub fn execute(portal: &str, max_rows: i32) -> Vec<u8> {
    let mut body = Vec::new();
    cstr(&mut body, portal);
    body.extend(max_rows.to_be_bytes());
    typed(b'E', &body)
}

pub fn sync() -> Vec<u8> {
    typed(b'S', b"")
}

pub fn flush() -> Vec<u8> {
    typed(b'H', b"")
}

pub fn terminate() -> Vec<u8> {
    typed(b'X', b"")
}

pub fn copy_data(data: &[u8]) -> Vec<u8> {
    typed(b'd', data)
}

pub fn copy_done() -> Vec<u8> {
    typed(b'c', b"")
}

pub fn copy_fail(reason: &str) -> Vec<u8> {
    let mut body = Vec::new();
    cstr(&mut body, reason);
    typed(b'f', &body)
}

/// FunctionCall with text arguments and a text result.
pub fn function_call(oid: u32, args: &[&str]) -> Vec<u8> {
    let mut body = oid.to_be_bytes().to_vec();
    count(&mut body, 0);
    count(&mut body, args.len());
    args.iter()
        .for_each(|a| value(&mut body, Some(a.as_bytes())));
    body.extend(0i16.to_be_bytes());
    typed(b'F', &body)
}

fn kind_and_name(tag: u8, kind: u8, name: &str) -> Vec<u8> {
    let mut body = vec![kind];
    cstr(&mut body, name);
    typed(tag, &body)
}

fn cstr(body: &mut Vec<u8>, text: &str) {
    body.extend(text.as_bytes());
    body.push(0);
}

fn count(body: &mut Vec<u8>, n: usize) {
    body.extend((n as i16).to_be_bytes());
}

fn value(body: &mut Vec<u8>, value: Option<&[u8]>) {
    match value {
        None => body.extend((-1i32).to_be_bytes()),
        Some(bytes) => {
            body.extend((bytes.len() as i32).to_be_bytes());
            body.extend(bytes);
        }
    }
}
