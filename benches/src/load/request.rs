//! What a client sends, built once and sent again and again. Pure.
//!
//! The rounds of the extended protocol are those of libpq's `PQsendQueryParams` and `PQsendQueryPrepared`, Describe included, so that
//! a pooler sees what it sees from pgbench.

use pgweir::wire::build;

use super::options::Protocol;

/// Name of the prepared statement. A pooler has it for each client and gives it a name of its own at the server.
const STATEMENT: &[u8] = b"bench";

/// What one client sends.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    /// Once, after the login; may be empty.
    pub preparation: Vec<u8>,
    /// Each time; answered by one ReadyForQuery.
    pub round: Vec<u8>,
}

impl Request {
    /// For this text, which has no parameters.
    pub fn new(protocol: Protocol, sql: &str) -> Request {
        let (mut preparation, mut round) = (Vec::new(), Vec::new());
        let sql = sql.as_bytes();
        match protocol {
            Protocol::Simple => build::query(&mut round, sql),
            Protocol::Extended => {
                build::parse(&mut round, sql);
                bind_to_sync(&mut round, b"");
            }
            Protocol::Prepared => {
                parse_named(&mut preparation, STATEMENT, sql);
                build::sync(&mut preparation);
                bind_to_sync(&mut round, STATEMENT);
            }
        }
        Request { preparation, round }
    }
}

fn parse_named(out: &mut Vec<u8>, name: &[u8], sql: &[u8]) {
    let mut text_and_types = sql.to_vec();
    // The text's end, and no parameter types.
    text_and_types.extend_from_slice(&[0; 3]);
    build::parse_raw(out, name, &text_and_types);
}

fn bind_to_sync(out: &mut Vec<u8>, statement: &[u8]) {
    build::message(out, b'B', |out| {
        build::cstr(out, b"");
        build::cstr(out, statement);
        // No parameter formats, no parameters, one result format: text.
        out.extend_from_slice(&[0, 0, 0, 0, 0, 1, 0, 0]);
    });
    build::describe_portal(out);
    build::execute(out);
    build::sync(out);
}

/// The first packet of a login.
pub fn startup(user: &str, database: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let parameters = [
        ("user", user),
        ("database", database),
        ("application_name", "pgweir-bench"),
    ];
    let bytes = parameters
        .iter()
        .map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    build::startup(&mut out, bytes);
    out
}

/// Terminate
pub fn terminate() -> Vec<u8> {
    let mut out = Vec::new();
    build::terminate(&mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tags of the messages in `bytes`, whose lengths must fit.
    fn tags(mut bytes: &[u8]) -> String {
        let mut tags = String::new();
        while let Some((header, _)) = bytes.split_first_chunk::<5>() {
            tags.push(char::from(header[0]));
            let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
            bytes = &bytes[1 + length as usize..];
        }
        assert!(bytes.is_empty());
        tags
    }

    #[test]
    fn a_simple_query_is_one_message() {
        let request = Request::new(Protocol::Simple, "SELECT 1");
        assert_eq!(request.round, b"Q\0\0\0\x0dSELECT 1\0");
        assert_eq!(request.preparation, b"");
    }

    #[test]
    fn rounds_have_the_messages_of_libpq() {
        let extended = Request::new(Protocol::Extended, "SELECT 1");
        assert_eq!(tags(&extended.round), "PBDES");
        assert_eq!(extended.preparation, b"");
        let prepared = Request::new(Protocol::Prepared, "SELECT 1");
        assert_eq!(tags(&prepared.round), "BDES");
        assert_eq!(tags(&prepared.preparation), "PS");
        assert!(
            prepared
                .preparation
                .starts_with(b"P\0\0\0\x15bench\0SELECT 1\0\0\0")
        );
        assert!(
            prepared
                .round
                .starts_with(b"B\0\0\0\x13\0bench\0\0\0\0\0\0\x01\0\0")
        );
    }

    #[test]
    fn the_first_packet_names_user_and_database() {
        let packet = startup("ann", "shop");
        assert_eq!(packet[..8], [0, 0, 0, packet.len() as u8, 0, 3, 0, 0]);
        assert!(packet[8..].starts_with(b"user\0ann\0database\0shop\0application_name\0"));
        assert!(packet.ends_with(b"\0\0"));
    }
}
