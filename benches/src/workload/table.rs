//! All workloads, one declaration each.

use super::Peer::{Direct, Forwarder, Others, PgBouncer, Pgweir, PgweirScraped, PgweirWorkers};
use super::copy::Direction;
use super::drive::Drive::{self, Copy, Fair, FirstRow, Idle, Open, Pgbench, Scraped, Storm};
use super::pgbench::{Script, Shape};
use super::{Peer, Workload};
use crate::stage::pooler::Door::{self, Scram, ScramTls, Trust, TrustTls};

const POOLERS: &[Peer] = &[
    Pgweir,
    PgBouncer,
    Forwarder,
    #[cfg(feature = "io-uring")]
    Peer::UringForwarder,
    Others,
];
const AND_DIRECT: &[Peer] = &[
    Pgweir,
    PgBouncer,
    Forwarder,
    #[cfg(feature = "io-uring")]
    Peer::UringForwarder,
    Direct,
    Others,
];
const BOTH: &[Peer] = &[Pgweir, PgBouncer];
const BOTH_AND_DIRECT: &[Peer] = &[Pgweir, PgBouncer, Direct];
const FAIR: &[Peer] = &[PgweirWorkers(2), PgBouncer];
const SCRAPED: &[Peer] = &[Pgweir, PgweirScraped];
const WORKERS: &[Peer] = &[PgweirWorkers(1), PgweirWorkers(2), PgBouncer];

const fn select(protocol: &'static str, clients: u16) -> Drive {
    Pgbench(Shape {
        script: Script::Select,
        protocol,
        clients,
        connect_each: false,
    })
}

const fn script(script: Script, protocol: &'static str, clients: u16) -> Drive {
    Pgbench(Shape {
        script,
        protocol,
        clients,
        connect_each: false,
    })
}

const fn login(clients: u16) -> Drive {
    Pgbench(Shape {
        script: Script::Select,
        protocol: "simple",
        clients,
        connect_each: true,
    })
}

const fn of(
    name: &'static str,
    about: &'static str,
    unit: &'static str,
    door: Door,
    peers: &'static [Peer],
    drive: Drive,
) -> Workload {
    Workload {
        name,
        about,
        unit,
        door,
        peers,
        drive,
    }
}

#[rustfmt::skip]
pub const WORKLOADS: &[Workload] = &[
    of("simple-1", "pgbench -S, 1 client", "transaction", Trust, AND_DIRECT, select("simple", 1)),
    of("simple-8", "pgbench -S, 8 clients", "transaction", Trust, POOLERS, select("simple", 8)),
    of("simple-64", "pgbench -S, 64 clients", "transaction", Trust, AND_DIRECT, select("simple", 64)),
    of("simple-500", "pgbench -S, 500 clients", "transaction", Trust, POOLERS, select("simple", 500)),
    of("extended-1", "pgbench -S -M extended, 1 client", "transaction", Trust, POOLERS, select("extended", 1)),
    of("extended-8", "pgbench -S -M extended, 8 clients", "transaction", Trust, POOLERS, select("extended", 8)),
    of("extended-64", "pgbench -S -M extended, 64 clients", "transaction", Trust, POOLERS, select("extended", 64)),
    of("extended-500", "pgbench -S -M extended, 500 clients", "transaction", Trust, POOLERS, select("extended", 500)),
    of("prepared-1", "pgbench -S -M prepared, 1 client", "transaction", Trust, POOLERS, select("prepared", 1)),
    of("prepared-8", "pgbench -S -M prepared, 8 clients", "transaction", Trust, POOLERS, select("prepared", 8)),
    of("prepared-64", "pgbench -S -M prepared, 64 clients", "transaction", Trust, AND_DIRECT, select("prepared", 64)),
    of("prepared-500", "pgbench -S -M prepared, 500 clients", "transaction", Trust, POOLERS, select("prepared", 500)),
    of("workers-64", "pgbench -S, 64 clients: 1 and 2 workers", "transaction", Trust, WORKERS, select("simple", 64)),
    of("tpcb-64", "pgbench, TPC-B-like, 64 clients", "transaction", Trust, AND_DIRECT, script(Script::TpcB, "simple", 64)),
    of("tls-64", "pgbench -S, 64 clients on long TLS connections", "transaction", TrustTls, BOTH_AND_DIRECT, select("simple", 64)),
    of("big-result", "1 MB results of 100-byte rows, 8 clients", "MB", Trust, AND_DIRECT, script(Script::Rows, "simple", 8)),
    of("big-row", "1 MB results of one row, 8 clients", "MB", Trust, AND_DIRECT, script(Script::Row, "simple", 8)),
    of("copy-out", "COPY TO STDOUT of 100-byte rows, 4 clients", "MB", Trust, AND_DIRECT, Copy(Direction::Out, 4)),
    of("copy-out-1", "COPY TO STDOUT of 100-byte rows, 1 client", "MB", Trust, AND_DIRECT, Copy(Direction::Out, 1)),
    of("copy-in", "COPY FROM STDIN of 100-byte rows, 4 clients", "MB", Trust, AND_DIRECT, Copy(Direction::In, 4)),
    of("copy-in-1", "COPY FROM STDIN of 100-byte rows, 1 client", "MB", Trust, AND_DIRECT, Copy(Direction::In, 1)),
    of("login-scram", "pgbench -C -S, 8 clients, SCRAM", "login", Scram, BOTH_AND_DIRECT, login(8)),
    of("login-tls", "pgbench -C -S, 8 clients, SCRAM over TLS", "login", ScramTls, BOTH_AND_DIRECT, login(8)),
    of("first-row-idle", "from connect() to the first row, SCRAM, server idle", "login", Scram, BOTH_AND_DIRECT, FirstRow { busy: false }),
    of("first-row-busy", "from connect() to the first row, SCRAM, server busy with 16 other clients", "login", Scram, BOTH_AND_DIRECT, FirstRow { busy: true }),
    of("storm-scram", "steady queries while others log in with SCRAM", "query", Scram, BOTH, Storm),
    of("storm-tls", "steady queries while others log in with SCRAM over TLS", "query", ScramTls, BOTH, Storm),
    of("open-50", "queries at 50 % of PgBouncer's capacity, open loop", "query", Trust, AND_DIRECT, Open(50)),
    of("open-80", "queries at 80 % of PgBouncer's capacity, open loop", "query", Trust, AND_DIRECT, Open(80)),
    of("open-110", "queries at 110 % of PgBouncer's capacity, open loop", "query", Trust, AND_DIRECT, Open(110)),
    of("fairness", "200 equal clients, 20 servers, queries of 5 ms", "query", Trust, FAIR, Fair),
    of("scraped", "steady queries beside up to 10,000 idle clients, with and without a scrape of metrics a second", "query", Trust, SCRAPED, Scraped),
    of("idle", "idle clients, logged in with SCRAM", "client", Scram, BOTH, Idle),
    of("idle-tls", "idle TLS clients, logged in with SCRAM", "client", ScramTls, BOTH, Idle),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = WORKLOADS.iter().map(|workload| workload.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), WORKLOADS.len());
    }
}
