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
//!
//! One thing the replies do not tell: when a COPY fails, which of the messages sent meanwhile the server had read as COPY data.
//! A Sync among them may have been ignored or may still be answered ([`Doubt`]); until a later reply tells, the connection is
//! not free. Anything else sent blindly behind such a Sync may have been skipped or not: then the ledger is [`Owed::is_lost`].

mod queue;

use crate::types::TxStatus;
use crate::wire::tag::from_server as tag;
use queue::{Entry, Queue};

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

impl Origin {
    /// Of replies to such a request.
    fn fate(self) -> Fate {
        match self {
            Origin::Hidden => Fate::Swallow,
            Origin::Client | Origin::Absorbed => Fate::Deliver,
        }
    }
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

/// What a request is about, told back while its reply is looked at: nothing unless [`Owed::sent_about`] said so. Much cheaper than
/// a note, and of no meaning to the ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// Number of a statement, from one.
    pub statement: u64,
    /// The client's name of it; see [`Names::find`](crate::client::names::Names::find).
    pub name: usize,
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Copy {
    None,
    /// The server reads COPY data from the client.
    In,
    /// Replication: both sides stream.
    Both,
}

/// Syncs that the server may have taken for a part of a COPY that then failed: none, some or all of them are still answered, each
/// with a ReadyForQuery that nothing else in the ledger accounts for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Doubt {
    /// How many at most.
    syncs: u32,
    /// The ReadyForQuery of the failed Query at the head comes before them.
    behind_head: bool,
}

/// The ledger of one server connection.
#[derive(Clone, Debug)]
pub struct Owed<N> {
    queue: Queue<N>,
    /// The server skips everything up to the next Sync, which has not been sent yet (unless one of those in doubt is it).
    skipping: bool,
    /// Extended requests were sent since the last Sync or Query: the server is inside a batch.
    open_batch: bool,
    copy: Copy,
    /// Syncs sent since the running COPY began: the server ignores them unless it fails before reading them.
    ignored_syncs: u32,
    /// Something was sent into the running COPY that has no place there: the COPY is going to fail.
    intruder: bool,
    doubt: Doubt,
    lost: bool,
    status: TxStatus,
}

impl<N> Default for Owed<N> {
    fn default() -> Self {
        Owed {
            queue: Queue::default(),
            skipping: false,
            open_batch: false,
            copy: Copy::None,
            ignored_syncs: 0,
            intruder: false,
            doubt: Doubt::default(),
            lost: false,
            status: TxStatus::Idle,
        }
    }
}

// What can be asked.
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
            && self.doubt.syncs == 0
            && !self.lost
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

    /// The server skips what it is sent now, up to the next Sync.
    pub fn is_skipping(&self) -> bool {
        self.skipping || self.lost
    }

    /// Nobody can tell any more what the next reply answers: every reply but an error is [`Unexpected`], and what is sent counts
    /// as failed. The client has to be told and the connection closed.
    pub fn is_lost(&self) -> bool {
        self.lost
    }

    /// True if all that was sent is answered, as far as it is answered before the next Sync.
    pub fn is_answered(&self) -> bool {
        self.queue.is_empty()
    }

    /// True if a batch that is complete has not been answered yet; that needs no Flush to happen.
    pub fn is_pipelined(&self) -> bool {
        self.queue.has_batch_end()
    }

    /// True if [`Owed::status`] will still hold when the next request reaches the server, or else that request is skipped.
    pub fn knows_status(&self) -> bool {
        !self.queue.has_batch_end() && self.doubt.syncs == 0 && self.copy == Copy::None
    }

    /// The note of the request whose reply comes next.
    pub fn head_note(&self) -> Option<&N> {
        self.queue.front()?.note.as_ref()
    }

    /// What the request is about whose reply comes next; see [`Owed::sent_about`].
    pub fn head_about(&self) -> About {
        let head = self.queue.front();
        head.map_or(About::default(), |entry| entry.about)
    }

    /// What the next reply answers.
    pub fn head_kind(&self) -> Option<Kind> {
        self.queue.front().map(|entry| entry.kind)
    }

    /// The notes of all requests that are not answered yet, oldest first.
    pub fn notes(&self) -> impl Iterator<Item = &N> {
        self.queue.notes()
    }

    /// The notes of requests in batches that are complete, oldest first. A request that is sent now is not skipped when one of
    /// those fails, so it must not build upon what they assume.
    pub fn earlier_notes(&self) -> impl Iterator<Item = &N> {
        self.queue.earlier_notes()
    }
}

