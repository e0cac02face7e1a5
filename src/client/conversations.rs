//! Random conversations of several clients over few servers, in memory: everybody must read what a server of one's own would have
//! said, whoever had the server before, and however the bytes are cut.

mod postgres;

use std::rc::Rc;
use std::sync::Arc;

use hashbrown::HashSet;
use proptest::prelude::*;

use self::postgres::Postgres;
use super::deliver::{self, Deliver};
use super::forward::{Forward, Rules, Stop};
use super::statements::{Counts, Statements};
use crate::server::link::ServerLink;
use crate::server::params::{Interner, ParamSet, Tracked};
use crate::server::prepared::{DUMMY_NAME, StatementCache};
use crate::server::sql::{SqlList, SqlSet};
use crate::wire::build;
use crate::wire::frame::{self, HEADER_LEN};
use crate::wire::splice::Splice;
use crate::wire::tag::from_client as tag;

/// What a client does: it says something, or waits until it has read all that a server of its own would have flushed.
#[derive(Clone)]
enum Item {
    Say(Vec<u8>),
    Wait,
}

impl std::fmt::Debug for Item {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Item::Say(bytes) => write!(f, "{:?}", show(bytes)[0]),
            Item::Wait => write!(f, "Wait"),
        }
    }
}

fn query(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    build::query(&mut out, text.as_bytes());
    out
}

fn parse(name: &str, text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let source = [text.as_bytes(), b"\0\0\0"].concat();
    build::parse_raw(&mut out, name.as_bytes(), &source);
    out
}

fn bind(portal: &str, name: &str, len: usize) -> Vec<u8> {
    let mut out = Vec::new();
    build::message(&mut out, tag::BIND, |out| {
        build::cstr(out, portal.as_bytes());
        build::cstr(out, name.as_bytes());
        out.extend(std::iter::repeat_n(7, len));
    });
    out
}

fn target(tag: u8, kind: u8, name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    build::message(&mut out, tag, |out| {
        out.push(kind);
        build::cstr(out, name.as_bytes());
    });
    out
}

fn execute(portal: &str) -> Vec<u8> {
    let mut out = Vec::new();
    build::message(&mut out, tag::EXECUTE, |out| {
        build::cstr(out, portal.as_bytes());
        out.extend_from_slice(&[0; 4]);
    });
    out
}

fn bare(tag: u8) -> Vec<u8> {
    let mut out = Vec::new();
    build::bare(&mut out, tag);
    out
}

struct Client {
    script: std::vec::IntoIter<(Item, usize)>,
    next: Option<(Item, usize)>,
    sent: Vec<u8>,
    held: Vec<u8>,
    need: usize,
    busy: bool,
    server: Option<usize>,
    statements: Statements,
    params: Rc<ParamSet>,
    got: Vec<u8>,
    want: Vec<u8>,
    own: Postgres,
}

impl Client {
    /// Runs the script against a server of the client's own first.
    fn new(script: Vec<Item>) -> Client {
        let mut own = Postgres::default();
        let mut timed = Vec::new();
        for item in script {
            if let Item::Say(bytes) = &item {
                own.send(bytes);
                while own.step() {}
            }
            timed.push((item, count(&own.output)));
        }
        let mut script = timed.into_iter();
        Client {
            next: script.next(),
            script,
            sent: Vec::new(),
            held: Vec::new(),
            need: 0,
            busy: false,
            server: None,
            statements: Statements::default(),
            params: Rc::default(),
            got: Vec::new(),
            want: own.output.clone(),
            own,
        }
    }
}

struct Server {
    link: ServerLink,
    postgres: Postgres,
    held: Vec<u8>,
    client: Option<usize>,
}

struct Pooler {
    clients: Vec<Client>,
    servers: Vec<Server>,
    cache: StatementCache,
    rules: Rules,
    tracked: Tracked,
    interner: Interner,
    counts: Counts,
}

impl Pooler {
    fn new(scripts: Vec<Vec<Item>>, servers: usize, max_prepared: usize) -> Pooler {
        let server = |_| Server {
            link: ServerLink::new(Rc::default(), 0),
            postgres: Postgres::default(),
            held: Vec::new(),
            client: None,
        };
        Pooler {
            clients: scripts.into_iter().map(Client::new).collect(),
            servers: (0..servers).map(server).collect(),
            cache: StatementCache::default(),
            rules: Rules {
                rewrite: true,
                max_prepared,
                max_packet_size: i32::MAX as u32,
                refuse_simple: false,
            },
            tracked: Tracked::new(&[]),
            interner: Interner::default(),
            counts: Counts::default(),
        }
    }

