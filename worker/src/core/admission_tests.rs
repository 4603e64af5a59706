//! Tests of admission: data in, decisions out.

use proptest::prelude::*;

use super::*;

fn id(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

fn ask(n: u128, attempt: u32) -> Ask {
    Ask {
        id: id(n),
        attempt,
        floor: 0,
        priority: 0,
        kept: 0,
        obstacle: None,
    }
}

fn with_floor(n: u128, attempt: u32, floor: u32) -> Ask {
    Ask {
        floor,
        ..ask(n, attempt)
    }
}

fn admission(slots: u32, queue: u32) -> Admission {
    Admission::new(slots, queue, 1000, 100)
}

fn verdict(verdict: Verdict) -> Decision {
    Decision { stop: None, verdict }
}

const DUPLICATE: Verdict = Verdict::Reject(RejectReason::Duplicate);
const BUSY: Verdict = Verdict::Reject(RejectReason::Busy);

#[test]
fn a_full_worker_is_busy_and_has_room_again_after_an_end() {
    let mut a = admission(2, 0);
    assert_eq!(a.request(&ask(1, 0)), verdict(Verdict::Run));
    assert_eq!(a.request(&ask(2, 0)), verdict(Verdict::Run));
    assert_eq!(a.free(), 0);
    assert_eq!(a.request(&ask(3, 0)), verdict(BUSY));
    assert!(a.end(id(1), 0));
    assert_eq!(a.free(), 1);
    let late = Ask { kept: 1, ..ask(4, 0) };
    assert_eq!(a.request(&late), verdict(BUSY), "the slot is kept for another gateway");
    assert_eq!(a.request(&ask(3, 1)), verdict(Verdict::Run));
    assert_eq!(a.running(), 2);
}

#[test]
fn a_slot_is_given_back_once() {
    let mut a = admission(1, 0);
    a.request(&ask(1, 0));
    assert!(a.end(id(1), 0));
    assert!(!a.end(id(1), 0));
    assert_eq!(a.cancel(id(1), 0), Cancelled::Remembered);
    assert_eq!(a.running(), 0);
}

#[test]
fn an_end_of_another_attempt_frees_nothing() {
    let mut a = admission(1, 0);
    a.request(&ask(1, 3));
    assert!(!a.end(id(1), 2));
    assert_eq!(a.running(), 1);
}

#[test]
fn the_queue_is_by_priority_then_by_arrival() {
    let mut a = admission(1, 3);
    a.request(&ask(1, 0));
    assert_eq!(a.request(&ask(2, 0)), verdict(Verdict::Queue(1)));
    assert_eq!(a.request(&ask(3, 0)), verdict(Verdict::Queue(2)));
    let urgent = Ask {
        priority: 5,
        ..ask(4, 0)
    };
    assert_eq!(a.request(&urgent), verdict(Verdict::Queue(1)));
    assert_eq!(a.request(&ask(5, 0)), verdict(BUSY));
    assert_eq!(a.promote(), None, "no slot yet");
    assert_eq!(a.waiting().collect::<Vec<_>>(), [id(4), id(2), id(3)]);
    let mut served = Vec::new();
    let mut running = id(1);
    for _ in 0..3 {
        assert!(a.end(running, 0));
        running = a.promote().unwrap();
        assert_eq!(a.promote(), None);
        served.push(running);
    }
    assert_eq!(served, [id(4), id(2), id(3)]);
}

#[test]
fn a_newcomer_does_not_overtake_the_queue() {
    let mut a = admission(1, 2);
    a.request(&ask(1, 0));
    a.request(&ask(2, 0));
    a.end(id(1), 0);
    assert_eq!(
        a.request(&ask(3, 0)),
        verdict(Verdict::Queue(2)),
        "a slot is free, but 2 was here first"
    );
    assert_eq!(a.promote(), Some(id(2)));
}

#[test]
fn the_same_request_again_is_a_duplicate_while_it_runs_and_after() {
    let mut a = admission(2, 0);
    a.request(&ask(1, 0));
    assert_eq!(a.request(&ask(1, 0)), verdict(DUPLICATE));
    a.end(id(1), 0);
    assert_eq!(a.request(&ask(1, 0)), verdict(DUPLICATE));
    assert_eq!(a.running(), 0);
}

#[test]
fn published_again_because_accepted_was_late_is_a_duplicate() {
    let mut a = admission(2, 0);
    a.request(&ask(1, 0));
    assert_eq!(a.request(&with_floor(1, 1, 0)), verdict(DUPLICATE));
    assert_eq!(a.running(), 1);
}

#[test]
fn published_again_and_read_behind_the_end_is_a_duplicate_until_the_gateway_gives_up_on_it() {
    let mut a = admission(1, 0);
    a.request(&ask(1, 0));
    a.end(id(1), 0);
    assert_eq!(a.request(&ask(1, 1)), verdict(DUPLICATE));
    assert_eq!(a.request(&with_floor(1, 2, 1)), verdict(Verdict::Run));
    a.cancel(id(1), 2);
    assert_eq!(
        a.request(&with_floor(1, 3, 1)),
        verdict(Verdict::Run),
        "it ran to no end"
    );
}

#[test]
fn an_attempt_below_the_floor_is_stopped_and_replaced_in_its_slot() {
    let mut a = admission(1, 1);
    a.request(&ask(1, 0));
    a.request(&ask(2, 0));
    let decision = a.request(&with_floor(1, 1, 1));
    assert_eq!(
        decision,
        Decision {
            stop: Some(0),
            verdict: Verdict::Run
        }
    );
    assert_eq!((a.running(), a.queued()), (1, 1));
    assert!(!a.end(id(1), 0), "the old attempt is out");
    assert!(a.end(id(1), 1));
}

#[test]
fn a_queued_attempt_below_the_floor_is_replaced_in_its_place() {
    let mut a = admission(1, 3);
    for n in 1..=3 {
        a.request(&ask(n, 0));
    }
    let decision = a.request(&with_floor(2, 4, 4));
    assert_eq!(
        decision,
        Decision {
            stop: Some(0),
            verdict: Verdict::Queue(1)
        }
    );
    assert_eq!(a.waiting().collect::<Vec<_>>(), [id(2), id(3)]);
}

#[test]
fn a_dead_attempt_is_stopped_even_when_the_new_one_cannot_be_taken() {
    let mut a = admission(1, 0);
    a.request(&ask(1, 0));
    let draining = Ask {
        obstacle: Some(RejectReason::Draining),
        ..with_floor(1, 1, 1)
    };
    let decision = a.request(&draining);
    assert_eq!(
        decision,
        Decision {
            stop: Some(0),
            verdict: Verdict::Reject(RejectReason::Draining)
        }
    );
    assert_eq!(a.running(), 0);
}

#[test]
fn an_obstacle_is_told_even_with_free_slots_but_not_for_what_runs_here() {
    let mut a = admission(2, 0);
    a.request(&ask(1, 0));
    let draining = |ask: Ask| Ask {
        obstacle: Some(RejectReason::Draining),
        ..ask
    };
    assert_eq!(
        a.request(&draining(ask(2, 0))),
        verdict(Verdict::Reject(RejectReason::Draining))
    );
    assert_eq!(a.request(&draining(ask(1, 1))), verdict(DUPLICATE));
}

#[test]
fn a_refused_attempt_may_come_again() {
    let mut a = admission(1, 0);
    a.request(&ask(1, 0));
    assert_eq!(a.request(&ask(2, 0)), verdict(BUSY));
    a.end(id(1), 0);
    assert_eq!(a.request(&ask(2, 0)), verdict(Verdict::Run));
}

#[test]
fn a_cancel_takes_out_what_runs_and_what_waits() {
    let mut a = admission(1, 1);
    a.request(&ask(1, 2));
    a.request(&ask(2, 0));
    assert_eq!(
        a.cancel(id(1), 1),
        Cancelled::Remembered,
        "attempt 2 is above the cancel"
    );
    assert_eq!(a.cancel(id(2), 7), Cancelled::Out(0));
    assert_eq!(a.cancel(id(1), 2), Cancelled::Out(2));
    assert_eq!((a.running(), a.queued()), (0, 0));
}

#[test]
fn a_cancel_that_overtook_its_request_is_remembered() {
    let mut a = admission(1, 0);
    a.cancel(id(1), 1);
    assert_eq!(a.request(&ask(1, 0)), verdict(Verdict::Forget));
    assert_eq!(a.request(&ask(1, 1)), verdict(Verdict::Forget));
    assert_eq!(a.request(&with_floor(1, 2, 2)), verdict(Verdict::Run));
}

#[test]
fn the_memory_of_requests_is_bounded() {
    let mut a = Admission::new(1, 0, 10, 10);
    for n in 0..11 {
        a.request(&ask(n, 0));
        a.end(id(n), 0);
    }
    assert_eq!(a.request(&ask(10, 0)), verdict(DUPLICATE));
    assert_eq!(a.request(&ask(0, 0)), verdict(Verdict::Run), "long ago");
}

#[test]
fn fewer_slots_stop_nothing_and_more_serve_the_queue() {
    let mut a = admission(2, 2);
    for n in 1..=4 {
        a.request(&ask(n, 0));
    }
    a.set_slots(1);
    assert_eq!(a.running(), 2);
    a.end(id(1), 0);
    assert_eq!(a.promote(), None, "one runs, one slot");
    a.set_slots(3);
    assert_eq!(
        (a.promote(), a.promote(), a.promote()),
        (Some(id(3)), Some(id(4)), None)
    );
}

#[derive(Debug, Clone)]
enum Step {
    Request { n: u128, attempt: u32, floor: u32 },
    End { n: u128, attempt: u32 },
    Cancel { n: u128, attempt: u32 },
    Promote,
    Slots(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let n = 0..6_u128;
    prop_oneof![
        4 => (n.clone(), 0..4_u32, 0..4_u32).prop_map(|(n, attempt, floor)| Step::Request { n, attempt, floor: floor.min(attempt) }),
        3 => (n.clone(), 0..4_u32).prop_map(|(n, attempt)| Step::End { n, attempt }),
        1 => (n, 0..4_u32).prop_map(|(n, attempt)| Step::Cancel { n, attempt }),
        2 => Just(Step::Promote),
        1 => (0..4_u32).prop_map(Step::Slots),
    ]
}

proptest! {
    /// Whatever happens: counts agree with the entries, no attempt runs twice, and nothing gets a
    /// slot beyond the number of slots.
    #[test]
    fn counts_always_agree(steps in prop::collection::vec(step(), 0..200)) {
        let mut a = admission(2, 2);
        let mut ran = std::collections::HashSet::new();
        let mut ended = std::collections::HashMap::new();
        for step in steps {
            let before = a.running();
            match step {
                Step::Request { n, attempt, floor } => {
                    let decision = a.request(&with_floor(n, attempt, floor));
                    if matches!(decision.verdict, Verdict::Run | Verdict::Queue(_)) {
                        prop_assert!(ran.insert((n, attempt)), "ran twice");
                        prop_assert!(ended.get(&n).is_none_or(|ended| *ended < floor), "ran again");
                    }
                    prop_assert!(a.running() <= before.max(a.slots));
                }
                Step::End { n, attempt } => if a.end(id(n), attempt) { ended.insert(n, attempt); }
                Step::Cancel { n, attempt } => { a.cancel(id(n), attempt); }
                Step::Promote => { a.promote(); prop_assert!(a.running() <= before.max(a.slots)); }
                Step::Slots(slots) => a.set_slots(slots),
            }
            let slots = a.entries.values().filter(|e| matches!(e.place, Place::Slot)).count();
            prop_assert_eq!(a.running() as usize, slots);
            prop_assert_eq!(a.queue.len(), a.entries.len() - slots);
        }
    }
}
