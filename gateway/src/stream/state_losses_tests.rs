//! How many losses a stream survives, and how long it waits for a worker after one.

use super::*;

/// The worker of run `run` is lost, and the next one takes the stream.
fn move_on(bench: &mut Bench, run: u32) -> Vec<Action> {
    let (worker, next) = (format!("w{run}"), format!("w{}", run + 1));
    let actions = bench.event(Event::WorkerGone { worker: name(&worker) });
    if failed(&actions).is_none() {
        bench.publish(Some(&next));
        bench.frame(&next, run + 1, 0, accepted(&next));
    }
    actions
}

#[test]
fn a_stream_that_goes_on_survives_any_number_of_losses() {
    let mut bench = Bench::running("w0");
    for run in 0..20 {
        bench.frame(&format!("w{run}"), run, 1, delta("x "));
        assert!(failed(&move_on(&mut bench, run)).is_none(), "run {run}");
    }
}

#[test]
fn losses_without_progress_end_a_stream() {
    let mut bench = Bench::running("w0");
    bench.frame("w0", 0, 1, delta("x "));
    for run in 0..limits::MAX_RUNS - 1 {
        assert!(failed(&move_on(&mut bench, run)).is_none(), "run {run}");
    }
    let told = move_on(&mut bench, limits::MAX_RUNS - 1);
    assert!(matches!(failed(&told), Some(CallError::WorkerLost { reason }) if reason.contains("too often")));
}

#[test]
fn an_engine_that_dies_of_every_token_ends_a_stream() {
    let mut bench = Bench::running("w0");
    for run in 0..limits::MAX_RUNS {
        let (worker, next) = (format!("w{run}"), format!("w{}", run + 1));
        bench.frame(&worker, run, 1, delta("x "));
        let actions = bench.frame(&worker, run, 2, error(ErrorCode::EngineUnavailable, true));
        assert_eq!(failed(&actions).is_some(), run == limits::MAX_RUNS - 1, "run {run}");
        if failed(&actions).is_none() {
            bench.publish(Some(&next));
            bench.frame(&next, run + 1, 0, accepted(&next));
        }
    }
}

#[test]
fn a_bus_that_comes_and_goes_costs_nothing() {
    for event in [Event::LinkLost, Event::LinkRestored] {
        let mut bench = Bench::running("w0");
        for run in 0..20 {
            bench.event(event.clone());
            assert!(failed(&move_on(&mut bench, run)).is_none(), "run {run}");
        }
    }
}

#[test]
fn whoever_had_a_worker_waits_for_another_however_it_went() {
    let grace = limits::NO_WORKER_GRACE;
    let lost = |event: &mut dyn FnMut(&mut Bench)| {
        let mut bench = Bench::running("a");
        event(&mut bench);
        bench
    };
    let killed = lost(&mut |bench| drop(bench.event(Event::WorkerGone { worker: name("a") })));
    let drained = lost(&mut |bench| drop(bench.frame("a", 0, 1, error(ErrorCode::Draining, true))));
    let given_back = lost(&mut |bench| drop(bench.frame("a", 0, 1, reject("a", RejectReason::Draining))));
    for mut bench in [killed, drained, given_back] {
        assert!(bench.state.may_wait_for_worker(bench.now, false));
        let almost = bench.now + grace - Duration::from_millis(1);
        assert!(bench.state.may_wait_for_worker(almost, false));
        assert!(!bench.state.may_wait_for_worker(bench.now + grace, false));
        // One that found workers in between, and no room, has its grace again when they are gone.
        bench.state.found_worker();
        assert!(bench.state.may_wait_for_worker(bench.now + grace, false));
    }
    let mut new = Bench::new();
    assert!(!new.state.may_wait_for_worker(new.now, false), "no worker has had it");
}