    /// One of the things that could happen next. False if this one can't.
    fn act(&mut self, choice: u32) -> bool {
        let (who, what) = (choice as usize >> 8, choice as usize & 0xff);
        let amount = what / 4 + 1;
        match what % 4 {
            0 => self.client_acts(who % self.clients.len()),
            1 => self.read_client(who % self.clients.len(), amount * 3),
            2 => {
                let at = who % self.servers.len();
                self.servers[at].postgres.step()
            }
            _ => self.read_server(who % self.servers.len(), amount * 3),
        }
    }

    fn client_acts(&mut self, at: usize) -> bool {
        let client = &mut self.clients[at];
        match &client.next {
            None => return false,
            Some((Item::Wait, until)) if count(&client.got) < *until => return false,
            Some((Item::Wait, _)) => {}
            Some((Item::Say(bytes), _)) => client.sent.extend_from_slice(bytes),
        }
        client.next = client.script.next();
        true
    }

    /// As a session does with what its client says.
    fn read_client(&mut self, at: usize, amount: usize) -> bool {
        let client = &mut self.clients[at];
        let n = amount.min(client.sent.len());
        let read: Vec<u8> = client.sent.drain(..n).collect();
        client.held.extend_from_slice(&read);
        if client.server.is_none() {
            return self.begin(at) || n > 0;
        }
        if n > 0 && client.held.len() >= client.need {
            self.forward(at);
        }
        n > 0
    }

    fn begin(&mut self, at: usize) -> bool {
        let client = &mut self.clients[at];
        let late = late_copy_len(&client.held);
        client.held.drain(..late);
        if client.held.len() < HEADER_LEN || client.held.len() < client.need {
            return late > 0;
        }
        let Some(free) = self.servers.iter().position(|s| s.client.is_none()) else {
            return late > 0;
        };
        self.servers[free].client = Some(at);
        client.server = Some(free);
        self.suit(at);
        self.forward(at);
        true
    }

    /// As a session does before it links its client with a server.
    fn suit(&mut self, at: usize) {
        let client = &mut self.clients[at];
        let server = &mut self.servers[client.server.expect("a server")];
        let wants = &client.statements.sql;
        if server.link.sql.agrees(wants) {
            return;
        }
        assert!(server.link.sql.is_known());
        let plan = server.link.sql.plan(wants);
        for name in plan.drop {
            server.postgres.by_sql.remove(&name[..]);
        }
        for (name, text) in plan.prepare {
            let before = server.postgres.by_sql.insert(name.to_vec(), text.to_vec());
            assert_eq!(before, None);
        }
        server.link.sql.carried_out(wants, Vec::new());
        assert!(server.link.sql.agrees(wants));
    }

    /// As a session does when its client has prepared something.
    fn list(&mut self, at: usize, client: usize) {
        let server = &mut self.servers[at];
        let mut list = SqlList::new(ParamSet::default());
        let mut ids = HashSet::new();
        for name in server.postgres.named.keys() {
            ids.extend(list.row(&row(name, None), false));
        }
        for (name, text) in &server.postgres.by_sql {
            list.row(&row(name, Some(text)), false);
        }
        server.link.prepared.keep_only(&ids);
        let sql = &mut self.clients[client].statements.sql;
        *sql = server.link.sql.learn(list, sql).expect("few");
    }

    fn forward(&mut self, at: usize) {
        let client = &mut self.clients[at];
        let server = &mut self.servers[client.server.expect("a server")];
        let input = std::mem::take(&mut client.held);
        let mut out = Vec::new();
        let mut splice = Splice::new(&input, &mut out);
        let stop = Forward {
            rules: self.rules,
            statements: &mut client.statements,
            link: &mut server.link,
            cache: &self.cache,
            counts: &mut self.counts,
        }
        .run(&mut splice);
        let (bytes, consumed) = splice.finish();
        server.postgres.send(bytes);
        let mut answers = Vec::new();
        if server.link.from_server.at_boundary() {
            deliver::settle(&mut server.link, &mut client.statements, &mut answers);
        }
        client.got.extend_from_slice(&answers);
        client.need = 0;
        client.busy = false;
        match stop.expect("nothing to complain of") {
            Stop::Input => {}
            Stop::NeedBytes(need) => client.need = need,
            Stop::Busy => client.busy = true,
            Stop::Terminate => panic!("nobody says good-bye"),
        }
        client.held.extend_from_slice(&input[consumed..]);
    }

