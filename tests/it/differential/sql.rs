//! The SQL of the conversations: every text here gives the same reply whenever and wherever it runs.

use super::conversation::Mode;
use super::rng::Rng;

/// What a parameter of a statement should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    Int,
    Text,
    /// A hundred kilobytes and more.
    BigText,
    /// A number of rows or repetitions that makes a large result.
    Large,
}

impl Value {
    pub fn oid(&self) -> u32 {
        match self {
            Value::Int | Value::Large => 23,
            Value::Text | Value::BigText => 25,
        }
    }

    /// A value, now and then NULL or a wrong one.
    pub fn make(self, rng: &mut Rng, binary: bool) -> Option<Vec<u8>> {
        if rng.chance(5) {
            return None;
        }
        let number = match self {
            Value::Int => rng.below(10),
            Value::Large => rng.between(100_000, 400_000),
            Value::Text => {
                return Some(
                    rng.pick(&["", "a", "it's", "caf\u{e9}", "two words", "\\"])
                        .as_bytes()
                        .to_vec(),
                );
            }
            Value::BigText => return Some(vec![b'z'; rng.between(50_000, 300_000)]),
        };
        if binary {
            return Some((number as i32).to_be_bytes().to_vec());
        }
        Some(if rng.chance(4) {
            b"abc".to_vec()
        } else {
            number.to_string().into_bytes()
        })
    }
}

/// A text for Parse and the parameters it wants. Never with literals whose meaning depends on a setting at the time of Parse.
#[derive(Debug, Clone)]
pub struct Statement {
    pub sql: String,
    pub values: Vec<Value>,
}

impl Statement {
    pub fn plain(sql: impl Into<String>) -> Statement {
        Statement {
            sql: sql.into(),
            values: vec![],
        }
    }

    fn with(sql: impl Into<String>, values: &[Value]) -> Statement {
        Statement {
            sql: sql.into(),
            values: values.to_vec(),
        }
    }
}

/// Texts that Parse refuses.
pub const WRONG: &[&str] = &[
    "SELEC 1",
    "SELECT nope",
    "SELECT * FROM missing",
    "SELECT 1; SELECT 2",
    "SELECT 'open",
];

/// A statement for the extended protocol.
pub fn statement(rng: &mut Rng, slot: usize) -> Statement {
    use Value::*;
    let n = rng.below(8);
    match rng.below(24) {
        0 | 1 => Statement::plain(format!("SELECT {n}")),
        2 | 3 => Statement::with(format!("SELECT $1::int + {n}"), &[Int]),
        4 => Statement::with("SELECT $1::text, length($2::text)", &[Text, Text]),
        5 => Statement::with("SELECT length($1::text), $2::text", &[BigText, Text]),
        6 => Statement::with(
            "SELECT i, $2::text FROM generate_series(1, $1::int) i",
            &[Int, Text],
        ),
        // Not DO UPDATE: behind a suspended portal PostgreSQL lets a Parse begin a new command, and a second change of the row with it.
        // A Parse that the pooler answers itself begins none, so that the row "cannot be affected a second time": a known difference.
        7 => Statement::with(
            format!(
                "INSERT INTO t{slot} VALUES ($1::int, $2::text) ON CONFLICT (id) DO NOTHING RETURNING id, v"
            ),
            &[Int, Text],
        ),
        8 => Statement::with(format!("DELETE FROM t{slot} WHERE id = $1::int"), &[Int]),
        9 => Statement::plain(format!("SELECT * FROM t{slot} ORDER BY id")),
        10 => Statement::with(
            format!("SELECT v FROM t{slot} WHERE id > $1::int ORDER BY id"),
            &[Int],
        ),
        11 => Statement::with("SELECT 10 / $1::int", &[Int]),
        12 => Statement::with("SELECT noisy($1::int)", &[Int]),
        13 => Statement::with("SELECT boom($1::text)", &[Text]),
        14 => Statement::plain(""),
        15 => Statement::plain("SHOW application_name"),
        16 => Statement::plain("VALUES (1, 'a'), (2, 'b'), (3, NULL)"),
        17 => Statement::with("SELECT repeat('x', $1::int)", &[Large]),
        18 => Statement::with("SELECT i FROM generate_series(1, $1::int / 20) i", &[Large]),
        19 => Statement::plain(
            "COPY (SELECT i, repeat('c', i) FROM generate_series(1, 100) i) TO STDOUT",
        ),
        20 => Statement::plain("SELECT to_timestamp(0), make_interval(hours => 5)"),
        21 => Statement::with(
            format!("UPDATE t{slot} SET n = $1::int WHERE id = {n}"),
            &[Int],
        ),
        22 => Statement::plain("EXPLAIN (COSTS OFF) SELECT 1"),
        _ => Statement::with("SELECT $1::int, $2::int, $3::int", &[Int, Int, Int]),
    }
}

