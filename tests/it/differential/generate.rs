//! Makes random conversations. They are arbitrary but determined: nothing in a reply may depend on time, process numbers, other clients
//! or, in the modes that share servers, on what a server was used for before.
//!
//! What a mode allows is decided here: outside session mode, whatever needs a server's own memory (unnamed statements, portals, cursors)
//! stays within one transaction block or one batch.

use super::conversation::{Chunks, Conversation, Ending, Message, Mode, Part, Step, Unit, Until};
use super::rng::Rng;
use super::sql::{self, Statement, Value};

/// Makes the conversation of a seed, for the table of a slot. `like_pgbouncer` leaves out what PgBouncer does differently: named
/// statements in company with errors.
pub fn conversation(seed: u64, mode: Mode, slot: usize, like_pgbouncer: bool) -> Conversation {
    let mut rng = Rng::new(seed);
    let startup = if rng.chance(20) {
        startup(&mut rng)
    } else {
        vec![]
    };
    let resettable = startup.is_empty();
    let mut maker = Maker {
        rng,
        mode,
        slot,
        like_pgbouncer,
        resettable,
        next_name: 0,
        names: vec![],
    };
    let mut units = vec![maker.clean_table()];
    let count = maker.rng.between(1, 9);
    units.extend((0..count).map(|_| maker.unit()));
    let ending = match maker.rng.below(20) {
        0..=1 => Ending::Drop,
        // PgBouncer lets the first half of a FunctionCall reach the next client's server.
        2 if !like_pgbouncer => Ending::Vanish,
        _ => Ending::Terminate,
    };
    if ending != Ending::Terminate && mode != Mode::Statement && maker.rng.chance(50) {
        units.push(maker.unfinished_transaction());
    }
    let chunks = *maker
        .rng
        .pick(&[Chunks::Whole, Chunks::Whole, Chunks::Some, Chunks::Tiny]);
    Conversation {
        seed,
        mode,
        startup,
        units,
        ending,
        chunks,
    }
}

fn startup(rng: &mut Rng) -> Vec<(&'static str, String)> {
    let choices: &[(&str, &[&str])] = &[
        (
            "application_name",
            &["from startup", "it's quoted", "back\\slash"],
        ),
        ("client_encoding", &["UTF8", "latin1", "SQL_ASCII"]),
        ("DateStyle", &["German", "ISO, DMY"]),
        ("TimeZone", &["Asia/Kolkata", "America/New_York"]),
        ("IntervalStyle", &["iso_8601"]),
        ("standard_conforming_strings", &["off"]),
    ];
    let mut out = Vec::new();
    for (name, values) in choices {
        if rng.chance(30) {
            out.push((*name, rng.pick(values).to_string()));
        }
    }
    out
}

/// Where a piece of a conversation will stand.
#[derive(Clone, Copy)]
struct Place {
    /// In a transaction block that one server holds.
    in_block: bool,
    /// Does the unnamed statement, whatever it is, belong to this client?
    owns_unnamed: bool,
}

const OUTSIDE: Place = Place {
    in_block: false,
    owns_unnamed: false,
};
const IN_BLOCK: Place = Place {
    in_block: true,
    owns_unnamed: true,
};

struct Maker {
    rng: Rng,
    mode: Mode,
    slot: usize,
    like_pgbouncer: bool,
    /// May RESET and DISCARD ALL be used? Not with start-up parameters: a server shared by many clients was not started with them.
    resettable: bool,
    next_name: usize,
    /// Statement names that were parsed, successfully as far as we know.
    names: Vec<(String, Statement)>,
}

impl Maker {
    fn outside(&self) -> Place {
        Place {
            owns_unnamed: self.mode == Mode::Session,
            ..OUTSIDE
        }
    }