    fn read_server(&mut self, at: usize, amount: usize) -> bool {
        let server = &mut self.servers[at];
        let n = amount.min(server.postgres.output.len());
        if n == 0 {
            return false;
        }
        let client_at = server.client.expect("nobody's reply");
        let client = &mut self.clients[client_at];
        server.held.extend(server.postgres.output.drain(..n));
        let input = std::mem::take(&mut server.held);
        let mut out = Vec::new();
        let mut splice = Splice::new(&input, &mut out);
        let findings = Deliver {
            link: &mut server.link,
            statements: &mut client.statements,
            params: &mut client.params,
            tracked: &self.tracked,
            interner: &mut self.interner,
            max_packet_size: i32::MAX as u32,
        }
        .run(&mut splice)
        .expect("no nonsense");
        let (bytes, consumed) = splice.finish();
        client.got.extend_from_slice(bytes);
        server.held.extend_from_slice(&input[consumed..]);
        if findings.ready.is_some() && server.link.is_free() && server.held.is_empty() {
            self.release(at);
        } else if client.busy {
            self.forward(client_at);
        }
        true
    }

    fn release(&mut self, at: usize) {
        let server = &mut self.servers[at];
        let client = server.client.take().expect("a client");
        self.clients[client].server = None;
        while server.postgres.step() {} // late CopyDone at most
        assert!(server.postgres.is_at_rest());
        assert!(server.link.prepared.len() <= self.rules.max_prepared);
        let known = server.link.prepared.iter();
        let mut known: Vec<_> = known
            .map(|s| (s.name.to_vec(), s.source.to_vec()))
            .collect();
        known.sort();
        // What was to be dropped in place of another is left if that was refused.
        let has = server.postgres.named.clone().into_iter();
        let has: Vec<_> = has
            .filter(|(name, _)| name != DUMMY_NAME.as_bytes())
            .collect();
        assert_eq!(known, has);
        if !server.link.sql.is_known() {
            self.list(at, client);
        }
        let server = &self.servers[at];
        let known = names_of(server.link.sql.of_client());
        let has: Vec<_> = server.postgres.by_sql.keys().cloned().collect();
        assert_eq!(known, has);
    }

    /// True if nothing more can happen.
    fn is_stuck(&mut self) -> bool {
        let (clients, servers) = (self.clients.len(), self.servers.len());
        let all = clients.max(servers);
        let mut moved = false;
        for who in 0..all {
            moved |= who < clients && (self.client_acts(who) | self.read_client(who, usize::MAX));
            moved |= who < servers && self.servers[who].postgres.step();
            moved |= who < servers && self.read_server(who, usize::MAX);
        }
        !moved
    }

    /// Serves what the clients have said so far.
    fn settle(&mut self) {
        while self.read_client(0, usize::MAX)
            | self.servers[0].postgres.step()
            | self.read_server(0, usize::MAX)
        {}
    }

    fn finish(mut self) {
        while !self.is_stuck() {}
        for client in &mut self.clients {
            assert_eq!(one_refusal(&client.got), one_refusal(&client.want));
            assert!(client.sent.is_empty() && client.next.is_none());
            let known = client.statements.names.iter();
            let mut known: Vec<_> = known
                .map(|(name, statement)| (name.to_vec(), statement.source.to_vec()))
                .collect();
            known.sort();
            let has: Vec<_> = client.own.named.clone().into_iter().collect();
            assert_eq!(known, has);
            let has: Vec<_> = client.own.by_sql.keys().cloned().collect();
            assert_eq!(names_of(client.statements.sql.as_ref()), has);
        }
    }
}

fn names_of(set: Option<&Arc<SqlSet>>) -> Vec<Vec<u8>> {
    let names = set.into_iter().flat_map(|set| set.names());
    names.map(<[u8]>::to_vec).collect()
}

