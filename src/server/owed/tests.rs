//! The ledger against a model of PostgreSQL's message loop: whatever is sent, however sending and replying interleave.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::*;

/// What a statement does in the model.
#[derive(Clone, Debug, PartialEq)]
enum Stmt {
    Select(u8),
    Empty,
    Begin,
    Commit,
    Error,
    CopyOut,
    /// Fails, if so, after reading this many messages, or on having read the last.
    CopyIn {
        fails_after: Option<u8>,
        fails_at_end: bool,
    },
    /// Replication.
    CopyBoth,
}

#[derive(Clone, Debug)]
enum Msg {
    Query(Vec<Stmt>),
    FunctionCall { fails: bool },
    Parse { fails: bool },
    Bind { fails: bool },
    Describe { fails: bool, parameters: bool },
    Execute { stmt: Stmt, suspends: bool },
    Close,
    Sync { fails: bool },
    CopyData,
    CopyDone,
    CopyFail,
    Flush,
}

impl Msg {
    fn kind(&self) -> Option<Kind> {
        Some(match self {
            Msg::Query(_) => Kind::Query,
            Msg::FunctionCall { .. } => Kind::FunctionCall,
            Msg::Parse { .. } => Kind::Parse,
            Msg::Bind { .. } => Kind::Bind,
            Msg::Describe { .. } => Kind::Describe,
            Msg::Execute { .. } => Kind::Execute,
            Msg::Close => Kind::Close,
            Msg::Sync { .. } => Kind::Sync,
            Msg::CopyDone | Msg::CopyFail => Kind::CopyEnd,
            Msg::CopyData | Msg::Flush => return None,
        })
    }

    fn may_be_absorbed(&self) -> bool {
        matches!(self, Msg::Parse { .. } | Msg::Close)
    }

    fn may_be_hidden(&self) -> bool {
        matches!(self, Msg::Parse { .. } | Msg::Close | Msg::Query(_))
    }
}

/// A message with its number. Absorbed ones are on the model's wire too: it answers them as PostgreSQL would have.
#[derive(Clone, Debug)]
struct Request {
    id: usize,
    msg: Msg,
    origin: Origin,
}

/// What the model says, and about which request.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Said {
    tag: u8,
    status: u8,
    about: Option<usize>,
    /// Not a reply: an absorbed request would be answered here.
    is_answer: bool,
}

#[derive(Clone, Debug)]
struct Reading {
    request: Request,
    fails_after: Option<u8>,
    fails_at_end: bool,
    /// Statements of the Query behind the COPY.
    rest: Vec<Stmt>,
    /// Absorbed requests that came meanwhile.
    absorbed: Vec<Request>,
    both: bool,
}

/// PostgreSQL's main loop.
#[derive(Clone, Debug, Default)]
struct Model {
    wire: VecDeque<Request>,
    said: VecDeque<Said>,
    status: Option<u8>,
    skipping: bool,
    in_batch: bool,
    reading: Option<Reading>,
    dead: bool,
    /// As before version 14: an intruder is eaten instead of ending the connection.
    eats_intruders: bool,
    /// What became of the requests: true if it was served without an error.
    fates: BTreeMap<usize, bool>,
    copy_failed: bool,
}

impl Model {
    fn status(&self) -> u8 {
        self.status.unwrap_or(b'I')
    }

    fn say(&mut self, tag: u8, about: usize) {
        let status = if tag == tag::READY_FOR_QUERY {
            self.status()
        } else {
            0
        };
        self.said.push_back(Said {
            tag,
            status,
            about: Some(about),
            is_answer: false,
        });
    }

    fn error(&mut self, about: usize) {
        self.say(tag::ERROR_RESPONSE, about);
        self.fates.insert(about, false);
        if self.status() == b'T' {
            self.status = Some(b'E');
        }
    }

    fn is_at_rest(&self) -> bool {
        self.wire.is_empty() && self.reading.is_none() && !self.skipping && !self.in_batch
    }

