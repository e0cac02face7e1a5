//! The replies that PostgreSQL still owes on one connection: whose each reply is, and when nothing is owed any more.
//!
//! Pure: it is told what was sent ([`Owed::sent`]) and what came back ([`Owed::reply`]), in order, and knows from that which
//! request a reply answers. Three kinds of requests are told apart ([`Origin`]): a client's own, hidden ones of the pooler whose
//! replies nobody else sees, and absorbed ones that never reach the server because the pooler answers them itself, in their
//! place in the order.
//!
//! A request may carry a note (what the pooler has to remember if it succeeds, or to take back if it does not); notes come back
//! as [`Event`]s. The rules follow the server's main loop: after an error in an extended request everything up to the next Sync
//! is skipped; while the server reads COPY data it ignores Sync and Flush.

use std::collections::VecDeque;

use crate::types::TxStatus;
use crate::wire::tag::from_server as tag;

/// A request that is answered, or that changes what is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Query: any replies, then ReadyForQuery
    Query,
    /// FunctionCall: as Query
    FunctionCall,
    /// Sync: ReadyForQuery
    Sync,
    /// Parse: ParseComplete
    Parse,
    /// Bind: BindComplete
    Bind,
    /// Describe: perhaps ParameterDescription, then RowDescription or NoData
    Describe,
    /// Execute: rows or COPY, then CommandComplete, EmptyQueryResponse or PortalSuspended
    Execute,
    /// Close: CloseComplete
    Close,
    /// CopyDone or CopyFail: no reply of its own, ends the data of a COPY
    CopyEnd,
}

impl Kind {
    fn is_extended(self) -> bool {
        matches!(
            self,
            Kind::Parse | Kind::Bind | Kind::Describe | Kind::Execute | Kind::Close
        )
    }

    fn ends_with_ready(self) -> bool {
        matches!(self, Kind::Query | Kind::FunctionCall | Kind::Sync)
    }
}

/// Where a request comes from, and so where its reply goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The client's: replies are delivered.
    Client,
    /// The pooler's own: replies are swallowed, but for an error in an extended request, which concerns the client's batch.
    Hidden,
    /// The client's, but never sent: the pooler answers it when its turn comes.
    Absorbed,
}

/// What became of a request that carried a note, or was absorbed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<N> {
    /// It succeeded.
    Done(N),
    /// It failed or was skipped after an earlier failure: what was assumed when it was sent has to be taken back. Events of one
    /// failure come newest first, so that taking them back one by one ends in the state before.
    Undone(N),
    /// The turn of an absorbed request has come: answer it now.
    Answer(Kind, Option<N>),
}

/// What to do with a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Pass it to the client.
    Deliver,
    /// Drop it.
    Swallow,
}

/// A reply that answers nothing that was asked: the connection can't be trusted any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unexpected {
    /// Tag of the reply.
    pub tag: u8,
}

#[derive(Clone, Debug)]
struct Entry<N> {
    kind: Kind,
    origin: Origin,
    note: Option<N>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Copy {
    None,
    /// The server reads COPY data from the client.
    In,
    /// Replication: both sides stream.
    Both,
}

/// The ledger of one server connection.
#[derive(Clone, Debug)]
pub struct Owed<N> {
    queue: VecDeque<Entry<N>>,
    /// The server skips everything up to the next Sync, which has not been sent yet.
    skipping: bool,
    /// Extended requests were sent since the last Sync or Query: the server is inside a batch.
    open_batch: bool,
    copy: Copy,
    /// Syncs sent since the running COPY began: the server ignores them unless it failed before reading them.
    ignored_sync: bool,
    /// A COPY failed and nobody can tell whether such a Sync was ignored or will be answered.
    uncertain: bool,
    status: TxStatus,
}

impl<N> Default for Owed<N> {
    fn default() -> Self {
        Owed {
            queue: VecDeque::new(),
            skipping: false,
            open_batch: false,
            copy: Copy::None,
            ignored_sync: false,
            uncertain: false,
            status: TxStatus::Idle,
        }
    }
}

impl<N> Owed<N> {
    /// Transaction status as of the last ReadyForQuery.
    pub fn status(&self) -> TxStatus {
        self.status
    }

    /// Nothing is owed, no batch is open and no COPY runs: the server waits for a new request.
    pub fn is_settled(&self) -> bool {
        self.queue.is_empty()
            && !self.skipping
            && !self.open_batch
            && self.copy == Copy::None
            && !self.uncertain
    }