/// The body of a DataRow.
fn row(name: &[u8], text: Option<&[u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    build::data_row(&mut out, [Some(name), text].into_iter());
    out.split_off(HEADER_LEN)
}

/// How many whole messages there are.
fn count(mut bytes: &[u8]) -> usize {
    let mut count = 0;
    while let Ok(Some(header)) = frame::header(bytes, u32::MAX)
        && let Some(behind) = bytes.get(header.total as usize..)
    {
        (count, bytes) = (count + 1, behind);
    }
    count
}

/// Messages as a reader would like them.
fn show(bytes: &[u8]) -> Vec<String> {
    let (mut rest, mut all) = (bytes, Vec::new());
    while let Ok(Some(header)) = frame::header(rest, u32::MAX) {
        let (message, behind) = rest.split_at(rest.len().min(header.total as usize));
        let body = String::from_utf8_lossy(&message[HEADER_LEN..]).into_owned();
        all.push(format!(
            "{} {}",
            header.tag as char,
            body.replace('\0', " ")
        ));
        rest = behind;
    }
    all.push(format!("{rest:?}"));
    all
}

/// In a failed transaction, a Parse of a name that is taken may be refused for the failure instead of its own mistake, if the
/// server does not have the statement that has the name: that is parsed first.
fn one_refusal(bytes: &[u8]) -> Vec<String> {
    let mut all = show(bytes);
    for line in &mut all {
        assert!(!line.contains("PGWEIR_"), "{line}");
        if ["C42601", "C42P05", "C25P02"]
            .iter()
            .any(|code| line.contains(code))
        {
            *line = "refused".to_owned();
        }
    }
    all
}

fn late_copy_len(input: &[u8]) -> usize {
    let mut at = 0;
    while let Ok(Some(header)) = frame::header(&input[at..], u32::MAX)
        && b"dcfH".contains(&header.tag)
        && header.total <= (input.len() - at) as u64
    {
        at += header.total as usize;
    }
    at
}

fn name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "c", "a_long_name_of_a_statement"])
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => (0..4).prop_map(|n| format!("select {n}")),
        1 => (0..3000usize).prop_map(|n| format!("select {}", "x".repeat(n))),
        3 => prop::sample::select(vec!["begin", "commit", "rollback", ""]).prop_map(str::to_owned),
        2 => prop::sample::select(vec!["bad", "fail"]).prop_map(str::to_owned),
        2 => prop::sample::select(vec!["discard all", "deallocate all"]).prop_map(str::to_owned),
    ]
}

/// A text that prepares, executes or drops by SQL. The names prepared by it are not those prepared by the protocol: PREPARE of one
/// of those is not refused by the pooler.
fn by_sql() -> impl Strategy<Value = String> {
    let of_sql = || prop::sample::select(vec!["x", "y"]);
    let droppable = prop::sample::select(vec!["a", "b", "c", "x", "y", "none"]);
    prop_oneof![
        3 => (of_sql(), 0..3).prop_map(|(name, n)| format!("prepare {name} as select {n}")),
        3 => of_sql().prop_map(|name| format!("execute {name}")),
        3 => droppable.prop_map(|name| format!("deallocate {name}")),
    ]
}

/// Some messages of the extended protocol that belong together.
fn group() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let portal = || prop::sample::select(vec!["", "p"]);
    prop_oneof![
        4 => (name(), text()).prop_map(|(n, t)| vec![parse(n, &t)]),
        4 => (portal(), name(), 0..600usize)
            .prop_map(|(p, n, len)| vec![bind(p, n, len), execute(p)]),
        2 => (text(), portal()).prop_map(|(t, p)| vec![parse("", &t), bind(p, "", 6), execute(p)]),
        2 => (by_sql(), portal())
            .prop_map(|(t, p)| vec![parse("", &t), bind(p, "", 6), execute(p)]),
        1 => prop::sample::select(vec!["x", "y"])
            .prop_map(|n| vec![bind("", n, 6), execute("")]),
        1 => prop::sample::select(vec!["x", "y"]).prop_map(|n| vec![target(tag::CLOSE, b'S', n)]),
        2 => name().prop_map(|n| vec![target(tag::DESCRIBE, b'S', n)]),
        2 => name().prop_map(|n| vec![target(tag::CLOSE, b'S', n)]),
        1 => portal().prop_map(|p| vec![target(tag::DESCRIBE, b'P', p)]),
        1 => portal().prop_map(|p| vec![target(tag::CLOSE, b'P', p), execute(p)]),
        1 => (name(), text())
            .prop_map(|(n, t)| vec![target(tag::CLOSE, b'S', n), parse(n, &t), bind("", n, 6)]),
        1 => Just(vec![bare(tag::FLUSH)]),
        1 => Just(vec![target(tag::CLOSE, b'S', "PGWEIR_1")]),
    ]
}