    /// Reads one message, or fails before doing so. False if there was nothing to do.
    fn step(&mut self) -> bool {
        if self.dead {
            return false;
        }
        if let Some(reading) = &self.reading
            && reading.fails_after == Some(0)
        {
            self.fail_copy();
            return true;
        }
        let Some(request) = self.wire.pop_front() else {
            return false;
        };
        if self.reading.is_some() {
            self.read_copy(request);
        } else if self.skipping && !matches!(request.msg, Msg::Sync { .. }) {
            self.fates.insert(request.id, false);
        } else {
            self.serve(request);
        }
        true
    }

    fn serve(&mut self, request: Request) {
        let id = request.id;
        let failed = self.status() == b'E';
        self.fates.insert(id, true);
        match request.msg.clone() {
            Msg::Query(stmts) => {
                self.in_batch = false;
                self.run(request, stmts);
            }
            Msg::FunctionCall { fails } => {
                self.in_batch = false;
                if fails || failed {
                    self.error(id);
                } else {
                    self.say(tag::FUNCTION_CALL_RESPONSE, id);
                }
                self.say(tag::READY_FOR_QUERY, id);
            }
            Msg::Sync { fails } => {
                if fails && self.in_batch && !self.skipping {
                    self.error(id);
                }
                self.skipping = false;
                self.in_batch = false;
                self.say(tag::READY_FOR_QUERY, id);
            }
            Msg::CopyData | Msg::CopyDone | Msg::CopyFail | Msg::Flush => {}
            _ => self.serve_extended(request, failed),
        }
    }

    fn serve_extended(&mut self, request: Request, failed: bool) {
        let id = request.id;
        self.in_batch = true;
        if request.origin == Origin::Absorbed {
            self.said.push_back(Said {
                tag: 0,
                status: 0,
                about: Some(id),
                is_answer: true,
            });
            return;
        }
        match request.msg.clone() {
            Msg::Parse { fails } | Msg::Bind { fails } | Msg::Describe { fails, .. }
                if fails || failed =>
            {
                self.extended_error(id)
            }
            Msg::Parse { .. } => self.say(tag::PARSE_COMPLETE, id),
            Msg::Bind { .. } => self.say(tag::BIND_COMPLETE, id),
            Msg::Describe { parameters, .. } => {
                if parameters {
                    self.say(tag::PARAMETER_DESCRIPTION, id);
                    self.say(tag::NO_DATA, id);
                } else {
                    self.say(tag::ROW_DESCRIPTION, id);
                }
            }
            Msg::Close => self.say(tag::CLOSE_COMPLETE, id),
            Msg::Execute { suspends: true, .. } if !failed => {
                self.say(tag::DATA_ROW, id);
                self.say(tag::PORTAL_SUSPENDED, id);
            }
            Msg::Execute { stmt, .. } => self.run(request, vec![stmt]),
            _ => unreachable!(),
        }
    }

    fn extended_error(&mut self, id: usize) {
        self.error(id);
        self.skipping = true;
    }

    /// Runs statements up to the end, an error or a COPY that wants data.
    fn run(&mut self, request: Request, stmts: Vec<Stmt>) {
        let id = request.id;
        let simple = matches!(request.msg, Msg::Query(_));
        let mut rest = stmts.into_iter();
        while let Some(stmt) = rest.next() {
            if stmt == Stmt::Error || self.status() == b'E' && stmt != Stmt::Commit {
                return self.fail(id, simple);
            }
            match stmt {
                Stmt::Select(rows) => {
                    if simple {
                        self.say(tag::ROW_DESCRIPTION, id);
                    }
                    (0..rows).for_each(|_| self.say(tag::DATA_ROW, id));
                    self.say(tag::COMMAND_COMPLETE, id);
                }
                Stmt::Empty => self.say(tag::EMPTY_QUERY_RESPONSE, id),
                Stmt::Begin => {
                    self.status = Some(b'T');
                    self.say(tag::COMMAND_COMPLETE, id);
                }
                Stmt::Commit => {
                    self.status = Some(b'I');
                    self.say(tag::COMMAND_COMPLETE, id);
                }
                Stmt::CopyOut => {
                    self.say(tag::COPY_OUT_RESPONSE, id);
                    self.say(tag::COPY_DATA, id);
                    self.say(tag::COPY_DONE, id);
                    self.say(tag::COMMAND_COMPLETE, id);
                }
                Stmt::CopyIn { .. } | Stmt::CopyBoth => {
                    return self.begin_reading(request, stmt, rest.collect());
                }
                Stmt::Error => unreachable!(),
            }
        }
        if simple {
            self.say(tag::READY_FOR_QUERY, id);
        }
    }

