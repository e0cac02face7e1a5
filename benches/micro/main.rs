//! The micro-benchmarks: what the pure parts of the query path and of a login cost, each by itself. `make bench-micro` runs them
//! all, `make bench-micro MICRO=owed` those with this word in their name.
//!
//! One program for all of them, because linking pgweir takes longer than running it. For what the parts cost together, see
//! `callgrind.sh` beside this folder.

mod framing;
mod owed;
mod pool;
mod scram;
mod walks;

criterion::criterion_main!(
    framing::benches,
    owed::benches,
    pool::benches,
    scram::benches,
    walks::benches
);
