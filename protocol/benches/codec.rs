//! Micro-benchmarks of the codec: `cargo bench -p tokenbus-protocol`.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used)]

mod work;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn codec(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codec");
    group.throughput(Throughput::Elements(work::STREAMS));
    group.bench_function("encode 512 tokens", |b| b.iter(work::encode_tokens));
    group.bench_function("encode 512 finishes", |b| b.iter(work::encode_finishes));
    let tokens = work::step(77, "token ", |_| ());
    group.bench_function("decode 512 tokens", |b| b.iter(|| work::decode_all(&tokens)));
    let finishes = work::step(77, "token ", work::finished);
    group.bench_function("decode 512 finishes", |b| b.iter(|| work::decode_all(&finishes)));
    group.throughput(Throughput::Elements(1));
    let request = work::request();
    group.bench_function("a request both ways", |b| b.iter(|| work::request_both_ways(&request)));
    group.finish();
}

criterion_group!(benches, codec);
criterion_main!(benches);