/// One statement that works in a transaction block as well as outside.
pub fn harmless(rng: &mut Rng, slot: usize) -> String {
    match rng.below(8) {
        0 => "SELECT 1".into(),
        1 => format!(
            "INSERT INTO t{slot} VALUES ({}, 'simple') ON CONFLICT DO NOTHING",
            rng.below(50)
        ),
        2 => format!("SELECT * FROM t{slot} ORDER BY id"),
        3 => format!("UPDATE t{slot} SET v = v || '!' WHERE id < 3"),
        4 => format!("DELETE FROM t{slot} WHERE id > {}", rng.between(2, 40)),
        5 => "SELECT noisy(2)".into(),
        6 => "COPY (SELECT generate_series(1, 50)) TO STDOUT".into(),
        _ => "VALUES (NULL, 'x'), ('y', NULL)".into(),
    }
}

/// A text for a simple Query.
pub fn simple(rng: &mut Rng, slot: usize, in_block: bool, mode: Mode) -> String {
    let a = harmless(rng, slot);
    let b = harmless(rng, slot);
    match rng.below(30) {
        0..=4 => a,
        5..=6 => format!("{a}; {b}"),
        7 => format!("{a}; SELECT 1/0; {b}"),
        8 => String::new(),
        9 => [";", ";;", " ", "-- only a comment", "/* c */;"][rng.below(5)].into(),
        10 => WRONG[rng.below(3)].into(),
        11 => "SELECT 1/0".into(),
        12 => "SELECT boom('simple')".into(),
        13 => "DO $$ BEGIN RAISE NOTICE 'hello %', 1; RAISE INFO 'info'; END $$".into(),
        14 => format!("SELECT repeat('b', {})", rng.between(100_000, 500_000)),
        15 => format!(
            "SELECT i, repeat('r', 100) FROM generate_series(1, {}) i",
            rng.between(1_000, 4_000)
        ),
        16 => "COPY (SELECT i, repeat('c', 50) FROM generate_series(1, 3000) i) TO STDOUT".into(),
        17 => "COPY (SELECT 1 / (i - 500) FROM generate_series(1, 1000) i) TO STDOUT".into(),
        18 => "COPY (SELECT i FROM generate_series(1, 20) i) TO STDOUT (FORMAT binary)".into(),
        19 => format!("{a}; COPY (SELECT 1) TO STDOUT; {b}"),
        20 => "SELECT pg_notify('nobody_listens', 'x')".into(),
        21 => "SELECT pg_sleep(0.002)".into(),
        22 => format!("SET {} TO DEFAULT; SHOW work_mem", "work_mem"),
        23 if !in_block => format!("BEGIN; {a}; COMMIT; {b}"),
        24 if !in_block => format!("BEGIN; {a}; ROLLBACK; {b}"),
        25 if !in_block => ["COMMIT", "ROLLBACK", "SAVEPOINT outside"][rng.below(3)].into(),
        26 if !in_block && mode != Mode::Statement => {
            "DO $$ BEGIN PERFORM 1; COMMIT; PERFORM 2; ROLLBACK; END $$".into()
        }
        27 if in_block => "SET LOCAL application_name = 'local only'".into(),
        28 if in_block => "SELECT * FROM missing".into(),
        29 if in_block => "BEGIN".into(),
        _ => format!("SHOW {}", rng.pick(TRACKED)),
    }
}

/// Settings that PostgreSQL reports and a client may change.
pub const TRACKED: &[&str] = &[
    "application_name",
    "client_encoding",
    "DateStyle",
    "TimeZone",
    "IntervalStyle",
    "standard_conforming_strings",
    "default_transaction_read_only",
];

/// A `SET` of a tracked parameter. Not read-only: that would make later writes fail inside `BEGIN; …; COMMIT`, which leaves a block open.
pub fn set_tracked(rng: &mut Rng, resettable: bool, like_pgbouncer: bool) -> String {
    let name = *rng.pick(&TRACKED[..TRACKED.len() - 1]);
    if resettable && rng.chance(15) {
        return format!("RESET {name}");
    }
    let values: &[&str] = match name {
        "application_name" if like_pgbouncer => {
            &["'one'", "'two words'", "'it''s'", "''", "'caf\u{e9}'"]
        }
        "application_name" => &[
            "'one'",
            "'One'",
            "'ONE'",
            "'it''s'",
            "E'back\\\\slash'",
            "''",
            "'caf\u{e9}'",
            "'a;b\"c'",
        ],
        "client_encoding" => &["'UTF8'", "'LATIN1'", "'SQL_ASCII'"],
        "DateStyle" => &[
            "'ISO'",
            "'ISO, DMY'",
            "'German'",
            "'SQL, MDY'",
            "'Postgres, YMD'",
        ],
        "TimeZone" => &[
            "'UTC'",
            "'Europe/Berlin'",
            "'Asia/Kolkata'",
            "'<+03>-03'",
            "7",
            "'nowhere'",
        ],
        "IntervalStyle" => &["postgres", "iso_8601", "sql_standard", "postgres_verbose"],
        _ => &["on", "off"],
    };
    let value = rng.pick(values);
    format!("SET {name} = {value}")
}
