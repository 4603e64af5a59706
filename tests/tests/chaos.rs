//! Seeded runs that mix the faults: `TOKENBUS_CHAOS_SEED`, `TOKENBUS_CHAOS_MINUTES`.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

use std::time::Duration;

use tokenbus_tests::chaos::run::{Outcome, run, run_double};
use tokenbus_tests::load::Sample;

const STREAMS: usize = 200;

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")))
}

fn seed() -> u64 {
    setting("TOKENBUS_CHAOS_SEED").unwrap_or(1)
}

fn time() -> Duration {
    Duration::from_secs(60 * setting("TOKENBUS_CHAOS_MINUTES").unwrap_or(1))
}

/// Prints what came of a run, and demands that no client saw what is promised to none.
fn judge(name: &str, outcome: &Outcome) {
    let report = &outcome.report;
    let count = |of: fn(&Outcome, &Sample) -> bool| report.samples.iter().filter(|sample| of(outcome, sample)).count();
    eprintln!(
        "{name}: {} acts, {}, {} broken with their gateway, {} told that there is no worker while there was none",
        outcome.acts,
        report.summary(),
        count(Outcome::lost_with_its_gateway),
        count(Outcome::told_of_no_worker),
    );
    report.record(name, outcome.from, outcome.to);
    report.assert_whole_where(|sample| !outcome.is_allowed(sample));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_survives_a_seeded_mix_of_faults() {
    let outcome = run(seed(), time(), STREAMS).await;
    judge(&format!("chaos {}", seed()), &outcome);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_survives_two_faults_at_once() {
    let outcome = run_double(seed(), time(), STREAMS).await;
    judge(&format!("chaos --double {}", seed()), &outcome);
}
