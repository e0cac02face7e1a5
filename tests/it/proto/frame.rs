//! Frames from a server, and the reply that several of them make.

use std::fmt;

/// One message from the server side: its tag and its body, without the length.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    pub tag: u8,
    pub body: Vec<u8>,
}

impl Frame {
    pub fn is(&self, tag: u8) -> bool {
        self.tag == tag
    }

    /// The fields of an ErrorResponse or NoticeResponse, in order.
    pub fn fields(&self) -> Vec<(u8, String)> {
        let mut rest = &self.body[..];
        let mut out = Vec::new();
        while let Some((&code, after)) = rest.split_first() {
            if code == 0 {
                break;
            }
            let end = after.iter().position(|b| *b == 0).unwrap_or(after.len());
            out.push((code, String::from_utf8_lossy(&after[..end]).into_owned()));
            rest = after.get(end + 1..).unwrap_or_default();
        }
        out
    }

    /// One field of an ErrorResponse or NoticeResponse.
    pub fn field(&self, code: u8) -> Option<String> {
        self.fields()
            .into_iter()
            .find(|(c, _)| *c == code)
            .map(|(_, text)| text)
    }

    /// `SEVERITY SQLSTATE message`, the three fields that every error has.
    pub fn error_text(&self) -> String {
        let field = |code| self.field(code).unwrap_or_default();
        format!("{} {} {}", field(b'S'), field(b'C'), field(b'M'))
    }

    /// The first zero-terminated texts of the body.
    pub fn texts(&self) -> Vec<String> {
        self.body
            .split(|b| *b == 0)
            .map(|t| String::from_utf8_lossy(t).into_owned())
            .collect()
    }

    /// The name and value of a ParameterStatus.
    pub fn parameter(&self) -> (String, String) {
        let mut texts = self.texts().into_iter();
        (
            texts.next().unwrap_or_default(),
            texts.next().unwrap_or_default(),
        )
    }

    /// The first number of the body.
    pub fn int(&self) -> i32 {
        i32::from_be_bytes(self.body[..4].try_into().expect("four bytes"))
    }
}

/// Tag, length, and the body as text when that is readable.
impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tag = char::from(self.tag);
        if self.is(b'E') || self.is(b'N') {
            return write!(
                f,
                "{tag} {:?}",
                self.fields()
                    .iter()
                    .map(|(c, t)| format!("{}={t}", char::from(*c)))
                    .collect::<Vec<_>>()
            );
        }
        write!(
            f,
            "{tag}[{}] \"{}\"",
            self.body.len(),
            self.body[..self.body.len().min(200)].escape_ascii()
        )
    }
}

/// What came back up to and including ReadyForQuery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub frames: Vec<Frame>,
}

impl Reply {
    fn of(&self, tag: u8) -> impl Iterator<Item = &Frame> {
        self.frames.iter().filter(move |f| f.tag == tag)
    }

    /// The tags in order, as text.
    pub fn tags(&self) -> String {
        self.frames.iter().map(|f| char::from(f.tag)).collect()
    }

    /// The first error, as `SEVERITY SQLSTATE message`.
    pub fn error_text(&self) -> Option<String> {
        self.of(b'E').next().map(Frame::error_text)
    }

    /// The messages of the notices.
    pub fn notices(&self) -> Vec<String> {
        self.of(b'N')
            .map(|f| f.field(b'M').unwrap_or_default())
            .collect()
    }

    /// The completion tags.
    pub fn completions(&self) -> Vec<String> {
        self.of(b'C').map(|f| f.texts()[0].clone()).collect()
    }

    /// Names and type oids of the first row description.
    pub fn columns(&self) -> Vec<(String, u32)> {
        let Some(frame) = self.of(b'T').next() else {
            return vec![];
        };
        let mut rest = &frame.body[2..];
        let mut columns = Vec::new();
        while let Some(end) = rest.iter().position(|b| *b == 0) {
            let name = String::from_utf8_lossy(&rest[..end]).into_owned();
            let tail = &rest[end + 1..];
            columns.push((
                name,
                u32::from_be_bytes(tail[6..10].try_into().expect("four bytes")),
            ));
            rest = &tail[18..];
        }
        columns
    }

    /// All data rows, as text.
    pub fn rows(&self) -> Vec<Vec<Option<String>>> {
        self.of(b'D').map(|f| row(&f.body)).collect()
    }

    /// The only value of a reply with one row and one column; panics otherwise.
    pub fn value(&self) -> String {
        match &self.rows()[..] {
            [row] if row.len() == 1 => row[0].clone().unwrap_or_default(),
            _ => panic!("not a single value: {self:?}"),
        }
    }

    /// The transaction status of the last ReadyForQuery.
    pub fn status(&self) -> char {
        char::from(
            self.frames
                .last()
                .expect("a reply ends with ReadyForQuery")
                .body[0],
        )
    }
}

fn row(body: &[u8]) -> Vec<Option<String>> {
    let mut rest = &body[2..];
    let mut out = Vec::new();
    while rest.len() >= 4 {
        let len = i32::from_be_bytes(rest[..4].try_into().expect("four bytes"));
        rest = &rest[4..];
        let Ok(len) = usize::try_from(len) else {
            out.push(None);
            continue;
        };
        out.push(Some(String::from_utf8_lossy(&rest[..len]).into_owned()));
        rest = &rest[len..];
    }
    out
}