// What is sent.
impl<N> Owed<N> {
    /// A request has been (or is about to be) written to the server; an absorbed one has been kept from it.
    ///
    /// An absorbed request whose turn is at once, or one that the server is going to skip, is reported to `events` immediately.
    #[inline]
    pub fn sent(
        &mut self,
        kind: Kind,
        origin: Origin,
        note: Option<N>,
        events: &mut Vec<Event<N>>,
    ) {
        self.sent_about(kind, origin, note, About::default(), events);
    }

    /// As [`Owed::sent`], and [`Owed::head_about`] tells `about` when the reply comes.
    #[inline(always)] // what kind it is, and that there is no note, is known to most who call it
    pub fn sent_about(
        &mut self,
        kind: Kind,
        origin: Origin,
        note: Option<N>,
        about: About,
        events: &mut Vec<Event<N>>,
    ) {
        if self.lost {
            return undone(note, events);
        }
        if self.copy == Copy::In && origin != Origin::Absorbed && self.is_copys(kind) {
            return;
        }
        if self.skipping && kind != Kind::Sync {
            return self.sent_unread(kind, note, events);
        }
        self.note_batch(kind);
        if kind == Kind::CopyEnd && self.queue.is_empty() {
            return; // outside a COPY the server ignores it
        }
        self.queue.push_back(Entry {
            kind,
            origin,
            note,
            about,
        });
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

    /// The server skips this, unless it has found a Sync that is in doubt.
    fn sent_unread(&mut self, kind: Kind, note: Option<N>, events: &mut Vec<Event<N>>) {
        undone(note, events);
        if kind != Kind::CopyEnd {
            self.lost |= self.doubt.syncs > 0;
        }
    }

    /// While the server reads COPY data, only the end of the data counts; Syncs are ignored, and anything else fails the COPY.
    /// True if the request is a part of the COPY, and so is not answered.
    fn is_copys(&mut self, kind: Kind) -> bool {
        match kind {
            Kind::Sync => self.ignored_syncs += 1,
            Kind::CopyEnd => self.copy = Copy::None,
            _ => {
                self.copy = Copy::None;
                self.intruder = true;
                return false;
            }
        }
        true
    }
}

// What comes back.
impl<N> Owed<N> {
    /// A whole message has come from the server; for ReadyForQuery, `status` is its body's byte.
    ///
    /// Answers of absorbed requests whose turn comes behind this reply are in `events`.
    pub fn reply(
        &mut self,
        reply: u8,
        status: u8,
        events: &mut Vec<Event<N>>,
    ) -> Result<Fate, Unexpected> {
        match reply {
            tag::NOTICE_RESPONSE => return Ok(self.fate_of_head().unwrap_or(Fate::Deliver)),
            tag::PARAMETER_STATUS => return Ok(self.fate_of_parameter()),
            tag::NOTIFICATION_RESPONSE => return Ok(Fate::Deliver),
            tag::ERROR_RESPONSE => return Ok(self.failed(events)),
            _ => {}
        }
        let unexpected = Unexpected { tag: reply };
        if self.lost {
            return Err(unexpected);
        }
        if reply == tag::READY_FOR_QUERY {
            return self.ready(status, events).ok_or(unexpected);
        }
        let head = self.queue.front().ok_or(unexpected)?;
        let (kind, fate) = (head.kind, head.origin.fate());
        self.answered(kind, reply, events).ok_or(unexpected)?;
        Ok(fate)
    }

