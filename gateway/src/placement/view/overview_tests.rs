//! Tests of the displayed view.

use tokenbus_protocol::{Capabilities, ModelCapacity, ModelInfo, Room, Total, WorkerCapacity, WorkerReport};
use tokio::time::Duration;

use super::*;
use crate::limits::SNAPSHOT_FRESH;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn worker(id: &str, models: &[&str]) -> WorkerCapacity {
    let info = |model: &&str| ModelInfo {
        name: (*model).to_owned(),
        context_length: None,
        capabilities: Capabilities::default(),
    };
    WorkerCapacity {
        report: WorkerReport {
            worker: name(id),
            instance: 1,
            seq: 1,
            version: "1".into(),
            host: "h".into(),
            engine: "sim".into(),
            state: WorkerState::Ready,
            started_at_ms: 0,
            models: models.iter().map(info).collect(),
            slots: 4,
            active: 3,
            queued: 2,
            tokens_per_second: 12.5,
            ttft: Quantiles::default(),
            itl: Quantiles::default(),
            kv_used: None,
            slots_from: None,
            labels: Default::default(),
            tier: 0,
        },
        age_ms: 0,
    }
}

fn told(workers: Vec<WorkerCapacity>, models: &[&str]) -> Capacity {
    let model = |model: &&str| ModelCapacity {
        model: (*model).to_owned(),
        workers: 1,
        slots: 4,
        free: 1,
        active: 3,
        queued: 2,
        waiting: 0,
        tokens_per_second: 12.5,
        estimated_wait_ms: Some(70),
        desired_workers: 1,
        on_demand: false,
        context_length: None,
        capabilities: Capabilities::default(),
    };
    Capacity {
        coordinator: name("c"),
        seq: 1,
        at_ms: 0,
        workers,
        models: models.iter().map(model).collect(),
        total: Total::default(),
        lost: vec![],
    }
}

#[test]
fn a_fresh_snapshot_is_told_as_it_came() {
    let now = Instant::now();
    let mut view = View::default();
    view.snapshot(told(vec![worker("a", &["m"])], &["m"]), now, 7);
    let seen = view.overview(&name("g"), now + Duration::from_millis(250));
    assert_eq!((seen.gateway, seen.coordinator), (name("g"), Some(name("c"))));
    assert_eq!(seen.snapshot_age_ms, Some(250));
    let [one] = &*seen.workers else {
        panic!("{:?}", seen.workers)
    };
    assert_eq!((one.slots, one.active, one.queued), (4, 3, 2));
    assert_eq!((one.tokens_per_second, one.ttft_ms), (Some(12.5), None));
    assert_eq!(one.models, ["m"]);
    assert_eq!((seen.models[0].free, seen.models[0].estimated_wait_ms), (1, Some(70)));
}

#[test]
fn without_one_the_gateway_tells_what_it_knows_by_itself() {
    let now = Instant::now();
    let mut view = View::default();
    assert_eq!(view.overview(&name("g"), now).snapshot_age_ms, None);
    view.learnt(&name("b"), "m", now, 7);
    view.room(
        &name("b"),
        Room {
            free: 2,
            queued: 0,
            pending: None,
        },
        now,
    );
    view.learnt(&name("a"), "m", now, 7);
    view.gone(&name("a"), now);
    let seen = view.overview(&name("g"), now);
    assert_eq!(seen.coordinator, None);
    let states = seen.workers.iter().map(|one| (one.worker.as_str(), one.state));
    assert_eq!(
        states.collect::<Vec<_>>(),
        [("a", WorkerState::Unavailable), ("b", WorkerState::Ready)]
    );
    assert_eq!(seen.workers[1].tokens_per_second, None, "nobody told");
    assert_eq!(
        (seen.models[0].workers, seen.models[0].slots, seen.models[0].free),
        (1, 2, 2)
    );
}

#[test]
fn an_old_snapshot_is_not_told_as_the_present() {
    let now = Instant::now();
    let mut view = View::default();
    view.snapshot(told(vec![worker("a", &["m"])], &["m"]), now, 7);
    let seen = view.overview(&name("g"), now + SNAPSHOT_FRESH);
    assert_eq!((seen.coordinator, seen.snapshot_age_ms), (None, Some(3000)));
    assert_eq!(
        (seen.workers.len(), seen.workers[0].active),
        (1, 3),
        "what was known last"
    );
}

#[test]
fn who_may_see_some_models_sees_those() {
    let now = Instant::now();
    let mut view = View::default();
    let workers = vec![worker("a", &["m", "x"]), worker("b", &["x"]), worker("c", &[])];
    view.snapshot(told(workers, &["m", "x"]), now, 7);
    let mut seen = view.overview(&name("g"), now);
    seen.retain(|model| model == "m");
    assert_eq!(seen.models.len(), 1);
    let left = seen.workers.iter().map(|one| (one.worker.as_str(), one.models.len()));
    assert_eq!(left.collect::<Vec<_>>(), [("a", 1), ("c", 0)]);
}