/// A batch with its end, and whether the client waits behind it.
fn batch() -> impl Strategy<Value = Vec<Item>> {
    let groups = prop::collection::vec(group(), 0..4).prop_map(|groups| groups.concat());
    let end = prop_oneof![
        6 => Just(vec![bare(tag::SYNC)]),
        3 => text().prop_map(|text| vec![query(&text)]),
        2 => by_sql().prop_map(|text| vec![query(&text)]),
        1 => any::<bool>().prop_map(|fails| {
            let end = if fails { tag::COPY_FAIL } else { tag::COPY_DONE };
            vec![bare(tag::SYNC), query("copy"), bare(tag::COPY_DATA), bare(end), bare(tag::COPY_DONE)]
        }),
        1 => Just(vec![
            bare(tag::SYNC),
            parse("", "copy"),
            bind("", "", 6),
            execute(""),
            bare(tag::SYNC),
            bare(tag::COPY_DATA),
            bare(tag::COPY_DONE),
            bare(tag::SYNC),
        ]),
    ];
    (groups, end, any::<bool>()).prop_map(|(groups, end, waits)| {
        let all = groups.into_iter().chain(end);
        let mut items: Vec<_> = all.map(Item::Say).collect();
        if waits {
            items.push(Item::Wait);
        }
        items
    })
}

fn script() -> impl Strategy<Value = Vec<Item>> {
    let batches = prop::collection::vec(batch(), 0..12).prop_map(|batches| batches.concat());
    batches.prop_map(|mut items| {
        // An open transaction would keep its server for ever.
        items.extend([bare(tag::SYNC), query("rollback")].map(Item::Say));
        items
    })
}

/// `PROPTEST_CASES` if given.
fn cases() -> u32 {
    let given = std::env::var("PROPTEST_CASES").ok();
    given.and_then(|n| n.parse().ok()).unwrap_or(500)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn everybody_reads_what_a_server_of_ones_own_would_say(
        scripts in prop::collection::vec(script(), 1..4),
        servers in 1usize..3,
        max_prepared in 1usize..4,
        choices in prop::collection::vec(any::<u32>(), 1..400),
    ) {
        let mut pooler = Pooler::new(scripts, servers, max_prepared);
        for choice in choices {
            pooler.act(choice & 0xffff);
        }
        pooler.finish();
    }
}

// One for each mistake that was found.

fn one_client(max_prepared: usize, said: &[Vec<u8>]) -> Pooler {
    let script = said.iter().cloned().map(Item::Say).collect();
    Pooler::new(vec![script], 1, max_prepared)
}

/// Everything is sent before anything is answered.
fn check(max_prepared: usize, said: &[Vec<u8>]) {
    one_client(max_prepared, said).finish();
}

fn sync() -> Vec<u8> {
    bare(tag::SYNC)
}

fn describe(name: &str) -> Vec<u8> {
    target(tag::DESCRIBE, b'S', name)
}

fn close(name: &str) -> Vec<u8> {
    target(tag::CLOSE, b'S', name)
}

#[test]
fn an_absorbed_request_behind_others_is_answered() {
    let known = [parse("a", "select 1"), sync()];
    let same = [describe("a"), parse("b", "select 1"), close("a"), sync()];
    check(9, &[&known[..], &same].concat());
}

/// PostgreSQL refuses the Parse, so the pooler must not answer it.
#[test]
fn a_known_statement_is_parsed_while_a_failure_is_on_its_way() {
    let begin = [parse("a", "select 1"), sync(), query("begin")];
    let fail = [query("fail"), parse("b", "select 1"), sync()];
    check(9, &[&begin[..], &fail, &[query("rollback")]].concat());
}

