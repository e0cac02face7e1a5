//! The pool's core: lending a server and taking it back, with servers to spare and with a queue.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group};
use pgweir::pool::core::{Checkout, CoreRules, Member, Placed, PoolCore, Wear};
use pgweir::pool::turn::Turn;

const SERVERS: u32 = 20;

struct Server {
    number: u32,
    born: Instant,
}

impl Member for Server {
    fn born(&self) -> Instant {
        self.born
    }

    fn epoch(&self) -> u64 {
        0
    }
}

type Core = PoolCore<Server, u32>;

/// PgBouncer's defaults.
fn rules() -> CoreRules {
    CoreRules {
        round_robin: false,
        lifetime: Duration::from_secs(3600),
        lifetime_spacing: Duration::from_secs(180),
        idle_timeout: Duration::from_secs(600),
        check_delay: Duration::from_secs(30),
        checks: true,
    }
}

/// A pool whose servers all rest.
fn pool(now: Instant) -> Core {
    let closings = Arc::new(Turn::new(now));
    let mut core = Core::new(rules(), 0, false, closings);
    for number in 0..SERVERS {
        core.dial_began();
        core.dialed(Server { number, born: now }, now);
    }
    core
}

/// A client gets a server at once and gives it back.
fn spare(core: &mut Core, now: Instant) {
    let Checkout::Granted(server) = core.checkout(black_box(1), now) else {
        panic!("a server rests");
    };
    assert!(matches!(
        core.checkin(server, now, Wear::Worn),
        Placed::Resting
    ));
}

/// A client joins the queue, and the server that comes free goes to the one at its head.
fn handed(core: &mut Core, server: Server, now: Instant) -> Server {
    assert!(matches!(core.checkout(black_box(1), now), Checkout::Queued));
    match core.checkin(server, now, Wear::Worn) {
        Placed::Handed(_, server) => server,
        _ => panic!("somebody waits"),
    }
}

fn lend(criterion: &mut Criterion) {
    let now = Instant::now();
    let mut group = criterion.benchmark_group("pool");
    let mut core = pool(now);
    group.bench_function("checkout and checkin", |bencher| {
        bencher.iter(|| spare(&mut core, now))
    });
    for waiting in [1, 100, 10_000] {
        let mut core = pool(now);
        let mut server = None;
        for client in 0..SERVERS + waiting {
            if let Checkout::Granted(lent) = core.checkout(client, now) {
                server = Some(lent);
            }
        }
        let id = BenchmarkId::new("queue and hand over, waiting", waiting);
        group.bench_function(id, |bencher| {
            bencher.iter(|| server = server.take().map(|server| handed(&mut core, server, now)));
        });
        black_box(server.map(|server| server.number));
    }
    group.finish();
}

criterion_group!(benches, lend);