    /// Settled, and outside a transaction block: the connection could serve somebody else.
    pub fn is_free(&self) -> bool {
        self.is_settled() && self.status == TxStatus::Idle
    }

    /// True while the reply to a Query, a FunctionCall or an Execute is awaited: a statement runs.
    pub fn is_running(&self) -> bool {
        self.copy != Copy::None
            || self
                .queue
                .iter()
                .any(|e| e.origin != Origin::Absorbed && e.kind != Kind::CopyEnd)
    }

    /// True while the server reads COPY data, as far as its replies tell.
    pub fn is_copying_in(&self) -> bool {
        self.copy == Copy::In
    }

    /// The note of the request whose reply comes next.
    pub fn head_note(&self) -> Option<&N> {
        self.queue.front()?.note.as_ref()
    }

    /// The notes of all requests that are not answered yet, oldest first.
    pub fn notes(&self) -> impl Iterator<Item = &N> {
        self.queue.iter().filter_map(|entry| entry.note.as_ref())
    }

    /// A request has been (or is about to be) written to the server; an absorbed one has been kept from it.
    ///
    /// An absorbed request whose turn is at once, or one that the server is going to skip, is reported to `events` immediately.
    pub fn sent(
        &mut self,
        kind: Kind,
        origin: Origin,
        note: Option<N>,
        events: &mut Vec<Event<N>>,
    ) {
        if self.copy == Copy::In {
            return self.sent_into_copy(kind, note, events);
        }
        if self.skipping && kind != Kind::Sync {
            self.open_batch = true;
            return undone(note, events);
        }
        self.note_batch(kind);
        if kind == Kind::CopyEnd && self.queue.is_empty() {
            return; // outside a COPY the server ignores it
        }
        self.queue.push_back(Entry { kind, origin, note });
        if origin == Origin::Absorbed {
            self.answer_absorbed(events);
        }
    }

    fn note_batch(&mut self, kind: Kind) {
        if kind.is_extended() {
            self.open_batch = true;
        } else if kind.ends_with_ready() {
            self.open_batch = false;
            self.skipping = false;
        }
    }

    /// While the server reads COPY data, only the end of the data counts; anything else is eaten and fails the COPY.
    fn sent_into_copy(&mut self, kind: Kind, note: Option<N>, events: &mut Vec<Event<N>>) {
        match kind {
            Kind::Sync => self.ignored_sync = true,
            Kind::CopyEnd => self.copy = Copy::None,
            _ => {
                self.copy = Copy::None;
                undone(note, events);
            }
        }
    }

    /// A whole message has come from the server; for ReadyForQuery, `status` is its body's byte.
    ///
    /// Answers of absorbed requests whose turn comes behind this reply are in `events`.
    pub fn reply(
        &mut self,
        reply: u8,
        status: u8,
        events: &mut Vec<Event<N>>,
    ) -> Result<Fate, Unexpected> {
        let unexpected = Unexpected { tag: reply };
        match reply {
            tag::DATA_ROW
            | tag::COPY_DATA
            | tag::COPY_DONE
            | tag::COPY_OUT_RESPONSE
            | tag::FUNCTION_CALL_RESPONSE => {
                return self.fate_of_head().ok_or(unexpected);
            }
            tag::NOTICE_RESPONSE => return Ok(self.fate_of_head().unwrap_or(Fate::Deliver)),
            tag::PARAMETER_STATUS => return Ok(self.fate_of_head().unwrap_or(Fate::Deliver)),
            tag::NOTIFICATION_RESPONSE => return Ok(Fate::Deliver),
            _ => {}
        }
        let head = self.queue.front().map(|entry| entry.kind);
        let fate = self.fate_of_head().unwrap_or(Fate::Deliver);
        match (reply, head) {
            (tag::PARSE_COMPLETE, Some(Kind::Parse))
            | (tag::BIND_COMPLETE, Some(Kind::Bind))
            | (tag::CLOSE_COMPLETE, Some(Kind::Close))
            | (tag::ROW_DESCRIPTION | tag::NO_DATA, Some(Kind::Describe))
            | (tag::PORTAL_SUSPENDED, Some(Kind::Execute)) => self.done(events),
            (tag::COMMAND_COMPLETE | tag::EMPTY_QUERY_RESPONSE, Some(Kind::Execute)) => {
                self.end_copy();
                self.done(events);
            }
            (tag::COMMAND_COMPLETE | tag::EMPTY_QUERY_RESPONSE, Some(Kind::Query)) => {
                self.end_copy()
            }
            // A replication command (walsender) is answered like a Query, and ends with CommandComplete.
            (tag::PARAMETER_DESCRIPTION, Some(Kind::Describe))
            | (tag::ROW_DESCRIPTION, Some(Kind::Query)) => {}
            (tag::COPY_IN_RESPONSE, Some(Kind::Query | Kind::Execute)) => {
                self.begin_copy_in(events)
            }
            (tag::COPY_BOTH_RESPONSE, Some(Kind::Query | Kind::Execute)) => self.copy = Copy::Both,
            (tag::ERROR_RESPONSE, _) => return Ok(self.failed(events)),
            (tag::READY_FOR_QUERY, _) => {
                self.ready(head, status, events).ok_or(unexpected)?;
            }
            _ => return Err(unexpected),
        }
        Ok(fate)
    }