    fn begin_reading(&mut self, request: Request, stmt: Stmt, rest: Vec<Stmt>) {
        let both = stmt == Stmt::CopyBoth;
        let (fails_after, fails_at_end) = match stmt {
            Stmt::CopyIn {
                fails_after,
                fails_at_end,
            } => (fails_after, fails_at_end),
            _ => (None, false),
        };
        self.say(
            if both {
                tag::COPY_BOTH_RESPONSE
            } else {
                tag::COPY_IN_RESPONSE
            },
            request.id,
        );
        self.reading = Some(Reading {
            request,
            fails_after,
            fails_at_end,
            rest,
            absorbed: Vec::new(),
            both,
        });
    }

    fn fail(&mut self, id: usize, simple: bool) {
        if simple {
            self.error(id);
            self.say(tag::READY_FOR_QUERY, id);
        } else {
            self.extended_error(id);
        }
    }

    fn fail_copy(&mut self) {
        let reading = self.reading.take().expect("a COPY");
        self.copy_failed = true;
        let simple = matches!(reading.request.msg, Msg::Query(_));
        self.fail(reading.request.id, simple);
        self.requeue(reading.absorbed);
    }

    fn requeue(&mut self, absorbed: Vec<Request>) {
        for request in absorbed.into_iter().rev() {
            self.wire.push_front(request);
        }
    }

    fn read_copy(&mut self, request: Request) {
        let reading = self.reading.as_mut().expect("a COPY");
        if request.origin == Origin::Absorbed {
            return reading.absorbed.push(request);
        }
        if let Some(left) = &mut reading.fails_after {
            *left -= 1;
        }
        self.fates.insert(request.id, false);
        match request.msg {
            Msg::CopyData => {}
            Msg::Flush | Msg::Sync { .. } if !reading.both => {}
            Msg::CopyDone if !reading.fails_at_end => self.end_copy(),
            Msg::CopyDone | Msg::CopyFail if !reading.both => self.fail_copy(),
            _ if self.eats_intruders && !reading.both => self.fail_copy(),
            _ => {
                let id = reading.request.id;
                self.copy_failed = true;
                self.say(tag::ERROR_RESPONSE, id);
                self.say(tag::ERROR_RESPONSE, id);
                self.dead = true;
            }
        }
    }

    fn end_copy(&mut self) {
        let reading = self.reading.take().expect("a COPY");
        let id = reading.request.id;
        if reading.both {
            self.say(tag::COPY_DATA, id);
            self.say(tag::COPY_DONE, id);
        }
        self.say(tag::COMMAND_COMPLETE, id);
        if matches!(reading.request.msg, Msg::Query(_)) {
            self.run(reading.request, reading.rest);
        }
        self.put_back(reading.absorbed);
    }

    /// Absorbed requests that came during a COPY have their turn behind it, or behind the next one of the same Query.
    fn put_back(&mut self, absorbed: Vec<Request>) {
        match &mut self.reading {
            Some(next) => next.absorbed = absorbed,
            None => self.requeue(absorbed),
        }
    }
}

