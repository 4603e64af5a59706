//! The simulator against what is known: conservation, Little's law, queues with a formula, nominal rates, seeds.

use crate::cluster::{Arrivals, Run};
use crate::engine::{Engine, EngineSpec, Step};
use crate::policy::Kind;
use crate::prompt::{Path, Request};
use crate::random::exponential;
use crate::setting::{Cluster, ENGINE};
use crate::stats::Outcome;
use crate::time::{Nanos, SECOND, from_seconds, seconds};
use crate::workload::Workload;
use crate::workload::demand::Demand;

const FOREVER: Nanos = 100_000 * SECOND;

fn run(cluster: &Cluster, requests: &[Request], policy: Kind, kills: &[(Nanos, usize)]) -> Outcome {
    Run {
        cluster,
        requests,
        policy,
        arrivals: Arrivals::Open,
        kills,
        until: FOREVER,
        seed: 11,
    }
    .outcome()
}

fn requests(workload: Workload, rate: f64) -> Vec<Request> {
    workload.requests(Demand {
        rate,
        length: 60 * SECOND,
        seed: 5,
    })
}

/// Requests of independent exponential lengths, as queues with a formula want them.
fn markov(rate: f64, prompt: f64, answer: f64, count: u32) -> Vec<Request> {
    let mut rng = fastrand::Rng::with_seed(17);
    let mut at = 0.0;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a test")]
    let length = |rng: &mut fastrand::Rng, mean: f64| exponential(rng, mean).ceil() as u32;
    (0..count)
        .map(|number| {
            at += exponential(&mut rng, 1.0 / rate);
            let mut path = Path::default();
            let tokens = if prompt > 1.0 { length(&mut rng, prompt) } else { 1 };
            path.message(u64::from(number), tokens.max(1));
            let tokens = if answer > 1.0 { length(&mut rng, answer) } else { 1 };
            path.ask(from_seconds(at), 0, 0, tokens.max(1))
        })
        .collect()
}

fn mean_wait(requests: &[Request], outcome: &Outcome) -> f64 {
    let waits = requests.iter().zip(&outcome.fates).map(|(request, fate)| {
        let first = fate.first_token.expect("it has a first token");
        seconds(first - request.at)
    });
    let (sum, count) = waits.fold((0.0, 0.0), |(sum, count), wait| (sum + wait, count + 1.0));
    sum / count
}

fn one(engine: EngineSpec) -> Cluster {
    let mut cluster = Cluster::even(1, 1);
    cluster.engines = vec![engine];
    cluster.link = 0;
    cluster
}

#[test]
fn every_request_ends_once_whatever_dies() {
    let cluster = Cluster::even(8, 3);
    let kills = [(20 * SECOND, 2), (30 * SECOND, 7), (30 * SECOND + 5, 0)];
    for workload in Workload::ALL {
        let requests = requests(workload, 12.0);
        for policy in Kind::ALL {
            let outcome = run(&cluster, &requests, policy, &kills);
            assert_eq!(outcome.ended_count, requests.len() as u64, "{policy:?} {workload:?}");
            for fate in &outcome.fates {
                assert_eq!(fate.ends, 1);
                assert_eq!(fate.sent, 1 + fate.refused + fate.lost);
                assert!(fate.first_token <= fate.ended);
            }
        }
    }
}

#[test]
fn littles_law_holds() {
    let cluster = Cluster::even(4, 2);
    let requests = requests(Workload::Chat, 10.0);
    let outcome = run(&cluster, &requests, Kind::LeastLoaded, &[]);
    let stays = requests.iter().zip(&outcome.fates).map(|(request, fate)| {
        let ended = fate.ended.expect("it ended");
        seconds(ended - request.at)
    });
    let total: f64 = stays.sum();
    assert!(
        (outcome.presence / total - 1.0).abs() < 1e-6,
        "{} {total}",
        outcome.presence
    );
}