    fn clean_table(&self) -> Unit {
        let fill = format!(
            "DELETE FROM t{0}; INSERT INTO t{0} VALUES (1, 'one', 1.5), (2, NULL, NULL);",
            self.slot
        );
        let sql = format!("DO $$ BEGIN {fill} END $$");
        Unit {
            what: "clean table",
            parts: vec![vec![Step::query(&sql)]],
            framed: false,
        }
    }

    fn unit(&mut self) -> Unit {
        let plain = |what, parts| Unit {
            what,
            parts,
            framed: false,
        };
        let place = self.outside();
        match self.rng.below(100) {
            0..=14 => plain("simple query", vec![vec![self.simple_step(place)]]),
            15..=34 => plain("batch", vec![vec![self.batch_step(place)]]),
            35..=46 => plain("pipeline", vec![self.pipeline(place)]),
            47..=54 => plain("flush", vec![self.flush_part(place)]),
            55..=62 => plain("copy in", vec![self.copy_in(place)]),
            63..=64 => plain("function call", vec![vec![self.function_call()]]),
            65..=69 => plain("parameters", self.parameters()),
            70 => Unit {
                what: "read only",
                parts: self.read_only(),
                framed: true,
            },
            71..=73 => plain("forget", vec![vec![self.forget()]]),
            74..=77 if !self.like_pgbouncer => {
                plain("prepared by SQL", self.prepared_by_sql(place))
            }
            74..=79 if self.mode == Mode::Session => plain("session state", self.session_state()),
            _ if self.mode == Mode::Statement => plain(
                "block in one query",
                vec![vec![Step::query(&self.block_in_one_query())]],
            ),
            80..=84 => plain(
                "pipelined transaction",
                vec![vec![self.pipelined_transaction()]],
            ),
            _ => self.transaction(),
        }
    }

    // ---- simple protocol ----

    fn simple_step(&mut self, place: Place) -> Step {
        Step::ready(vec![self.simple(place)], 1)
    }

    fn simple(&mut self, place: Place) -> Message {
        match self.rng.below(20) {
            0 => Message::query_bytes(b"SELECT 'caf\xc3\xa9', length('caf\xc3\xa9')"),
            1 => Message::query_bytes(b"SELECT 'not utf8 \xe9\xff'"),
            2 => Message::query(&format!(
                "SELECT length('{}')",
                "y".repeat(self.rng.between(8_000, 300_000))
            )),
            _ => Message::query(&sql::simple(
                &mut self.rng,
                self.slot,
                place.in_block,
                self.mode,
            )),
        }
    }

    fn block_in_one_query(&mut self) -> String {
        let inner = sql::harmless(&mut self.rng, self.slot);
        let end = *self.rng.pick(&["COMMIT", "ROLLBACK", "END"]);
        format!("BEGIN; {inner}; {end}; SELECT 'after'")
    }

    fn function_call(&mut self) -> Step {
        Step::ready(vec![self.function_call_message()], 1)
    }

    fn function_call_message(&mut self) -> Message {
        // int4pl, int4div, upper, and one that does not exist
        match self.rng.below(4) {
            0 => Message::function_call(177, &["20", "22"]),
            1 => Message::function_call(154, &["1", if self.rng.chance(50) { "0" } else { "1" }]),
            2 => Message::function_call(871, &["shout"]),
            _ => Message::function_call(99_999_999, &[]),
        }
    }

    // ---- extended protocol ----

    fn batch_step(&mut self, place: Place) -> Step {
        let mut messages = self.batch(place);
        if self.rng.chance(20) {
            let at = self.rng.below(messages.len() + 1);
            messages.insert(at, Message::flush());
        }
        messages.push(Message::sync());
        Step::ready(messages, 1)
    }

    /// Extended messages without Flush or Sync.
    fn batch(&mut self, place: Place) -> Vec<Message> {
        let mut place = place;
        let mut out = Vec::new();
        for _ in 0..self.rng.between(1, 4) {
            self.batch_piece(&mut place, &mut out);
        }
        out
    }