    /// A reply to the request at the head that is neither an error nor ReadyForQuery. `None` if it can't be.
    fn answered(&mut self, head: Kind, reply: u8, events: &mut Vec<Event<N>>) -> Option<()> {
        match (reply, head) {
            (tag::PARSE_COMPLETE, Kind::Parse)
            | (tag::BIND_COMPLETE, Kind::Bind)
            | (tag::CLOSE_COMPLETE, Kind::Close)
            | (tag::ROW_DESCRIPTION | tag::NO_DATA, Kind::Describe)
            | (tag::PORTAL_SUSPENDED, Kind::Execute) => self.done(events),
            (tag::COMMAND_COMPLETE | tag::EMPTY_QUERY_RESPONSE, Kind::Execute) => {
                self.end_copy();
                self.done(events);
            }
            (tag::COMMAND_COMPLETE | tag::EMPTY_QUERY_RESPONSE, Kind::Query) => self.end_copy(),
            (tag::PARAMETER_DESCRIPTION, Kind::Describe)
            | (tag::ROW_DESCRIPTION, Kind::Query)
            | (tag::FUNCTION_CALL_RESPONSE, Kind::FunctionCall)
            | (
                tag::DATA_ROW | tag::COPY_DATA | tag::COPY_DONE | tag::COPY_OUT_RESPONSE,
                Kind::Query | Kind::Execute,
            ) => {}
            (tag::COPY_IN_RESPONSE, Kind::Query | Kind::Execute) => self.begin_copy_in(),
            (tag::COPY_BOTH_RESPONSE, Kind::Query | Kind::Execute) => self.copy = Copy::Both,
            _ => return None,
        }
        // Whatever was in doubt would have been answered before this.
        self.doubt = Doubt::default();
        Some(())
    }

    /// A row, or its like: a part of the answer to the request at the head that leaves everything else as it is. `None` for any
    /// other reply, and for a row that nobody has asked for: [`Owed::reply`] knows what to do with them.
    #[inline]
    pub fn row(&mut self, reply: u8) -> Option<Fate> {
        let head = self.queue.front()?;
        let of_head = match reply {
            tag::DATA_ROW | tag::COPY_DATA => matches!(head.kind, Kind::Query | Kind::Execute),
            tag::ROW_DESCRIPTION => head.kind == Kind::Query,
            _ => false,
        };
        if !of_head || self.lost {
            return None;
        }
        let fate = head.origin.fate();
        self.doubt = Doubt::default();
        Some(fate)
    }

    fn fate_of_head(&self) -> Option<Fate> {
        Some(self.queue.front()?.origin.fate())
    }

    /// A parameter that changes while a hidden Parse or Close is served has not changed because of that: the client shall know.
    fn fate_of_parameter(&self) -> Fate {
        match self.queue.front() {
            Some(head) if head.origin == Origin::Hidden && head.kind.ends_with_ready() => {
                Fate::Swallow
            }
            _ => Fate::Deliver,
        }
    }

    /// The request at the head succeeded.
    #[inline]
    fn done(&mut self, events: &mut Vec<Event<N>>) {
        if let Some(note) = self.queue.pop_front().and_then(|entry| entry.note) {
            events.push(Event::Done(note));
        }
        self.answer_absorbed(events);
    }

    /// Lets absorbed requests at the head be answered, and forgets ends of COPY data that the server ignores.
    #[inline]
    fn answer_absorbed(&mut self, events: &mut Vec<Event<N>>) {
        while self.queue.is_front_unanswered() {
            self.pass_over(events);
        }
    }

    fn pass_over(&mut self, events: &mut Vec<Event<N>>) {
        if let Some(entry) = self.queue.pop_front()
            && entry.origin == Origin::Absorbed
        {
            events.push(Event::Answer(entry.kind, entry.note));
        }
    }