#[test]
fn slots_queue_as_erlang_says() {
    // M/M/c: 8 slots, answers of 1 s on average, prompts of no length, 80 % load.
    let engine = EngineSpec {
        slots: 8,
        prefill_rate: 1e12,
        step: 1e-4,
        step_per_sequence: 0.0,
        decode_beside_prefill: 1.0,
        cache_tokens: 2_000_000_000,
    };
    let requests = markov(6.4, 0.0, 10_000.0, 60_000);
    let outcome = run(&one(engine), &requests, Kind::Random, &[]);
    let offered = 6.4_f64;
    let mut term = 1.0;
    let mut sum = 0.0;
    for slot in 0..8 {
        sum += term;
        term *= offered / f64::from(slot + 1);
    }
    let queued = term / (1.0 - offered / 8.0);
    let expected = queued / (sum + queued) / (8.0 - offered);
    let found = mean_wait(&requests, &outcome);
    assert!((found / expected - 1.0).abs() < 0.05, "{found} is not {expected}");
}

#[test]
fn prompts_queue_as_a_single_reader_does() {
    // M/M/1: the reader is busy 70 % of the time, and there are slots for all.
    let engine = EngineSpec {
        slots: 100_000,
        prefill_rate: 10_000.0,
        step: 1e-9,
        step_per_sequence: 0.0,
        decode_beside_prefill: 1.0,
        cache_tokens: 2_000_000_000,
    };
    let requests = markov(7.0, 1_000.0, 0.0, 60_000);
    let found = mean_wait(&requests, &run(&one(engine), &requests, Kind::Random, &[]));
    let expected = 1.0 / (10.0 - 7.0);
    assert!((found / expected - 1.0).abs() < 0.05, "{found} is not {expected}");
}

#[test]
fn an_engine_alone_has_its_nominal_rates() {
    let mut path = Path::default();
    path.message(1, 20_000);
    let requests = [path.clone().ask(0, 0, 2, 101), path.ask(0, 0, 3, 101)];
    let mut engine = Engine::new(ENGINE);
    let mut steps = Vec::new();
    engine.enqueue(0, 0, &requests);
    while let Some(next) = engine.next() {
        engine.advance(next, &requests, &mut steps);
        if let Some(Step::Ended(0)) = steps.last() {
            // 20,000 tokens at 10,000 a second, then 100 steps of 20 ms.
            assert!((seconds(next) - 4.0).abs() < 1e-6, "{next}");
        }
    }
    // Again, the whole prompt is cached: only the last token is read.
    let start = 10 * SECOND;
    engine.enqueue(start, 1, &requests);
    let first = engine.next().expect("it reads");
    assert!(seconds(first - start) < 0.001);
    engine.advance(first, &requests, &mut steps);
    assert!(matches!(steps.last(), Some(Step::FirstToken { cached: 20_000, .. })));
}

#[test]
fn a_full_engine_decodes_as_fast_as_its_batch_allows() {
    let mut engine = Engine::new(ENGINE);
    let requests: Vec<Request> = (0..32)
        .map(|number| {
            let mut path = Path::default();
            path.message(number, 16);
            path.ask(0, 0, 100 + number, 1_001)
        })
        .collect();
    for number in 0..32 {
        engine.enqueue(0, number, &requests);
    }
    let mut steps = Vec::new();
    let mut ends = Vec::new();
    while let Some(next) = engine.next() {
        engine.advance(next, &requests, &mut steps);
        ends.extend(
            steps
                .drain(..)
                .filter(|step| matches!(step, Step::Ended(_)))
                .map(|_| seconds(next)),
        );
    }
    assert_eq!(ends.len(), 32);
    // 1,000 steps of 20 ms and 31 times 0.4 ms.
    let expected = 1_000.0 * (0.020 + 31.0 * 0.000_4);
    let last = ends[31];
    assert!((last / expected - 1.0).abs() < 0.01, "{last} is not {expected}");
}

#[test]
fn a_seed_repeats_bit_for_bit_and_another_does_not() {
    let cluster = Cluster::even(6, 3);
    let requests = requests(Workload::Agents, 8.0);
    let once = |policy, seed| {
        Run {
            cluster: &cluster,
            requests: &requests,
            policy,
            arrivals: Arrivals::Open,
            kills: &[(20 * SECOND, 1)],
            until: FOREVER,
            seed,
        }
        .outcome()
    };
    for policy in Kind::ALL {
        assert_eq!(once(policy, 3), once(policy, 3), "{policy:?}");
    }
    assert_ne!(once(Kind::Random, 3).fates, once(Kind::Random, 4).fates);
}