    fn batch_piece(&mut self, place: &mut Place, out: &mut Vec<Message>) {
        match self.rng.below(100) {
            0..=24 => self.unnamed_round(place, out),
            25..=64 if self.like_pgbouncer => self.unnamed_round(place, out),
            25..=44 => self.parse_named(out),
            45..=64 => self.use_named(out),
            65..=69 => self.close_something(out),
            70..=76 => self.rows_in_portions(place, out),
            77..=81 => self.mistake(place, out),
            82..=85 if place.owns_unnamed && !self.like_pgbouncer => self.use_unnamed(out),
            86..=88 if !self.like_pgbouncer => self.unknown_name(out),
            89..=92 => self.two_portals(place, out),
            _ => self.unnamed_round(place, out),
        }
    }

    fn statement(&mut self) -> Statement {
        sql::statement(&mut self.rng, self.slot)
    }

    fn parse_message(&mut self, name: &str, statement: &Statement) -> Message {
        let types: Vec<u32> = if self.rng.chance(40) {
            statement.values.iter().map(Value::oid).collect()
        } else {
            vec![]
        };
        Message::parse(name, &statement.sql, &types)
    }

    fn bind_message(&mut self, portal: &str, name: &str, statement: &Statement) -> Message {
        let binary = !statement.values.is_empty()
            && statement.values.iter().all(|v| matches!(v, Value::Int))
            && self.rng.chance(30);
        let mut values: Vec<Option<Vec<u8>>> = statement
            .values
            .iter()
            .map(|v| v.make(&mut self.rng, binary))
            .collect();
        if self.rng.chance(4) {
            values.push(Some(b"one too many".to_vec()));
        }
        let formats: &[i16] = if binary { &[1] } else { &[] };
        let formats_of_results: [&[i16]; 4] = [&[], &[], &[0], &[1]];
        let results = *self.rng.pick(&formats_of_results);
        Message::bind(portal, name, formats, &values, results)
    }

    fn unnamed_round(&mut self, place: &mut Place, out: &mut Vec<Message>) {
        let statement = self.statement();
        out.push(self.parse_message("", &statement));
        place.owns_unnamed = true;
        if self.rng.chance(30) {
            out.push(Message::describe(b'S', ""));
        }
        out.push(self.bind_message("", "", &statement));
        if self.rng.chance(50) {
            out.push(Message::describe(b'P', ""));
        }
        let rows = if self.rng.chance(15) { 1 } else { 0 };
        out.push(Message::execute("", rows));
    }

    fn use_unnamed(&mut self, out: &mut Vec<Message>) {
        // Whatever the unnamed statement is: it may be none, or want parameters that it does not get.
        out.push(Message::bind("", "", &[], &[], &[]));
        out.push(Message::execute("", 0));
    }

    fn new_name(&mut self) -> String {
        format!("s{}", self.rng.below(6))
    }

    fn parse_named(&mut self, out: &mut Vec<Message>) {
        let name = self.new_name();
        let statement = self.statement();
        if self.rng.chance(50) {
            out.push(Message::close(b'S', &name));
        }
        out.push(self.parse_message(&name, &statement));
        if self.rng.chance(40) {
            out.push(Message::describe(b'S', &name));
        }
        if self.rng.chance(70) {
            self.run_named(&name, &statement, out);
        }
        self.names.retain(|(n, _)| *n != name);
        self.names.push((name, statement));
    }

    fn run_named(&mut self, name: &str, statement: &Statement, out: &mut Vec<Message>) {
        let portal = if self.rng.chance(20) {
            format!("p{}", self.rng.below(3))
        } else {
            String::new()
        };
        if !portal.is_empty() {
            out.push(Message::close(b'P', &portal));
        }
        out.push(self.bind_message(&portal, name, statement));
        if self.rng.chance(40) {
            out.push(Message::describe(b'P', &portal));
        }
        let rows = if self.rng.chance(15) {
            self.rng.between(1, 3) as i32
        } else {
            0
        };
        out.push(Message::execute(&portal, rows));
    }