/// The ledger and the model side by side.
struct Bench {
    model: Model,
    owed: Owed<usize>,
    origins: Vec<Origin>,
    kinds: Vec<Option<Kind>>,
    noted: Vec<usize>,
    back: Vec<(usize, bool)>,
    want: Vec<(u8, usize)>,
    got: Vec<(u8, usize)>,
    doubted: bool,
}

impl Bench {
    fn new(eats_intruders: bool) -> Bench {
        Bench {
            model: Model {
                eats_intruders,
                ..Model::default()
            },
            owed: Owed::default(),
            origins: Vec::new(),
            kinds: Vec::new(),
            noted: Vec::new(),
            back: Vec::new(),
            want: Vec::new(),
            got: Vec::new(),
            doubted: false,
        }
    }

    fn send(&mut self, msg: Msg, origin: Origin, noted: bool) {
        let id = self.origins.len();
        let kind = msg.kind();
        let certain = self.owed.knows_status() && self.owed.status() != TxStatus::Failed;
        let origin = match origin {
            Origin::Absorbed if !(msg.may_be_absorbed() && certain) => Origin::Client,
            Origin::Hidden if !msg.may_be_hidden() => Origin::Client,
            // The pooler's own queries run only while nobody else's do.
            Origin::Hidden if kind == Some(Kind::Query) && !self.owed.is_free() => Origin::Client,
            origin => origin,
        };
        let noted = noted && kind.is_some_and(|kind| kind != Kind::CopyEnd && kind != Kind::Sync);
        self.origins.push(origin);
        self.kinds.push(kind);
        if let Some(kind) = kind {
            if noted || origin == Origin::Absorbed {
                self.noted.push(id);
            }
            let mut events = Vec::new();
            let note = (noted || origin == Origin::Absorbed).then_some(id);
            self.owed.sent(kind, origin, note, &mut events);
            self.note(events);
        }
        self.model.wire.push_back(Request { id, msg, origin });
        self.check();
    }

    fn note(&mut self, events: Vec<Event<usize>>) {
        let mut undone = Vec::new();
        for event in events {
            match event {
                Event::Done(id) => self.back.push((id, true)),
                Event::Undone(id) => {
                    undone.push(id);
                    self.back.push((id, false));
                }
                Event::Answer(_, Some(id)) => {
                    self.back.push((id, true));
                    self.got.push((0, id));
                }
                Event::Answer(_, None) => unreachable!(),
            }
        }
        assert!(
            undone.is_sorted_by(|a, b| a > b),
            "newest first: {undone:?}"
        );
    }

    /// The ledger hears one reply.
    fn hear(&mut self) -> bool {
        let Some(said) = self.model.said.pop_front() else {
            return false;
        };
        let id = said.about.unwrap_or(0);
        if said.is_answer {
            self.want.push((0, id));
            return true;
        }
        let mut events = Vec::new();
        let was_lost = self.owed.is_lost();
        let fate = self.owed.reply(said.tag, said.status, &mut events);
        self.doubted |= self.owed.doubt.syncs > 0 || self.owed.is_lost();
        let asynchronous = matches!(
            said.tag,
            tag::NOTICE_RESPONSE | tag::PARAMETER_STATUS | tag::NOTIFICATION_RESPONSE
        );
        match fate {
            _ if asynchronous => assert!(fate.is_ok()),
            Ok(_) if was_lost => {}
            Ok(fate) => {
                let hidden = self.origins[id] == Origin::Hidden
                    && !(said.tag == tag::ERROR_RESPONSE && self.kinds[id] != Some(Kind::Query));
                assert_eq!(fate == Fate::Swallow, hidden, "{said:?}");
                if fate == Fate::Deliver {
                    self.got.push((said.tag, id));
                }
                if !hidden {
                    self.want.push((said.tag, id));
                }
            }
            Err(unexpected) => assert!(was_lost, "{unexpected:?} {said:?} {:?}", self.owed),
        }
        self.note(events);
        if self.owed.is_lost() {
            assert!(self.model.copy_failed);
        }
        self.check();
        true
    }