    fn fate_of_head(&self) -> Option<Fate> {
        let entry = self.queue.front()?;
        Some(if entry.origin == Origin::Hidden {
            Fate::Swallow
        } else {
            Fate::Deliver
        })
    }

    /// The request at the head succeeded.
    fn done(&mut self, events: &mut Vec<Event<N>>) {
        if let Some(Entry {
            note: Some(note), ..
        }) = self.queue.pop_front()
        {
            events.push(Event::Done(note));
        }
        self.answer_absorbed(events);
    }

    /// Lets absorbed requests at the head be answered, and forgets ends of COPY data that the server ignores.
    fn answer_absorbed(&mut self, events: &mut Vec<Event<N>>) {
        while let Some(entry) = self.queue.front() {
            if entry.origin != Origin::Absorbed && entry.kind != Kind::CopyEnd {
                return;
            }
            let Some(entry) = self.queue.pop_front() else {
                return;
            };
            if entry.origin == Origin::Absorbed {
                events.push(Event::Answer(entry.kind, entry.note));
            }
        }
    }

    fn end_copy(&mut self) {
        self.copy = Copy::None;
        self.ignored_sync = false;
    }

    /// CopyInResponse: of what was sent behind the request, the server ignores Syncs, up to the end of the data; anything else
    /// is eaten and makes the COPY fail.
    fn begin_copy_in(&mut self, events: &mut Vec<Event<N>>) {
        self.copy = Copy::In;
        while self.copy == Copy::In
            && let Some(entry) = self.queue.remove(1)
        {
            self.sent_into_copy(entry.kind, entry.note, events);
        }
    }

    fn failed(&mut self, events: &mut Vec<Event<N>>) -> Fate {
        self.copy = Copy::None;
        let Some(head) = self.queue.front() else {
            return Fate::Deliver; // not an answer: the server says good-bye
        };
        if head.kind.ends_with_ready() {
            // A failed COPY of the simple protocol ends with the Query's own ReadyForQuery, but a Sync may be answered besides.
            self.uncertain |= std::mem::take(&mut self.ignored_sync);
            return self.fate_of_head().unwrap_or(Fate::Deliver);
        }
        self.uncertain |= std::mem::take(&mut self.ignored_sync);
        self.skip_to_sync(events);
        Fate::Deliver
    }

    /// An extended request failed: the server skips to the next Sync.
    fn skip_to_sync(&mut self, events: &mut Vec<Event<N>>) {
        let sync = self.queue.iter().position(|entry| entry.kind == Kind::Sync);
        let skipped = self.queue.drain(..sync.unwrap_or(self.queue.len()));
        events.extend(
            skipped
                .rev()
                .filter_map(|entry| entry.note)
                .map(Event::Undone),
        );
        self.skipping = sync.is_none();
    }

    fn ready(&mut self, head: Option<Kind>, status: u8, events: &mut Vec<Event<N>>) -> Option<()> {
        self.status = TxStatus::from_byte(status)?;
        match head {
            Some(kind) if kind.ends_with_ready() => {
                self.end_copy();
                self.done(events);
            }
            _ if self.uncertain => self.skipping = false,
            _ => return None,
        }
        Some(())
    }
}

fn undone<N>(note: Option<N>, events: &mut Vec<Event<N>>) {
    events.extend(note.map(Event::Undone));
}
