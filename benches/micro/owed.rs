//! The ledger of owed replies: what it costs to enter the requests of one query and to take in its replies.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group};
use pgweir::server::owed::{Event, Kind, Origin, Owed};

type Ledger = Owed<u32>;

const SIMPLE: (&[Kind], &[u8]) = (&[Kind::Query], b"TDCZ");
const EXTENDED: (&[Kind], &[u8]) = (
    &[
        Kind::Parse,
        Kind::Bind,
        Kind::Describe,
        Kind::Execute,
        Kind::Sync,
    ],
    b"12TDCZ",
);
const PREPARED: (&[Kind], &[u8]) = (
    &[Kind::Bind, Kind::Describe, Kind::Execute, Kind::Sync],
    b"2TDCZ",
);

/// Sends a query so many times, then takes in all replies.
fn pipeline(
    owed: &mut Ledger,
    events: &mut Vec<Event<u32>>,
    (sent, replies): (&[Kind], &[u8]),
    times: u64,
) {
    for _ in 0..times {
        for kind in sent {
            owed.sent(*kind, Origin::Client, None, events);
        }
    }
    for _ in 0..times {
        for tag in replies {
            let fate = owed.reply(*tag, b'I', events);
            assert!(black_box(fate).is_ok(), "the script is right");
        }
    }
    assert!(owed.is_free());
}

fn owed(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("owed");
    for (name, script) in [
        ("simple", SIMPLE),
        ("extended", EXTENDED),
        ("prepared", PREPARED),
    ] {
        for depth in [1, 32] {
            let (mut owed, mut events) = (Ledger::default(), Vec::new());
            group.throughput(Throughput::Elements(depth));
            group.bench_function(format!("{name}, {depth} in flight"), |bencher| {
                bencher.iter(|| pipeline(&mut owed, &mut events, black_box(script), depth));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, owed);