    fn use_named(&mut self, out: &mut Vec<Message>) {
        if self.names.is_empty() {
            return self.parse_named(out);
        }
        let (name, statement) = self.rng.pick(&self.names.clone()).clone();
        if self.rng.chance(30) {
            out.push(Message::describe(b'S', &name));
        }
        self.run_named(&name, &statement, out);
    }

    fn close_something(&mut self, out: &mut Vec<Message>) {
        match self.rng.below(4) {
            0 => out.push(Message::close(b'P', &format!("p{}", self.rng.below(3)))),
            _ if self.like_pgbouncer => out.push(Message::close(b'P', "")),
            1 => out.push(Message::close(b'S', "never seen")),
            2 => out.push(Message::close(b'P', "")),
            _ => {
                let name = format!("s{}", self.rng.below(6));
                self.names.retain(|(n, _)| *n != name);
                out.push(Message::close(b'S', &name));
            }
        }
    }

    fn unknown_name(&mut self, out: &mut Vec<Message>) {
        let name = *self.rng.pick(&["nobody", "s0", "s5", "S1"]);
        match self.rng.below(3) {
            0 => out.push(Message::describe(b'S', name)),
            1 => out.push(Message::bind("", name, &[], &[], &[])),
            _ => {
                out.push(Message::bind("", name, &[], &[Some(b"1".to_vec())], &[]));
                out.push(Message::execute("", 0));
            }
        }
    }

    fn rows_in_portions(&mut self, place: &mut Place, out: &mut Vec<Message>) {
        let rows = self.rng.between(3, 30);
        out.push(Message::parse(
            "",
            &format!("SELECT i, repeat('r', i) FROM generate_series(1, {rows}) i"),
            &[],
        ));
        place.owns_unnamed = true;
        let portal = *self.rng.pick(&["", "p0", "p1"]);
        out.push(Message::close(b'P', portal));
        out.push(Message::bind(portal, "", &[], &[], &[]));
        for _ in 0..self.rng.between(1, 4) {
            out.push(Message::execute(portal, self.rng.between(1, 12) as i32));
        }
        if self.rng.chance(50) {
            out.push(Message::execute(portal, 0));
        }
        if self.rng.chance(30) {
            out.push(Message::close(b'P', portal));
        }
    }

    fn two_portals(&mut self, place: &mut Place, out: &mut Vec<Message>) {
        let statement = Statement::plain("SELECT i FROM generate_series(1, 5) i");
        out.push(self.parse_message("", &statement));
        place.owns_unnamed = true;
        for portal in ["pa", "pb"] {
            out.push(Message::bind(portal, "", &[], &[], &[]));
        }
        for portal in ["pa", "pb", "pa"] {
            out.push(Message::execute(portal, 2));
        }
        if self.rng.chance(20) {
            // The name is taken: an error, and everything up to Sync is skipped.
            out.push(Message::bind("pa", "", &[], &[], &[]));
        }
        out.push(Message::close(b'P', "pa"));
        out.push(Message::close(b'P', "pb"));
    }

    fn mistake(&mut self, place: &mut Place, out: &mut Vec<Message>) {
        let wrong = *self.rng.pick(sql::WRONG);
        match self.rng.below(5) {
            0 | 1 => {
                out.push(Message::parse("", wrong, &[]));
                place.owns_unnamed = true;
            }
            2 if !self.like_pgbouncer => {
                let name = self.new_name();
                out.push(Message::parse(&name, wrong, &[]));
            }
            3 => out.push(Message::execute("no such portal", 0)),
            _ => out.push(Message::describe(b'P', "no such portal")),
        }
    }