    fn end_copy(&mut self) {
        self.copy = Copy::None;
        self.ignored_syncs = 0;
    }

    /// CopyInResponse: of what was sent behind the request, the server ignores Syncs, up to the end of the data; anything else
    /// makes the COPY fail. Absorbed requests did not reach it: they are answered behind the COPY.
    fn begin_copy_in(&mut self) {
        self.copy = Copy::In;
        let mut at = 1;
        while self.copy == Copy::In
            && let Some(entry) = self.queue.get(at)
        {
            if entry.origin != Origin::Absorbed && self.is_copys(entry.kind) {
                self.queue.remove(at);
            } else {
                at += 1;
            }
        }
        // The Sync that was to end the batch may have been among the ignored.
        if self.head_kind() == Some(Kind::Execute) && !self.queue.has_batch_end() {
            self.open_batch = true;
        }
    }

    fn failed(&mut self, events: &mut Vec<Event<N>>) -> Fate {
        if self.lost {
            return Fate::Deliver;
        }
        let copy_ended = std::mem::replace(&mut self.copy, Copy::None) == Copy::None;
        let Some(head) = self.queue.front() else {
            return Fate::Deliver; // not an answer: the server says good-bye
        };
        let (kind, origin) = (head.kind, head.origin);
        let syncs = std::mem::take(&mut self.ignored_syncs);
        let intruder = std::mem::take(&mut self.intruder);
        // Syncs in doubt from before come in front of whatever this answers, unless it is a Sync too.
        if kind != Kind::Sync && !self.doubt.behind_head {
            self.doubt = Doubt {
                syncs,
                behind_head: syncs > 0 && kind == Kind::Query,
            };
        }
        if kind.ends_with_ready() {
            if intruder {
                self.lose(events); // read by the COPY, or behind it?
            }
            return origin.fate();
        }
        // An extended request. With a Sync in doubt, what follows up to the next one was skipped or not.
        let blind = syncs > 0 && (intruder || copy_ended && self.queue.has_blind());
        if blind {
            self.lose(events);
        } else {
            self.skip_to_sync(events);
        }
        Fate::Deliver
    }

    /// An extended request failed: the server skips to the next Sync.
    fn skip_to_sync(&mut self, events: &mut Vec<Event<N>>) {
        self.skipping = !self
            .queue
            .drain_to_sync(|note| events.push(Event::Undone(note)));
    }

    fn lose(&mut self, events: &mut Vec<Event<N>>) {
        self.lost = true;
        self.queue
            .drain_all(|note| events.push(Event::Undone(note)));
    }

    fn ready(&mut self, status: u8, events: &mut Vec<Event<N>>) -> Option<Fate> {
        let status = TxStatus::from_byte(status)?;
        let fate = self.fate_of_head().unwrap_or(Fate::Deliver);
        let head = self.head_kind();
        let fate = match head {
            // Syncs in doubt and a certain one behind them: whose this is does not matter, one less is to come.
            Some(Kind::Sync) => self.ready_of_head(fate, events),
            Some(kind)
                if kind.ends_with_ready() && (self.doubt.syncs == 0 || self.doubt.behind_head) =>
            {
                self.ready_of_head(fate, events)
            }
            _ if self.doubt.syncs > 0 && !self.doubt.behind_head => {
                self.doubt.syncs -= 1;
                if std::mem::take(&mut self.skipping) {
                    self.open_batch = false;
                }
                Fate::Deliver
            }
            _ => return None,
        };
        self.status = status;
        Some(fate)
    }

    fn ready_of_head(&mut self, fate: Fate, events: &mut Vec<Event<N>>) -> Fate {
        self.end_copy();
        self.intruder = false;
        self.doubt.behind_head = false;
        self.done(events);
        fate
    }
}

fn undone<N>(note: Option<N>, events: &mut Vec<Event<N>>) {
    if let Some(note) = note {
        events.push(Event::Undone(note));
    }
}

#[cfg(test)]
mod tests;
