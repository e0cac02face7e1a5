//! A client's message, read: pure, from the bytes of one frame.

use super::table::Format;
use crate::wire::tag::from_client as tag;

/// A statement or a portal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A prepared statement.
    Statement,
    /// A portal.
    Portal,
}

/// What the client wants. Names are bytes: they only need to be equal to be the same.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "the fields are those of the protocol's messages"
)]
pub enum Request {
    Query(String),
    Parse {
        name: Vec<u8>,
        text: String,
    },
    Bind {
        portal: Vec<u8>,
        statement: Vec<u8>,
        /// How many parameter values there are.
        parameters: usize,
        results: Vec<Format>,
    },
    Describe(Target, Vec<u8>),
    Execute {
        portal: Vec<u8>,
        /// Most rows wanted now; 0 for all.
        max_rows: usize,
    },
    Close(Target, Vec<u8>),
    Sync,
    Flush,
    Terminate,
}

/// Why a message could not be read. There is no going on after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadRequest {
    /// The console has no use for this message.
    Unsupported(u8),
    /// The body is not what the message's kind demands.
    Malformed,
}

impl std::fmt::Display for BadRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BadRequest::Unsupported(tag) => {
                write!(f, "unsupported packet type for admin console: {tag}")
            }
            BadRequest::Malformed => f.write_str("bad packet"),
        }
    }
}

impl std::error::Error for BadRequest {}

/// Reads the body of a message with this tag.
///
/// # Errors
/// [`BadRequest`], after which the connection has to end.
pub fn read(tag: u8, body: &[u8]) -> Result<Request, BadRequest> {
    if !is_supported(tag) {
        return Err(BadRequest::Unsupported(tag));
    }
    let mut body = Body(body);
    let request = fields(tag, &mut body).ok_or(BadRequest::Malformed)?;
    match body.0 {
        [] => Ok(request),
        _ => Err(BadRequest::Malformed),
    }
}

fn is_supported(tag: u8) -> bool {
    matches!(
        tag,
        tag::QUERY
            | tag::PARSE
            | tag::BIND
            | tag::DESCRIBE
            | tag::EXECUTE
            | tag::CLOSE
            | tag::SYNC
            | tag::FLUSH
            | tag::TERMINATE
    )
}

fn fields(tag: u8, body: &mut Body<'_>) -> Option<Request> {
    Some(match tag {
        tag::QUERY => Request::Query(body.text()?),
        tag::PARSE => parse(body)?,
        tag::BIND => bind(body)?,
        tag::DESCRIBE => Request::Describe(body.target()?, body.name()?),
        tag::EXECUTE => Request::Execute {
            portal: body.name()?,
            // The protocol lets a number below zero mean "all", too.
            max_rows: usize::try_from(body.int4()?).unwrap_or(0),
        },
        tag::CLOSE => Request::Close(body.target()?, body.name()?),
        tag::SYNC => Request::Sync,
        tag::FLUSH => Request::Flush,
        tag::TERMINATE => Request::Terminate,
        _ => return None,
    })
}

fn parse(body: &mut Body<'_>) -> Option<Request> {
    let (name, text) = (body.name()?, body.text()?);
    // Types that the client presumes for parameters: there are no parameters, and Bind will say so.
    for _ in 0..body.count()? {
        body.int4()?;
    }
    Some(Request::Parse { name, text })
}

fn bind(body: &mut Body<'_>) -> Option<Request> {
    let (portal, statement) = (body.name()?, body.name()?);
    for _ in 0..body.count()? {
        body.count()?;
    }
    let parameters = body.count()?;
    for _ in 0..parameters {
        // A negative length is NULL.
        let len = body.int4()?;
        body.take(usize::try_from(len).unwrap_or(0))?;
    }
    let mut results = Vec::new();
    for _ in 0..body.count()? {
        results.push(match body.count()? {
            0 => Format::Text,
            1 => Format::Binary,
            _ => return None,
        });
    }
    Some(Request::Bind {
        portal,
        statement,
        parameters,
        results,
    })
}

/// What is left of a body.
struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn int4(&mut self) -> Option<i32> {
        self.array().map(i32::from_be_bytes)
    }

    /// A number of things that follow, or a format code.
    fn count(&mut self) -> Option<usize> {
        self.array().map(|bytes| u16::from_be_bytes(bytes).into())
    }

    fn target(&mut self) -> Option<Target> {
        match self.array()? {
            [b'S'] => Some(Target::Statement),
            [b'P'] => Some(Target::Portal),
            _ => None,
        }
    }

    fn name(&mut self) -> Option<Vec<u8>> {
        let end = self.0.iter().position(|b| *b == 0)?;
        let name = self.take(end)?.to_vec();
        self.take(1)?;
        Some(name)
    }

    /// A text. What is not UTF-8 in it can be no command's name, and is only shown again.
    fn text(&mut self) -> Option<String> {
        let bytes = self.name()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(tag: u8, body: &[u8], expected: Request) {
        assert_eq!(read(tag, body), Ok(expected));
        // Neither a byte less nor a byte more will do.
        if let Some((_, shorter)) = body.split_last() {
            assert_eq!(read(tag, shorter), Err(BadRequest::Malformed));
        }
        let longer = [body, b"\0"].concat();
        assert_eq!(read(tag, &longer), Err(BadRequest::Malformed));
    }

    #[test]
    fn every_message() {
        check(b'Q', b"show x\0", Request::Query("show x".to_owned()));
        let parse = Request::Parse {
            name: b"s".to_vec(),
            text: "q".to_owned(),
        };
        check(b'P', b"s\0q\0\0\x01\0\0\0\x17", parse);
        let bind = Request::Bind {
            portal: b"p".to_vec(),
            statement: Vec::new(),
            parameters: 2,
            results: vec![Format::Binary, Format::Text],
        };
        check(
            b'B',
            b"p\0\0\0\x01\0\x01\0\x02\0\0\0\x02ab\xff\xff\xff\xff\0\x02\0\x01\0\0",
            bind,
        );
        check(
            b'D',
            b"Sx\0",
            Request::Describe(Target::Statement, b"x".to_vec()),
        );
        let execute = Request::Execute {
            portal: Vec::new(),
            max_rows: 5,
        };
        check(b'E', b"\0\0\0\0\x05", execute);
        check(b'C', b"Px\0", Request::Close(Target::Portal, b"x".to_vec()));
        check(b'S', b"", Request::Sync);
        check(b'H', b"", Request::Flush);
        check(b'X', b"", Request::Terminate);
    }

    #[test]
    fn what_cannot_be_read() {
        for tag in [b'F', b'd', b'c', b'f', b'p', 0, 255] {
            assert_eq!(read(tag, b"x"), Err(BadRequest::Unsupported(tag)));
        }
        assert_eq!(read(b'D', b"Xx\0"), Err(BadRequest::Malformed));
        assert_eq!(
            read(b'B', b"\0\0\0\0\0\0\0\x01\0\x02"),
            Err(BadRequest::Malformed)
        );
    }

    proptest! {
        #[test]
        fn any_body_is_survived(tag in any::<u8>(), body in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = read(tag, &body);
        }
    }
}
