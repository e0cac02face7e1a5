//! Finding where messages begin and end: the cost per message of a walk that does nothing else.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group};
use pgweir::wire::frame::{Passing, header};

const BYTES: usize = 65_536;

/// As many DataRows of this length as fit into one read.
fn rows(len: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while out.len() + len <= BYTES {
        out.push(b'D');
        out.extend_from_slice(&(len as u32 - 1).to_be_bytes());
        out.resize(out.len() + len - 5, b'x');
    }
    out
}

/// Walks over all messages and counts them.
fn walk(bytes: &[u8]) -> u64 {
    let mut passing = Passing::default();
    let (mut at, mut messages) = (0, 0);
    while at < bytes.len() {
        let Ok(Some(header)) = header(&bytes[at..], u32::MAX) else {
            break;
        };
        messages += 1;
        at += passing.begin(header.total, bytes.len() - at);
    }
    messages
}

fn framing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("framing");
    for len in [16, 128, 4096] {
        let bytes = rows(len);
        group.throughput(Throughput::Elements(walk(&bytes)));
        group.bench_function(format!("rows of {len} bytes"), |bencher| {
            bencher.iter(|| walk(black_box(&bytes)));
        });
    }
    group.finish();
}

criterion_group!(benches, framing);
