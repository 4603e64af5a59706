//! Tests of the estimated time to come back.

use super::*;

const NOBODY: &Option<String> = &None;

fn queue(waiting: usize) -> Backlog {
    Backlog { waiting, tenants: 1 }
}

fn secs(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn near(told: Duration, expected: f64) {
    let told = told.as_secs_f64();
    assert!(
        (told - expected).abs() < 0.02 * expected,
        "{told} s, and not {expected} s"
    );
}

/// Ten slots, whose runs of two seconds end in turn. Returns the end of the last.
fn busy(rate: &mut ServiceRate, from: Instant, runs: u32) -> Instant {
    for run in 0..runs + 10 {
        let now = from + Duration::from_millis(200) * run;
        if run >= 10 {
            rate.over(now - Duration::from_secs(2), true, now);
        }
        if run < runs {
            rate.began(now);
        }
    }
    from + Duration::from_millis(200) * (runs + 10)
}

fn ten_begin(rate: &mut ServiceRate, now: Instant) {
    for _ in 0..10 {
        rate.began(now);
    }
}

#[test]
fn idle_time_does_not_count() {
    let start = Instant::now();
    for idle in [0, 8, 3600, 24 * 3600] {
        let mut rate = ServiceRate::default();
        let now = busy(&mut rate, start, 300) + Duration::from_secs(idle);
        ten_begin(&mut rate, now);
        // Five end per second, and twenty wait: half of them are gone after 2 s.
        near(rate.retry_after(queue(20), NOBODY, now, 0.0), 2.2);
    }
}

#[test]
fn everybody_who_is_refused_is_given_a_time_of_its_own() {
    let mut rate = ServiceRate::default();
    let now = busy(&mut rate, Instant::now(), 300);
    ten_begin(&mut rate, now);
    for number in 1..=1000 {
        let told = rate.retry_after(queue(20), NOBODY, now, 0.0);
        near(told, 2.0 + 0.2 * f64::from(number));
    }
    // Ten seconds later, those have come back. A new request queues behind the others.
    let later = now + Duration::from_secs(10);
    near(rate.retry_after(queue(20), NOBODY, later, 0.0), 192.2);
    rate.is_roomy();
    assert!(rate.retry_after(queue(20), NOBODY, later, 0.0) < secs(3.0));
}

#[test]
fn tenants_take_turns_and_one_does_not_push_another_back() {
    let mut rate = ServiceRate::default();
    let now = busy(&mut rate, Instant::now(), 300);
    ten_begin(&mut rate, now);
    let shared = Backlog {
        waiting: 20,
        tenants: 2,
    };
    for _ in 0..1000 {
        rate.retry_after(shared, &Some("loud".to_owned()), now, 0.0);
    }
    near(rate.retry_after(shared, &Some("quiet".to_owned()), now, 0.0), 2.2);
    near(rate.retry_after(shared, &Some("quiet".to_owned()), now, 0.0), 2.6);
}

#[test]
fn before_anything_has_ended_a_run_is_taken_to_last_ten_seconds_or_twice_as_long_as_by_now() {
    let start = Instant::now();
    let mut rate = ServiceRate::default();
    ten_begin(&mut rate, start);
    near(rate.retry_after(queue(0), NOBODY, start, 0.0), 1.0);
    let mut rate = ServiceRate::default();
    ten_begin(&mut rate, start);
    near(
        rate.retry_after(queue(10), NOBODY, start + Duration::from_secs(30), 0.0),
        36.0,
    );
    // The run that ends first is a short one; the others are not.
    let now = start + Duration::from_secs(31);
    let mut rate = ServiceRate::default();
    ten_begin(&mut rate, start);
    rate.over(now - Duration::from_secs(1), true, now);
    assert!(rate.retry_after(queue(0), NOBODY, now, 0.0) > secs(6.0));
}

#[test]
fn longer_and_shorter_runs_are_noticed() {
    let start = Instant::now();
    let mut rate = ServiceRate::default();
    let now = busy(&mut rate, start, 300);
    ten_begin(&mut rate, now);
    // Nothing ends for a minute.
    let later = now + Duration::from_secs(60);
    let told = rate.retry_after(queue(20), NOBODY, later, 0.0);
    assert!(told > secs(4.0), "{told:?} where 2.2 s was true before");
    let mut rate = ServiceRate::default();
    let now = busy(&mut rate, start, 300);
    let now = (0..1200).fold(now, |now, _| {
        rate.began(now);
        let end = now + Duration::from_secs(40);
        rate.over(now, true, end);
        end
    });
    rate.began(now);
    near(rate.retry_after(queue(0), NOBODY, now, 0.0), 40.0);
}

#[test]
fn what_is_told_is_bounded_and_then_drawn() {
    let start = Instant::now();
    let mut rate = ServiceRate::default();
    rate.began(start);
    let told: Vec<Duration> = (0..200)
        .map(|number| rate.retry_after(queue(100), NOBODY, start, f64::from(number % 10) / 10.0))
        .collect();
    assert!(told.iter().all(|told| limits::RETRY_AFTER.contains(told)));
    assert_eq!(told.iter().skip(100).min(), Some(&Duration::from_mins(5)));
    assert_eq!(told.iter().skip(100).max(), Some(&Duration::from_secs(570)));
    // An unbounded number of tenants takes bounded memory.
    for tenant in 0..3000 {
        rate.retry_after(queue(0), &Some(tenant.to_string()), start, 0.0);
    }
    assert!(rate.told.len() <= limits::TOLD_TENANTS + 1);
}

#[test]
fn the_wait_is_known_once_enough_runs_have_ended_and_only_while_some_run() {
    let mut rate = ServiceRate::default();
    let now = busy(&mut rate, Instant::now(), 300);
    assert_eq!(
        rate.wait(10),
        None,
        "nothing runs: whoever waits, waits for something else"
    );
    ten_begin(&mut rate, now);
    near(rate.wait(20).unwrap(), 4.0);
    assert_eq!(rate.wait(0), Some(Duration::ZERO));
    let mut young = ServiceRate::default();
    let now = busy(&mut young, now, 12);
    ten_begin(&mut young, now);
    assert_eq!(young.wait(20), None, "too few ended");
}