    /// Several batches, each answered as far as a Flush allows, then one Sync.
    fn flush_part(&mut self, place: Place) -> Part {
        let mut place = place;
        let mut steps = Vec::new();
        for _ in 0..self.rng.between(1, 3) {
            let mut messages = self.batch(place);
            place.owns_unnamed |= messages.iter().any(|m| m.is_unnamed_parse());
            let answers = messages.iter().filter(|m| m.is_extended()).count();
            messages.push(Message::flush());
            steps.push(Step {
                messages,
                until: Until::Answers(answers),
                unless_copying: None,
            });
        }
        steps.push(Step::ready(vec![Message::sync()], 1));
        steps
    }

    // ---- pipelines ----

    /// Many requests in one write, each with a ReadyForQuery of its own.
    fn pipeline(&mut self, place: Place) -> Part {
        let mut all = Vec::new();
        let mut ready = 0;
        for _ in 0..self.rng.between(2, 12) {
            let (messages, count) = self.pipelined_piece(place);
            all.extend(messages);
            ready += count;
        }
        vec![Step::ready(all, ready)]
    }

    fn pipelined_piece(&mut self, place: Place) -> (Vec<Message>, usize) {
        match self.rng.below(12) {
            0..=5 => {
                let step = self.batch_step(place);
                (step.messages, 1)
            }
            6..=7 => (vec![self.simple(place)], 1),
            8 => (vec![Message::sync()], 1),
            // PgBouncer may wait for ever after an error in the batch that follows.
            9 if !self.like_pgbouncer && self.rng.chance(50) => {
                (vec![Message::query(&self.sql_of_prepared())], 1)
            }
            9 if !self.like_pgbouncer => (self.copy_in_pipelined(place), 1),
            10 => (vec![self.function_call_message()], 1),
            _ => self.query_inside_a_batch(),
        }
    }

    /// A simple Query before the Sync of a batch: executed, with a ReadyForQuery, or skipped after an error.
    fn query_inside_a_batch(&mut self) -> (Vec<Message>, usize) {
        let fails = self.rng.chance(50);
        let first = if fails {
            Message::parse("", "SELEC 1", &[])
        } else {
            Message::parse("", "SELECT 1", &[])
        };
        let messages = vec![
            first,
            Message::bind("", "", &[], &[], &[]),
            Message::query("SELECT 'inside'"),
            Message::sync(),
        ];
        (messages, if fails { 1 } else { 2 })
    }

    fn pipelined_transaction(&mut self) -> Step {
        let mut all = Vec::new();
        let mut ready = 0;
        if self.rng.chance(50) {
            all.push(Message::query("BEGIN"));
        } else {
            all.extend(one_statement("BEGIN"));
        }
        ready += 1;
        for _ in 0..self.rng.between(1, 5) {
            if self.rng.chance(30) {
                all.push(self.simple(IN_BLOCK));
            } else {
                all.extend(self.batch_step(IN_BLOCK).messages);
            }
            ready += 1;
        }
        let end = *self.rng.pick(&["COMMIT", "ROLLBACK"]);
        if self.rng.chance(50) {
            all.push(Message::query(end));
        } else {
            all.extend(one_statement(end));
        }
        Step::ready(all, ready + 1)
    }

    // ---- transactions ----

    fn transaction(&mut self) -> Unit {
        let begin = *self.rng.pick(&[
            "BEGIN",
            "BEGIN ISOLATION LEVEL REPEATABLE READ",
            "START TRANSACTION READ ONLY",
            "BEGIN; SELECT 1",
        ]);
        let begin = if self.rng.chance(70) {
            Step::query(begin)
        } else {
            Step::ready(one_statement("BEGIN"), 1)
        };
        let mut parts = vec![vec![begin]];
        for _ in 0..self.rng.between(1, 5) {
            parts.push(self.part_in_block());
        }
        let end = *self.rng.pick(&["COMMIT", "ROLLBACK", "END", "ABORT"]);
        let end = if self.rng.chance(70) {
            Step::query(end)
        } else {
            Step::ready(one_statement(end), 1)
        };
        parts.push(vec![end]);
        Unit {
            what: "transaction",
            parts,
            framed: true,
        }
    }

