//! Micro-benchmarks of the demultiplexer, the event encoder and the placement: `cargo bench -p tokenbus-gateway`.
#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing
)]

mod work;

use bytes::BytesMut;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn demultiplexer(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("demultiplexer");
    group.throughput(Throughput::Elements(work::codec::STREAMS));
    for (name, mut demultiplexer) in [
        ("512 tokens to their clients", work::Demultiplexer::to_clients()),
        (
            "512 tokens to their clients over HTTP/2",
            work::Demultiplexer::to_http2(),
        ),
        ("512 tokens to their readers", work::Demultiplexer::to_readers()),
    ] {
        group.bench_function(name, |b| b.iter(|| demultiplexer.step()));
    }
    group.finish();
}

fn events(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("events");
    group.throughput(Throughput::Elements(1));
    let mut out = BytesMut::with_capacity(4096);
    for (name, text) in [("a token", "token "), ("a token with escapes", "\"a\\b\"\n\u{1}é")] {
        let mut encoder = work::encoder();
        group.bench_function(name, |b| b.iter(|| work::event(&mut *encoder, text, &mut out)));
    }
    group.finish();
}

fn placement(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("placement");
    for workers in [8, 200, 1_000] {
        let mut placement = work::Placement::new(workers);
        group.bench_function(format!("among {workers} workers"), |b| b.iter(|| placement.step()));
    }
    group.finish();
}

criterion_group!(benches, demultiplexer, events, placement);
criterion_main!(benches);
