//! Tests of what the worker learns from its engine's readings.

use tokenbus_placement::Cut;

use super::*;

fn prompt(hashes: &[u64]) -> Prompt {
    let cuts = (1..).zip(hashes).map(|(n, hash)| Cut {
        hash: hash.wrapping_mul(0x9E37_79B9_7F4A_7C15),
        bytes: n * 4000,
        tokens: n * 1000,
    });
    cuts.collect()
}

fn finish(cached: Option<u64>) -> Finish {
    let usage = cached.map(|cached| format!(r#"{{"prompt_tokens_details":{{"cached_tokens":{cached}}}}}"#));
    Finish {
        prompt_tokens: Some(500),
        usage: usage.map(|usage| tokenbus_protocol::RawJson::new(usage).unwrap()),
        ..Finish::default()
    }
}

#[test]
fn what_was_read_is_held_and_told_once() {
    let now = Instant::now();
    let readings = Readings::new(7, now);
    let first = readings.begin("m", &prompt(&[1, 2]), now);
    assert_eq!(readings.news(100, now).pending, 2000);
    let second = readings.begin("m", &prompt(&[1, 2, 3]), now);
    let news = readings.news(100, now);
    assert_eq!(
        (news.pending, news.from, news.changes.len()),
        (3000, 2, 5),
        "two cuts were held"
    );
    drop((first, second));
    let news = readings.news(100, now);
    assert_eq!(
        (news.epoch, news.pending, news.from, news.full, news.changes.len()),
        (7, 0, 3, false, 0)
    );
    readings.ask();
    let news = readings.news(100, now);
    assert_eq!((news.from, news.full, news.changes.len()), (3, true, 15));
    readings.clear();
    let news = readings.news(100, now);
    assert_eq!((news.epoch, news.from, news.changes.len()), (8, 0, 0));
}

#[test]
fn rates_are_measured_with_what_the_engine_found_in_its_cache() {
    let now = Instant::now();
    let readings = Readings::new(7, now);
    let at = |ms| now + Duration::from_millis(ms);
    let mut reading = readings.begin("m", &prompt(&[1, 2]), at(0));
    reading.first_output(at(400));
    // Half of it was there, although this worker knew of nothing.
    reading.finished(&finish(Some(250)), at(1400));
    drop(reading);
    let pace = &readings.news(100, now).paces[0];
    assert_eq!(
        (pace.model.as_str(), pace.prefill, pace.service_ms),
        ("m", Some(2.5), Some(1000.0))
    );
    assert_eq!(pace.base_ms, None);
}

#[test]
fn an_engine_that_forgets_has_less_room() {
    let now = Instant::now();
    let readings = Readings::new(7, now);
    readings.set_room(Some(100_000));
    for number in 0..60 {
        readings
            .begin("m", &prompt(&[number]), now)
            .finished(&finish(None), now);
    }
    assert_eq!(lock(&readings.state).held.len(), 60);
    readings.begin("m", &prompt(&[59]), now).finished(&finish(Some(0)), now);
    assert_eq!(lock(&readings.state).held.len(), 54);
}