    fn unfinished_transaction(&mut self) -> Unit {
        let mut unit = self.transaction();
        unit.parts.pop();
        unit.what = "unfinished transaction";
        unit
    }

    fn part_in_block(&mut self) -> Part {
        match self.rng.below(15) {
            0..=3 => vec![self.simple_step(IN_BLOCK)],
            4..=7 => vec![self.batch_step(IN_BLOCK)],
            8 => self.flush_part(IN_BLOCK),
            9 => self.copy_in(IN_BLOCK),
            10 => vec![self.function_call()],
            11 => self.cursor(),
            12 => self.savepoint(),
            13 if !self.like_pgbouncer => self.prepared_by_sql(IN_BLOCK).concat(),
            _ => self.temporary_table(),
        }
    }

    fn cursor(&mut self) -> Part {
        let n = self.rng.between(1, 20);
        vec![
            Step::query(&format!(
                "DECLARE cur CURSOR FOR SELECT i FROM generate_series(1, {n}) i"
            )),
            Step::query("FETCH 3 FROM cur"),
            Step::ready(
                vec![
                    Message::describe(b'P', "cur"),
                    Message::execute("cur", 2),
                    Message::sync(),
                ],
                1,
            ),
            Step::query("CLOSE cur"),
        ]
    }

    fn savepoint(&mut self) -> Part {
        vec![
            Step::query("SAVEPOINT sp"),
            self.batch_step(IN_BLOCK),
            self.simple_step(IN_BLOCK),
            Step::query(if self.rng.chance(50) {
                "ROLLBACK TO sp"
            } else {
                "RELEASE sp"
            }),
        ]
    }

    fn temporary_table(&mut self) -> Part {
        vec![
            Step::query("CREATE TEMP TABLE tmp (a int) ON COMMIT DROP"),
            Step::query("INSERT INTO tmp SELECT generate_series(1, 10)"),
            Step::query("SELECT sum(a), count(*) FROM tmp"),
            Step::query("DROP TABLE tmp"),
        ]
    }

    // ---- COPY ----

    fn copy_in(&mut self, place: Place) -> Part {
        if self.rng.chance(50) {
            return vec![Step::ready(self.copy_in_pipelined(place), 1)];
        }
        let (command, rows) = self.copy_command(place);
        let data = self.copy_rows(rows);
        if self.rng.chance(50) {
            return vec![
                Step {
                    messages: vec![Message::query(&command)],
                    until: Until::CopyOrReady,
                    unless_copying: None,
                },
                Step {
                    messages: data,
                    until: Until::Ready(1),
                    unless_copying: Some((vec![], 0)),
                },
            ];
        }
        let start = self.extended_copy(&command, place);
        let data_then_sync = [data, vec![Message::sync()]].concat();
        let refused = Some((vec![Message::sync()], 1));
        let until = if self.rng.chance(50) {
            Until::CopyOrReady
        } else {
            Until::CopyOrError
        };
        // libpq sends a Sync that COPY mode ignores, and another after the data; other drivers a Flush.
        let last = if until == Until::CopyOrReady {
            Message::sync()
        } else {
            Message::flush()
        };
        let messages = [&start[..start.len() - 1], &[last]].concat();
        vec![
            Step {
                messages,
                until,
                unless_copying: None,
            },
            Step {
                messages: data_then_sync,
                until: Until::Ready(1),
                unless_copying: refused,
            },
        ]
    }

    /// Command and data in one write, without looking at the answer; one ReadyForQuery.
    fn copy_in_pipelined(&mut self, place: Place) -> Vec<Message> {
        let (command, rows) = self.copy_command(place);
        let data = self.copy_rows(rows);
        if self.rng.chance(50) {
            return [vec![Message::query(&command)], data].concat();
        }
        let mut start = self.extended_copy(&command, place);
        start.pop();
        [start, data, vec![Message::sync()]].concat()
    }