    fn interrupt(&mut self, what: u8) {
        let tags = [
            tag::NOTICE_RESPONSE,
            tag::PARAMETER_STATUS,
            tag::NOTIFICATION_RESPONSE,
        ];
        if !self.model.dead {
            self.model.said.push_back(Said {
                tag: tags[what as usize % 3],
                status: 0,
                about: None,
                is_answer: false,
            });
        }
    }

    /// Never free while a reply could still come.
    fn check(&self) {
        if self.owed.is_settled() && !self.model.dead {
            let mut rest = self.model.clone();
            while rest.step() {}
            let replies = rest.said.iter().filter(|said| {
                said.about.is_some() && !(said.is_answer && self.has_answered(said.about))
            });
            assert_eq!(replies.count(), 0, "{:?} {:?}", self.owed, rest);
            assert!(rest.is_at_rest(), "{:?} {:?}", self.owed, rest);
            if self.owed.is_free() {
                assert_eq!(rest.status(), b'I');
            }
        }
    }

    fn has_answered(&self, id: Option<usize>) -> bool {
        self.got.iter().any(|got| got.0 == 0 && Some(got.1) == id)
    }

    fn drain(&mut self) {
        while self.model.step() || self.hear() {}
    }

    /// Everything has been read and said.
    fn check_at_rest(&mut self) {
        self.drain();
        let certain = !self.model.dead && !self.owed.is_lost() && self.owed.doubt.syncs == 0;
        if certain {
            assert_eq!(
                self.owed.is_settled(),
                self.model.is_at_rest(),
                "{:?} {:?}",
                self.owed,
                self.model
            );
        }
        if certain && self.model.is_at_rest() {
            let status = TxStatus::from_byte(self.model.status()).unwrap();
            assert_eq!(self.owed.status(), status);
        }
    }

