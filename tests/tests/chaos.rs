//! A seeded run that mixes the faults: `TOKENBUS_CHAOS_SEED`, `TOKENBUS_CHAOS_MINUTES`.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

use std::time::Duration;

use tokenbus_tests::chaos::run::run;

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_survives_a_seeded_mix_of_faults() {
    let seed = setting("TOKENBUS_CHAOS_SEED").unwrap_or(1);
    let minutes = setting("TOKENBUS_CHAOS_MINUTES").unwrap_or(1);
    let outcome = run(seed, Duration::from_secs(60 * minutes), 200).await;
    let report = &outcome.report;
    let lost = report
        .samples
        .iter()
        .filter(|sample| outcome.lost_with_its_gateway(sample));
    eprintln!(
        "chaos seed {seed}: {} acts, {}, {} broken with their gateway",
        outcome.acts,
        report.summary(),
        lost.count(),
    );
    report.record(&format!("chaos {seed}"), outcome.from, outcome.to);
    report.assert_whole_where(|sample| !outcome.lost_with_its_gateway(sample));
}
