//! The two walks over a query's bytes, from the client and from the server, with everything that hangs on them but the sockets:
//! framing, ledger, rewriting of prepared statements.

use std::hint::black_box;
use std::rc::Rc;

use criterion::{Criterion, criterion_group};
use pgweir::client::deliver::Deliver;
use pgweir::client::forward::{Forward, Rules, Stop};
use pgweir::client::statements::{Counts, Statements};
use pgweir::server::link::ServerLink;
use pgweir::server::params::{Interner, ParamSet, Tracked};
use pgweir::server::prepared::StatementCache;
use pgweir::wire::splice::Splice;

const PACKET_MAX: u32 = i32::MAX as u32;
const RULES: Rules = Rules {
    rewrite: true,
    max_prepared: 200,
    max_packet_size: PACKET_MAX,
    refuse_simple: false,
};
const TEXT: &[u8] = b"SELECT abalance FROM pgbench_accounts WHERE aid = $1;\0";

/// A client linked with a server, without sockets.
struct Linked {
    statements: Statements,
    link: ServerLink,
    cache: StatementCache,
    counts: Counts,
    params: Rc<ParamSet>,
    tracked: Tracked,
    interner: Interner,
    out: Vec<u8>,
}

impl Linked {
    fn new() -> Linked {
        let params: Rc<ParamSet> = Rc::default();
        Linked {
            statements: Statements::default(),
            link: ServerLink::new(params.clone(), u32::MAX),
            cache: StatementCache::default(),
            counts: Counts::default(),
            params,
            tracked: Tracked::new(&[]),
            interner: Interner::default(),
            out: Vec::new(),
        }
    }

    /// One query there and back; returns how many bytes went out to the server and to the client.
    fn exchange(&mut self, query: &[u8], answer: &[u8]) -> (usize, usize) {
        let sent = self.forward(query);
        let delivered = self.deliver(answer);
        assert!(self.link.is_free());
        (sent, delivered)
    }

    fn forward(&mut self, bytes: &[u8]) -> usize {
        self.out.clear();
        let mut splice = Splice::new(bytes, &mut self.out);
        let mut forward = Forward {
            rules: RULES,
            statements: &mut self.statements,
            link: &mut self.link,
            cache: &self.cache,
            counts: &mut self.counts,
        };
        assert!(matches!(forward.run(&mut splice), Ok(Stop::Input)));
        black_box(splice.finish()).0.len()
    }

    fn deliver(&mut self, bytes: &[u8]) -> usize {
        self.out.clear();
        let mut splice = Splice::new(bytes, &mut self.out);
        let mut deliver = Deliver {
            link: &mut self.link,
            statements: &mut self.statements,
            params: &mut self.params,
            tracked: &self.tracked,
            interner: &mut self.interner,
            max_packet_size: PACKET_MAX,
        };
        assert!(deliver.run(&mut splice).is_ok());
        black_box(splice.finish()).0.len()
    }
}

/// A message of this tag.
fn message(tag: u8, body: &[&[u8]]) -> Vec<u8> {
    let body = body.concat();
    [&[tag], &(body.len() as u32 + 4).to_be_bytes()[..], &body].concat()
}

fn row() -> Vec<u8> {
    let columns = message(b'T', &[&[0, 1], b"abalance\0", &[0; 18]]);
    [
        columns,
        message(b'D', &[&[0, 1, 0, 0, 0, 1], b"0"]),
        message(b'C', &[b"SELECT 1\0"]),
    ]
    .concat()
}

fn ready() -> Vec<u8> {
    message(b'Z', &[b"I"])
}

/// Bind (of this statement), Describe, Execute, Sync.
fn run(statement: &[u8]) -> Vec<u8> {
    let bind = message(
        b'B',
        &[b"\0", statement, &[0, 0, 0, 1, 0, 0, 0, 1, b'1', 0, 0]],
    );
    let execute = message(b'E', &[b"\0", &[0; 4]]);
    [bind, message(b'D', &[b"P\0"]), execute, message(b'S', &[])].concat()
}

fn walks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("walks");
    let mut bench = |name: &str, mut linked: Linked, query: Vec<u8>, answer: Vec<u8>| {
        group.bench_function(name, |bencher| {
            bencher.iter(|| linked.exchange(black_box(&query), black_box(&answer)));
        });
    };
    bench(
        "simple",
        Linked::new(),
        message(b'Q', &[b"SELECT 1\0"]),
        [row(), ready()].concat(),
    );
    let parse = |name: &[u8]| message(b'P', &[name, TEXT, &[0, 0]]);
    let (parsed, bound) = (message(b'1', &[]), message(b'2', &[]));
    bench(
        "extended",
        Linked::new(),
        [parse(b"\0"), run(b"\0")].concat(),
        [parsed.clone(), bound.clone(), row(), ready()].concat(),
    );
    let mut linked = Linked::new();
    linked.exchange(
        &[parse(b"P_0\0"), message(b'S', &[])].concat(),
        &[parsed, ready()].concat(),
    );
    bench(
        "prepared, renamed",
        linked,
        run(b"P_0\0"),
        [bound, row(), ready()].concat(),
    );
    let rows: Vec<u8> = (0..500)
        .flat_map(|_| message(b'D', &[&[0, 1, 0, 0, 0, 119], &[b'x'; 119]]))
        .collect();
    bench(
        "simple, 500 rows of 130 bytes",
        Linked::new(),
        message(b'Q', &[b"SELECT 1\0"]),
        [rows, message(b'C', &[b"SELECT 500\0"]), ready()].concat(),
    );
    group.finish();
}

criterion_group!(benches, walks);