    /// Ends whatever is open; then every note must be back.
    fn finish(mut self) {
        self.check_at_rest();
        for msg in [
            Msg::CopyFail,
            Msg::Sync { fails: false },
            Msg::CopyFail,
            Msg::Sync { fails: false },
            Msg::CopyFail,
            Msg::Sync { fails: false },
            Msg::Query(vec![Stmt::Commit]),
        ] {
            self.send(msg, Origin::Client, false);
            self.check_at_rest();
        }
        if self.model.dead {
            return;
        }
        // Not even doubt outlives a query.
        assert!(
            self.owed.is_free() || self.owed.is_lost(),
            "{:?}",
            self.owed
        );
        let mut back: Vec<usize> = self.back.iter().map(|(id, _)| *id).collect();
        back.sort();
        assert_eq!(back, self.noted);
        if self.owed.is_lost() {
            return;
        }
        for (id, done) in &self.back {
            // A Query is done when it is over, be it with an error.
            let over = self.kinds[*id].is_some_and(Kind::ends_with_ready) && *done;
            assert!(over || *done == self.model.fates[id], "{id} {done}");
        }
        if self.doubted {
            // An answer may overtake a ReadyForQuery that nobody could foresee.
            self.want.retain(|(tag, _)| *tag != tag::READY_FOR_QUERY);
            self.got.retain(|(tag, _)| *tag != tag::READY_FOR_QUERY);
        }
        assert_eq!(self.got, self.want);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Send(Msg, Origin, bool),
    Burst(Vec<Msg>),
    Read(u8),
    Hear(u8),
    Interrupt(u8),
}

fn stmt() -> impl Strategy<Value = Stmt> {
    prop_oneof![
        3 => (0u8..3).prop_map(Stmt::Select),
        1 => Just(Stmt::Empty),
        2 => Just(Stmt::Begin),
        2 => Just(Stmt::Commit),
        1 => Just(Stmt::Error),
        1 => Just(Stmt::CopyOut),
        3 => (prop::option::of(0u8..4), any::<bool>())
            .prop_map(|(fails_after, fails_at_end)| Stmt::CopyIn { fails_after, fails_at_end }),
    ]
}

fn msg() -> impl Strategy<Value = Msg> {
    let fails = || prop::bool::weighted(0.15);
    prop_oneof![
        3 => prop::collection::vec(stmt(), 1..4).prop_map(Msg::Query),
        1 => Just(Msg::Query(vec![Stmt::CopyBoth])),
        1 => fails().prop_map(|fails| Msg::FunctionCall { fails }),
        3 => fails().prop_map(|fails| Msg::Parse { fails }),
        3 => fails().prop_map(|fails| Msg::Bind { fails }),
        1 => (fails(), any::<bool>()).prop_map(|(fails, parameters)| Msg::Describe { fails, parameters }),
        4 => (stmt(), fails()).prop_map(|(stmt, suspends)| Msg::Execute { stmt, suspends }),
        2 => Just(Msg::Close),
        6 => fails().prop_map(|fails| Msg::Sync { fails }),
        3 => Just(Msg::CopyData),
        4 => Just(Msg::CopyDone),
        1 => Just(Msg::CopyFail),
        1 => Just(Msg::Flush),
    ]
}

fn origin() -> impl Strategy<Value = Origin> {
    prop_oneof![
        4 => Just(Origin::Client),
        1 => Just(Origin::Hidden),
        1 => Just(Origin::Absorbed),
    ]
}

/// What drivers send around a COPY, up to some point.
fn copy() -> impl Strategy<Value = Vec<Msg>> {
    let parts = (
        prop::option::of(0u8..4),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        1usize..8,
    );
    parts.prop_map(|(fails_after, fails_at_end, simple, sync, len)| {
        let stmt = Stmt::CopyIn {
            fails_after,
            fails_at_end,
        };
        let mut all = vec![if simple {
            Msg::Query(vec![stmt])
        } else {
            Msg::Execute {
                stmt,
                suspends: false,
            }
        }];
        let sync_msg = Msg::Sync { fails: false };
        all.extend(sync.then(|| sync_msg.clone()));
        all.extend([Msg::CopyData, Msg::CopyDone]);
        all.extend([sync_msg, Msg::Close, Msg::Sync { fails: false }]);
        all.truncate(len);
        all
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (msg(), origin(), any::<bool>()).prop_map(|(m, o, n)| Step::Send(m, o, n)),
        1 => copy().prop_map(Step::Burst),
        3 => (1u8..6).prop_map(Step::Read),
        3 => (1u8..8).prop_map(Step::Hear),
        1 => any::<u8>().prop_map(Step::Interrupt),
    ]
}

fn play(steps: Vec<Step>, eats_intruders: bool) {
    let mut bench = Bench::new(eats_intruders);
    for step in steps {
        match step {
            Step::Send(msg, origin, noted) => bench.send(msg, origin, noted),
            Step::Burst(all) => all
                .into_iter()
                .for_each(|msg| bench.send(msg, Origin::Client, true)),
            Step::Read(n) => (0..n).for_each(|_| {
                bench.model.step();
            }),
            Step::Hear(n) => (0..n).for_each(|_| {
                bench.hear();
            }),
            Step::Interrupt(what) => bench.interrupt(what),
        }
    }
    bench.finish();
}

/// `PROPTEST_CASES` if given.
fn cases() -> u32 {
    let given = std::env::var("PROPTEST_CASES").ok();
    given.and_then(|n| n.parse().ok()).unwrap_or(2000)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_ledger_agrees_with_postgresql(steps in prop::collection::vec(step(), 0..40), eats in any::<bool>()) {
        play(steps, eats);
    }
}

// One for each mistake that was found.

const SYNC: Msg = Msg::Sync { fails: false };

fn copy_in() -> Msg {
    Msg::Execute {
        stmt: Stmt::CopyIn {
            fails_after: None,
            fails_at_end: false,
        },
        suspends: false,
    }
}

fn owed(requests: &[Kind]) -> Owed<u8> {
    let mut owed = Owed::default();
    for kind in requests {
        owed.sent(*kind, Origin::Client, None, &mut Vec::new());
    }
    owed
}

#[track_caller]
fn hear(owed: &mut Owed<u8>, replies: &[u8]) {
    for reply in replies {
        owed.reply(*reply, b'I', &mut Vec::new()).unwrap();
    }
}

/// The Sync behind Execute is ignored by the COPY, so the server is inside the batch until the next one.
#[test]
fn a_sync_that_a_copy_ignores_leaves_the_batch_open() {
    let mut bench = Bench::new(false);
    for msg in [copy_in(), SYNC] {
        bench.send(msg, Origin::Client, false);
    }
    bench.drain();
    bench.send(Msg::CopyDone, Origin::Client, false);
    bench.drain();
    assert!(!bench.owed.is_settled());
    bench.send(SYNC, Origin::Client, false);
    bench.drain();
    assert!(bench.owed.is_free());
}

/// It never reaches the server, so the COPY goes on and its Sync is ignored.
#[test]
fn an_absorbed_request_does_not_end_a_copy() {
    let mut owed = owed(&[Kind::Query]);
    let mut events = Vec::new();
    hear(&mut owed, b"G");
    owed.sent(Kind::Close, Origin::Absorbed, Some(1), &mut events);
    assert!(owed.is_copying_in() && events.is_empty());
    owed.sent(Kind::CopyEnd, Origin::Client, None, &mut events);
    hear(&mut owed, b"C");
    owed.reply(b'Z', b'I', &mut events).unwrap();
    assert_eq!(events, [Event::Answer(Kind::Close, Some(1))]);
}

/// A trigger may fail the COPY before it reads the Sync, which is then answered: two ReadyForQuery. Or only one: the next query
/// tells.
#[test]
fn a_failed_copy_with_a_sync_in_doubt_is_not_free_before_the_next_query() {
    for answered in [true, false] {
        let mut owed = owed(&[Kind::Execute, Kind::Sync]);
        hear(&mut owed, b"GE");
        owed.sent(Kind::CopyEnd, Origin::Client, None, &mut Vec::new());
        owed.sent(Kind::Sync, Origin::Client, None, &mut Vec::new());
        hear(&mut owed, b"Z");
        assert!(!owed.is_settled());
        if answered {
            hear(&mut owed, b"Z");
            assert!(owed.is_free());
        }
        owed.sent(Kind::Query, Origin::Client, None, &mut Vec::new());
        hear(&mut owed, b"C");
        assert!(!owed.is_free());
        hear(&mut owed, b"Z");
        assert!(owed.is_free());
    }
}

#[test]
fn what_was_sent_blindly_behind_a_sync_in_doubt_loses_the_connection() {
    let mut owed = owed(&[
        Kind::Execute,
        Kind::Sync,
        Kind::CopyEnd,
        Kind::Query,
        Kind::Sync,
    ]);
    hear(&mut owed, b"GE");
    assert!(owed.is_lost() && !owed.is_settled());
    hear(&mut owed, b"EN");
    assert!(owed.reply(b'Z', b'I', &mut Vec::new()).is_err());
}

/// As a reload of PostgreSQL's configuration may do at any time.
#[test]
fn a_parameter_that_changes_during_a_hidden_parse_is_told() {
    let mut owed = owed(&[]);
    owed.sent(Kind::Parse, Origin::Hidden, Some(1), &mut Vec::new());
    assert_eq!(owed.reply(b'S', 0, &mut Vec::new()), Ok(Fate::Deliver));
    assert_eq!(owed.reply(b'N', 0, &mut Vec::new()), Ok(Fate::Swallow));
}

#[test]
fn rows_answer_nothing_but_a_statement() {
    for kind in [Kind::Sync, Kind::Parse, Kind::FunctionCall] {
        let mut owed = owed(&[kind]);
        assert!(owed.reply(b'D', 0, &mut Vec::new()).is_err());
    }
}