#[test]
fn what_a_failed_batch_did_not_prepare_is_prepared_for_the_next() {
    let known = [
        parse("a", "select 1"),
        sync(),
        parse("b", "select 2"),
        sync(),
    ];
    let failed = [describe("none"), bind("", "a", 6), sync()];
    let next = [bind("", "a", 6), execute(""), sync()];
    check(1, &[&known[..], &failed, &next].concat());
}

#[test]
fn a_name_whose_parse_was_skipped_is_free() {
    let skipped = [parse("a", "bad"), parse("b", "select 1"), sync()];
    let again = [parse("b", "select 2"), parse("a", "select 1"), sync()];
    check(9, &[&skipped[..], &again].concat());
}

#[test]
fn what_is_skipped_changes_nothing() {
    let known = [parse("a", "select 1"), sync(), describe("none")];
    let skipped = [query("discard all"), parse("b", "select 1"), sync()];
    check(1, &[&known[..], &skipped].concat());
}

#[test]
fn the_newest_statement_is_not_evicted() {
    let first = [parse("a", "select 1"), sync()];
    let second = [parse("b", "select 2"), bind("", "b", 6), sync()];
    check(1, &[&first[..], &second].concat());
}

#[test]
fn a_name_that_was_dropped_in_the_same_batch_is_free() {
    let known = [parse("a", "select 1"), sync()];
    for drop in ["deallocate all", "discard all"] {
        let dropping = [parse("", drop), bind("", "", 6), execute("")];
        let again = [parse("a", "select 2"), bind("", "a", 6), sync()];
        check(9, &[&known[..], &dropping, &again].concat());
        check(9, &[&known[..], &[query(drop)], &again].concat());
    }
}

#[test]
fn nobody_closes_a_statement_by_the_poolers_name() {
    let known = [parse("a", "select 1"), sync(), close("PGWEIR_1"), sync()];
    check(9, &[&known[..], &[bind("", "a", 6), sync()]].concat());
}

/// A function may have dropped it: the client reads its own name, and next time it is there.
#[test]
fn a_statement_that_the_server_has_lost_is_prepared_again() {
    let said = [
        query("begin"),
        parse("mine", "select 1"),
        sync(),
        bind("", "mine", 6),
        sync(),
        query("rollback"),
        bind("", "mine", 6),
        sync(),
    ];
    let mut pooler = one_client(9, &said);
    for _ in 0..3 {
        pooler.client_acts(0);
    }
    pooler.settle();
    pooler.servers[0].postgres.named.clear();
    pooler.settle();
    while !pooler.is_stuck() {}
    let got = show(&pooler.clients[0].got);
    assert!(got[4].contains("\"mine\" does not exist"), "{got:?}");
    assert_eq!(got[got.len() - 3..], ["2 ", "Z I", "[]"]);
}

#[test]
fn a_server_whose_names_have_changed_meaning_is_not_used_again() {
    let said = [
        query("begin"),
        parse("a", "select 1"),
        sync(),
        parse("a", "select 2"),
        sync(),
        describe("a"),
        sync(),
    ];
    let mut pooler = one_client(9, &said);
    for _ in 0..3 {
        pooler.client_acts(0);
    }
    pooler.settle();
    pooler.servers[0].postgres.named.clear();
    while !pooler.is_stuck() {}
    assert!(pooler.servers[0].link.tainted);
    let got = show(&pooler.clients[0].got);
    assert_eq!(got[4..6], ["1 ", "Z T"]);
    assert!(got[6].contains("select 2"), "{got:?}");
}

/// The server went home meanwhile, and nothing follows.
#[test]
fn a_message_that_was_cut_is_served_when_it_is_whole() {
    let long = format!("select {}", "x".repeat(100));
    let said = [parse("a", "select 0"), sync(), query(&long)];
    let mut pooler = one_client(1, &said);
    while pooler.client_acts(0) {}
    pooler.read_client(0, pooler.clients[0].sent.len() - 50);
    while pooler.servers[0].postgres.step() {}
    pooler.read_server(0, usize::MAX);
    pooler.finish();
}

#[test]
fn a_cut_query_may_be_anything() {
    use super::statements::text_may_drop;
    let body = b"select 1;discard all\0";
    let total = (HEADER_LEN + body.len()) as u64;
    assert!(text_may_drop(body, total));
    assert!(text_may_drop(&body[..12], total));
    assert!(!text_may_drop(b"select 1\0", HEADER_LEN as u64 + 9));
}