    /// Where the unnamed statement may be used later, COPY must not be that: it would wait for data that never comes.
    fn extended_copy(&mut self, command: &str, place: Place) -> Vec<Message> {
        if !place.owns_unnamed || self.like_pgbouncer && self.mode != Mode::Session {
            return one_statement(command);
        }
        self.next_name += 1;
        let name = format!("copy {}", self.next_name);
        let mut messages = one_statement(command);
        messages[0] = Message::parse(&name, command, &[]);
        messages[1] = Message::bind("", &name, &[], &[], &[]);
        messages
    }

    fn copy_command(&mut self, place: Place) -> (String, usize) {
        let rows = *self.rng.pick(&[0, 1, 3, 10, 200, 3_000]);
        let table = match self.rng.below(10) {
            0 if !self.like_pgbouncer => "missing".to_string(),
            1..=3 if place.in_block => format!("t{} (id, v)", self.slot),
            _ => "sink".to_string(),
        };
        (format!("COPY {table} FROM STDIN"), rows)
    }

    /// CopyData with rows cut anywhere, perhaps a mistake in the middle, perhaps CopyFail.
    fn copy_rows(&mut self, rows: usize) -> Vec<Message> {
        let mut text = String::new();
        // PgBouncer may pass CopyData that comes late after an error to the next client's server.
        let bad = if !self.like_pgbouncer && self.rng.chance(20) {
            self.rng.below(rows + 1)
        } else {
            usize::MAX
        };
        for i in 0..rows {
            let id = 1_000 + i;
            text.push_str(&if i == bad {
                "not a number\tx\n".to_string()
            } else {
                format!("{id}\trow {i}\n")
            });
        }
        let mut out = Vec::new();
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            let n = self.rng.between(1, 20_000).min(rest.len());
            out.push(Message::copy_data(&rest[..n]));
            rest = &rest[n..];
            if self.rng.chance(5) {
                out.push(Message::flush());
            }
        }
        out.push(if self.rng.chance(15) {
            Message::copy_fail("changed my mind")
        } else {
            Message::copy_done()
        });
        out
    }

    // ---- state that the pooler follows ----

    fn parameters(&mut self) -> Vec<Part> {
        let mut parts = Vec::new();
        for _ in 0..self.rng.between(1, 3) {
            let set = sql::set_tracked(&mut self.rng, self.resettable, self.like_pgbouncer);
            let step = if self.rng.chance(70) {
                Step::query(&set)
            } else {
                Step::ready(one_statement(&set), 1)
            };
            parts.push(vec![step]);
            if self.rng.chance(70) {
                let show = format!("SHOW {}", self.rng.pick(sql::TRACKED));
                parts.push(vec![Step::query(&show)]);
            }
            if self.rng.chance(30) {
                parts.push(vec![Step::query(
                    "SELECT to_timestamp(0), make_interval(days => 1, hours => 2, secs => 3.5)",
                )]);
            }
        }
        parts
    }

    /// Read-only for a while: the setting follows the client, and writes fail wherever they are sent.
    fn read_only(&mut self) -> Vec<Part> {
        let write = format!("UPDATE t{} SET v = 'not written'", self.slot);
        let queries = [
            "SET default_transaction_read_only = on",
            "SELECT 1",
            &write,
            "SHOW default_transaction_read_only",
        ];
        let mut parts: Vec<Part> = queries.iter().map(|q| vec![Step::query(q)]).collect();
        parts.push(vec![Step::query("SET default_transaction_read_only = off")]);
        parts
    }

    fn forget(&mut self) -> Step {
        let all = if self.resettable {
            &["DEALLOCATE ALL", "DISCARD ALL", "DISCARD PLANS"][..]
        } else {
            &["DEALLOCATE ALL"]
        };
        let sql = *self.rng.pick(all);
        if sql != "DISCARD PLANS" {
            self.names.clear();
        }
        if self.rng.chance(50) {
            Step::query(sql)
        } else {
            Step::ready(one_statement(sql), 1)
        }
    }

    /// PREPARE, EXECUTE and DEALLOCATE, by both protocols.
    fn prepared_by_sql(&mut self, place: Place) -> Vec<Part> {
        let mut parts = Vec::new();
        for _ in 0..self.rng.between(1, 6) {
            let step = match self.rng.below(10) {
                0..=5 => Step::query(&self.sql_of_prepared()),
                6..=7 => Step::ready(one_statement(&self.sql_of_prepared()), 1),
                8 => Step::ready(
                    vec![
                        Message::bind("", &self.sql_name(), &[], &[], &[]),
                        Message::execute("", 0),
                        Message::sync(),
                    ],
                    1,
                ),
                _ => self.batch_step(place),
            };
            parts.push(vec![step]);
        }
        parts
    }

    /// Not a name that may be given by the protocol: what is prepared by one can't be executed by the other.
    fn sql_name(&mut self) -> String {
        format!("q{}", self.rng.below(3))
    }

    fn sql_of_prepared(&mut self) -> String {
        let name = self.sql_name();
        match self.rng.below(12) {
            0..=2 => {
                let n = self.rng.below(100);
                let body = match self.rng.below(5) {
                    0 => format!("SELECT * FROM t{} ORDER BY id", self.slot),
                    1 => "SELECT nope".to_string(),
                    2 => format!("UPDATE t{} SET v = 'by {name}' WHERE id = 1", self.slot),
                    _ => format!("SELECT {n}, 'it''s; /* {n} */'"),
                };
                format!("PREPARE {name} AS {body}")
            }
            3 => format!("SELECT ';'; prepare \"{name}\" AS SELECT 1 -- ;"),
            4..=7 => format!("EXECUTE {name}"),
            8 => format!("EXPLAIN (COSTS OFF) EXECUTE {name}"),
            9 => format!("DEALLOCATE {name}"),
            _ => {
                let name = self.new_name();
                self.names.retain(|(n, _)| *n != name);
                format!("DEALLOCATE {name}")
            }
        }
    }

    /// Only for session mode: what lives on the server between transactions.
    fn session_state(&mut self) -> Vec<Part> {
        let n = self.rng.below(1000);
        let queries: Vec<String> = match self.rng.below(6) {
            0 => vec![
                format!("PREPARE q{n} (int) AS SELECT $1 + {n}"),
                format!("EXECUTE q{n} (1)"),
                format!("DEALLOCATE q{n}"),
                format!("EXECUTE q{n} (2)"),
            ],
            1 => vec![
                format!("CREATE TEMP TABLE kept{n} (a int)"),
                format!("INSERT INTO kept{n} VALUES (1), (2)"),
                format!("SELECT sum(a) FROM kept{n}"),
            ],
            2 => vec![
                format!("SET work_mem = '{}kB'", 1024 + n),
                "SHOW work_mem".into(),
                "RESET work_mem".into(),
            ],
            3 => vec![
                format!(
                    "BEGIN; DECLARE hold{n} CURSOR WITH HOLD FOR SELECT generate_series(1, 5); COMMIT"
                ),
                format!("FETCH 2 FROM hold{n}"),
                format!("FETCH ALL FROM hold{n}"),
            ],
            4 => vec![
                format!("SELECT pg_advisory_lock({}, {n})", self.slot),
                format!("SELECT pg_advisory_unlock({}, {n})", self.slot),
            ],
            _ => vec![
                "SET search_path = nowhere".into(),
                format!("SELECT * FROM t{}", self.slot),
                "SET search_path = public".into(),
            ],
        };
        queries.iter().map(|q| vec![Step::query(q)]).collect()
    }
}

/// Parse, Bind, Describe, Execute and Sync of a statement without parameters.
fn one_statement(sql: &str) -> Vec<Message> {
    vec![
        Message::parse("", sql, &[]),
        Message::bind("", "", &[], &[], &[]),
        Message::describe(b'P', ""),
        Message::execute("", 0),
        Message::sync(),
    ]
}
