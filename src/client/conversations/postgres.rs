//! A model of one PostgreSQL session that keeps real prepared statements: bytes in, bytes out.

use std::collections::BTreeMap;

use crate::wire::build::{self, Severity};
use crate::wire::frame::{self, HEADER_LEN};
use crate::wire::read;
use crate::wire::startup::split_cstr;
use crate::wire::tag::{from_client, from_server as tag};

/// One session.
#[derive(Default)]
pub struct Postgres {
    input: Vec<u8>,
    /// What was said but not flushed yet.
    unflushed: Vec<u8>,
    /// What the other side can read.
    pub output: Vec<u8>,
    /// Named statements and their texts with types.
    pub named: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Statements prepared by SQL: the texts that did it.
    pub by_sql: BTreeMap<Vec<u8>, Vec<u8>>,
    unnamed: Option<Vec<u8>>,
    portals: BTreeMap<Vec<u8>, Vec<u8>>,
    state: Tx,
    skipping: bool,
    in_batch: bool,
    executed: bool,
    /// A COPY reads data; true if it came by Execute.
    copying: Option<bool>,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Tx {
    #[default]
    Idle,
    InBlock,
    Failed,
}

type Failure = (&'static str, Vec<u8>);

impl Postgres {
    pub fn send(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// Reads one message, if there is a whole one.
    pub fn step(&mut self) -> bool {
        let Ok(Some(header)) = frame::header(&self.input, u32::MAX) else {
            return false;
        };
        if (self.input.len() as u64) < header.total {
            return false;
        }
        let message: Vec<u8> = self.input.drain(..header.total as usize).collect();
        self.message(header.tag, &message[HEADER_LEN..]);
        true
    }

    /// Nothing was left unread or unsaid, and no transaction or batch is open.
    pub fn is_at_rest(&self) -> bool {
        self.input.is_empty()
            && self.unflushed.is_empty()
            && self.output.is_empty()
            && self.state == Tx::Idle
            && !self.skipping
            && !self.in_batch
            && self.copying.is_none()
    }

    fn flush(&mut self) {
        self.output.append(&mut self.unflushed);
    }

    fn message(&mut self, tag: u8, body: &[u8]) {
        if let Some(extended) = self.copying {
            return self.copy(tag, extended);
        }
        if self.skipping && tag != from_client::SYNC {
            return;
        }
        match tag {
            from_client::QUERY => self.query(body),
            from_client::SYNC => {
                self.skipping = false;
                self.end_batch();
                self.ready();
            }
            from_client::FLUSH => self.flush(),
            from_client::COPY_DATA | from_client::COPY_DONE | from_client::COPY_FAIL => {}
            _ => {
                self.in_batch = true;
                if let Err(failure) = self.extended(tag, body) {
                    self.fail(failure);
                    self.skipping = true;
                }
            }
        }
    }

    fn end_batch(&mut self) {
        self.in_batch = false;
        self.executed = false;
        if self.state == Tx::Idle {
            self.portals.clear();
        }
    }

    fn ready(&mut self) {
        let status = match self.state {
            Tx::Idle => b'I',
            Tx::InBlock => b'T',
            Tx::Failed => b'E',
        };
        build::ready_for_query(&mut self.unflushed, status);
        self.flush();
    }

    fn fail(&mut self, (code, text): Failure) {
        build::error(&mut self.unflushed, Severity::Error, code, &text);
        self.flush();
        self.portals.clear();
        if self.state == Tx::InBlock {
            self.state = Tx::Failed;
        }
    }

    fn query(&mut self, body: &[u8]) {
        self.unnamed = None;
        let text = text_of(body);
        let result = analyze(text)
            .and_then(|()| self.check_tx(text))
            .and_then(|()| {
                if returns_rows(text) {
                    build::bare(&mut self.unflushed, tag::ROW_DESCRIPTION);
                }
                self.execute(text, false)
            });
        if let Err(failure) = result {
            self.fail(failure);
        }
        if self.copying.is_none() {
            self.end_batch();
            self.ready();
        }
    }

    fn copy(&mut self, tag: u8, extended: bool) {
        match tag {
            from_client::COPY_DONE => {
                build::command_complete(&mut self.unflushed, "COPY 1");
                self.copying = None;
            }
            from_client::COPY_FAIL => {
                self.copying = None;
                self.fail(("57014", b"COPY failed".to_vec()));
                self.skipping = extended;
            }
            from_client::COPY_DATA | from_client::SYNC | from_client::FLUSH => return,
            _ => panic!("{} during COPY", tag as char),
        }
        if !extended {
            self.end_batch();
            self.ready();
        }
    }

    fn extended(&mut self, tag: u8, body: &[u8]) -> Result<(), Failure> {
        match tag {
            from_client::PARSE => self.parse(body)?,
            from_client::BIND => self.bind(body)?,
            from_client::DESCRIBE => return self.describe(body),
            from_client::CLOSE => {
                let (kind, name) = read::target(body).expect("a Close");
                match (kind, name) {
                    (b'S', b"") => self.unnamed = None,
                    (b'S', name) => {
                        self.named.remove(name);
                        self.by_sql.remove(name);
                    }
                    (_, name) => drop(self.portals.remove(name)),
                }
                build::bare(&mut self.unflushed, tag::CLOSE_COMPLETE);
            }
            from_client::EXECUTE => {
                let (portal, _) = split_cstr(body).expect("an Execute");
                let source = self.portals.get(portal).cloned();
                let missing = || {
                    let name = String::from_utf8_lossy(portal).into_owned();
                    ("34000", format!("portal \"{name}\" does not exist").into())
                };
                let source = source.ok_or_else(missing)?;
                let text = text_of(&source);
                self.check_tx(text)?;
                self.execute(text, true)?;
            }
            other => panic!("{}", other as char),
        }
        Ok(())
    }

    fn parse(&mut self, body: &[u8]) -> Result<(), Failure> {
        let (name, source) = read::parse(body).expect("a Parse");
        if name.is_empty() {
            self.unnamed = None;
        }
        analyze(text_of(source))?;
        // An empty text is no statement that could be refused.
        if !text_of(source).is_empty() {
            self.check_tx(text_of(source))?;
        }
        if name.is_empty() {
            self.unnamed = Some(source.to_vec());
        } else if self.has(name) {
            return Err(exists(name));
        } else {
            self.named.insert(name.to_vec(), source.to_vec());
        }
        build::bare(&mut self.unflushed, tag::PARSE_COMPLETE);
        Ok(())
    }

    fn statement(&self, name: &[u8]) -> Result<Vec<u8>, Failure> {
        if name.is_empty() {
            let missing = b"unnamed prepared statement does not exist".to_vec();
            return self.unnamed.clone().ok_or(("26000", missing));
        }
        let by_sql = self
            .by_sql
            .get(name)
            .map(|text| [body_of(text), b"\0\0\0"].concat());
        let found = self.named.get(name).cloned().or(by_sql);
        found.ok_or_else(|| missing(name))
    }

    fn has(&self, name: &[u8]) -> bool {
        self.named.contains_key(name) || self.by_sql.contains_key(name)
    }

    fn prepare(&mut self, text: &[u8]) -> Result<(), Failure> {
        let name = text.split(|b| *b == b' ').nth(1).expect("a name");
        analyze(body_of(text))?;
        if self.has(name) {
            return Err(exists(name));
        }
        self.by_sql.insert(name.to_vec(), text.to_vec());
        Ok(())
    }

    fn deallocate(&mut self, name: &[u8]) -> Result<(), Failure> {
        let gone = self.named.remove(name).or(self.by_sql.remove(name));
        gone.map(drop).ok_or_else(|| missing(name))
    }

    fn bind(&mut self, body: &[u8]) -> Result<(), Failure> {
        let (portal, name, _) = read::bind(body).expect("a Bind");
        let source = self.statement(name)?;
        self.check_tx(text_of(&source))?;
        self.portals.insert(portal.to_vec(), source);
        build::bare(&mut self.unflushed, tag::BIND_COMPLETE);
        Ok(())
    }

    fn describe(&mut self, body: &[u8]) -> Result<(), Failure> {
        let (kind, name) = read::target(body).expect("a Describe");
        let source = if kind == b'S' {
            self.statement(name)?
        } else {
            let missing = ("34000", b"no portal".to_vec());
            self.portals.get(name).cloned().ok_or(missing)?
        };
        // PostgreSQL refuses only what returns rows.
        self.check_tx(text_of(&source))?;
        if kind == b'S' {
            build::message(&mut self.unflushed, tag::PARAMETER_DESCRIPTION, |out| {
                out.extend_from_slice(&source)
            });
        }
        if returns_rows(text_of(&source)) {
            build::bare(&mut self.unflushed, tag::ROW_DESCRIPTION);
        } else {
            build::bare(&mut self.unflushed, tag::NO_DATA);
        }
        Ok(())
    }

    fn check_tx(&self, text: &[u8]) -> Result<(), Failure> {
        if self.state == Tx::Failed && !matches!(text, b"commit" | b"rollback") {
            let text = b"current transaction is aborted".to_vec();
            return Err(("25P02", text));
        }
        Ok(())
    }

    fn execute(&mut self, text: &[u8], extended: bool) -> Result<(), Failure> {
        let earlier = std::mem::replace(&mut self.executed, true);
        let word = match text {
            b"" => {
                build::bare(&mut self.unflushed, tag::EMPTY_QUERY_RESPONSE);
                return Ok(());
            }
            b"fail" => return Err(("22012", b"division by zero".to_vec())),
            b"begin" => {
                self.state = Tx::InBlock;
                "BEGIN"
            }
            b"commit" | b"rollback" => {
                let failed = self.state == Tx::Failed;
                self.state = Tx::Idle;
                if text == b"commit" && !failed {
                    "COMMIT"
                } else {
                    "ROLLBACK"
                }
            }
            b"discard all" if self.state == Tx::InBlock || earlier => {
                return Err(("25001", b"DISCARD ALL cannot run here".to_vec()));
            }
            b"discard all" => {
                self.named.clear();
                self.by_sql.clear();
                self.unnamed = None;
                "DISCARD ALL"
            }
            b"deallocate all" => {
                self.named.clear();
                self.by_sql.clear();
                "DEALLOCATE ALL"
            }
            b"DEALLOCATE \"PGWEIR_0\"" => {
                self.deallocate(b"PGWEIR_0")?;
                "DEALLOCATE"
            }
            text if text.starts_with(b"deallocate ") => {
                self.deallocate(&text[b"deallocate ".len()..])?;
                "DEALLOCATE"
            }
            text if text.starts_with(b"prepare ") => {
                self.prepare(text)?;
                "PREPARE"
            }
            text if text.starts_with(b"execute ") => {
                let name = &text[b"execute ".len()..];
                let found = self.by_sql.get(name).cloned();
                let found = found.ok_or_else(|| missing(name))?;
                build::message(&mut self.unflushed, tag::DATA_ROW, |out| {
                    out.extend_from_slice(body_of(&found))
                });
                "SELECT 1"
            }
            b"copy" => {
                build::bare(&mut self.unflushed, tag::COPY_IN_RESPONSE);
                self.flush();
                self.copying = Some(extended);
                return Ok(());
            }
            rows => {
                build::message(&mut self.unflushed, tag::DATA_ROW, |out| {
                    out.extend_from_slice(rows)
                });
                "SELECT 1"
            }
        };
        build::command_complete(&mut self.unflushed, word);
        Ok(())
    }
}

fn exists(name: &[u8]) -> Failure {
    let name = String::from_utf8_lossy(name);
    let text = format!("prepared statement \"{name}\" already exists");
    ("42P05", text.into())
}

fn missing(name: &[u8]) -> Failure {
    let name = String::from_utf8_lossy(name);
    let text = format!("prepared statement \"{name}\" does not exist");
    ("26000", text.into())
}

/// What `prepare <name> as …` prepares.
fn body_of(text: &[u8]) -> &[u8] {
    let words = text.splitn(4, |b| *b == b' ');
    words.last().expect("a text")
}

fn text_of(source: &[u8]) -> &[u8] {
    split_cstr(source).expect("a text").0
}

fn returns_rows(text: &[u8]) -> bool {
    text.starts_with(b"select")
}

fn analyze(text: &[u8]) -> Result<(), Failure> {
    if text == b"bad" {
        return Err(("42601", b"syntax error at or near \"bad\"".to_vec()));
    }
    Ok(())
}
