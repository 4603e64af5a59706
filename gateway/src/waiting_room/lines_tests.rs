//! Tests of turns, lines and bounds.

use super::*;

fn now() -> Instant {
    Instant::now()
}

fn bounds(requests: usize) -> Bounds {
    Bounds {
        requests,
        bytes: usize::MAX,
    }
}

fn room(entries: &[(i32, Option<&str>, &'static str)]) -> WaitingRoom<&'static str> {
    let mut room = WaitingRoom::new(bounds(100));
    for (priority, tenant, waker) in entries {
        let ticket = room.ticket("m", *priority, tenant.map(str::to_owned), 0, now());
        room.enter(&ticket, *waker, now()).unwrap();
    }
    room
}

fn drain(room: &mut WaitingRoom<&'static str>) -> Vec<&'static str> {
    std::iter::from_fn(|| room.next("m", Features::NONE, now())).collect()
}

#[test]
fn who_waits_is_counted_by_class() {
    let mut room = WaitingRoom::new(bounds(8));
    let mut tickets: Vec<Ticket> = [5, 1, 0, -3]
        .map(|priority| room.ticket("m", priority, None, 0, now()))
        .into();
    tickets[1].begun = true;
    for ticket in &tickets {
        room.enter(ticket, "waker", now()).unwrap();
    }
    let counts = |room: &WaitingRoom<&str>| room.by_class().map(|(_, waiting)| waiting).collect::<Vec<_>>();
    assert_eq!(counts(&room), [1, 1, 1, 1]);
    room.leave(&tickets[0]);
    assert!(
        room.next("m", Features::NONE, now()).is_some(),
        "the one that has begun"
    );
    assert_eq!(counts(&room), [0, 0, 1, 1]);
    assert_eq!(room.dissolve("m", Features::NONE).len(), 2);
    assert_eq!(counts(&room), [0, 0, 0, 0]);
}

#[test]
fn priority_first_then_first_come() {
    let mut room = room(&[
        (0, None, "a"),
        (5, None, "b"),
        (0, None, "c"),
        (5, None, "d"),
        (-1, None, "e"),
    ]);
    assert_eq!(drain(&mut room), ["b", "d", "a", "c", "e"]);
    assert!(room.is_empty());
}

#[test]
fn tenants_take_turns() {
    let (x, y) = (Some("x"), Some("y"));
    let mut room = room(&[(0, x, "x1"), (0, x, "x2"), (0, x, "x3"), (0, y, "y1"), (0, None, "n1")]);
    assert_eq!(drain(&mut room), ["x1", "y1", "n1", "x2", "x3"]);
}

#[test]
fn the_room_is_bounded_and_leaving_makes_room() {
    let mut room = WaitingRoom::new(bounds(2));
    let tickets: Vec<Ticket> = (0..3).map(|_| room.ticket("m", 0, None, 0, now())).collect();
    room.enter(&tickets[0], 0, now()).unwrap();
    room.enter(&tickets[1], 1, now()).unwrap();
    assert_eq!(room.enter(&tickets[2], 2, now()).unwrap_err(), Full);
    room.leave(&tickets[0]);
    room.leave(&tickets[0]);
    assert_eq!(room.len(), 1);
    room.enter(&tickets[2], 2, now()).unwrap();
    assert_eq!(
        (
            room.next("m", Features::NONE, now()),
            room.next("m", Features::NONE, now()),
            room.next("m", Features::NONE, now())
        ),
        (Some(1), Some(2), None)
    );
    assert_eq!(room.models().count(), 0, "an empty queue leaves nothing behind");
}

#[test]
fn one_that_was_woken_in_vain_keeps_its_turn() {
    let mut room = WaitingRoom::new(bounds(10));
    let first = room.ticket("m", 0, None, 0, now());
    let second = room.ticket("m", 0, None, 0, now());
    room.enter(&second, "second", now()).unwrap();
    room.enter(&first, "first", now()).unwrap();
    assert_eq!(room.next("m", Features::NONE, now()), Some("first"));
}

#[test]
fn models_do_not_wait_for_each_other() {
    let mut room = WaitingRoom::new(bounds(10));
    let (a, b) = (room.ticket("a", 0, None, 0, now()), room.ticket("b", 9, None, 0, now()));
    room.enter(&a, "a", now()).unwrap();
    room.enter(&b, "b", now()).unwrap();
    assert_eq!((room.waiting("a"), room.waiting("b"), room.waiting("c")), (1, 1, 0));
    assert_eq!(room.next("a", Features::NONE, now()), Some("a"));
}

#[test]
fn requests_that_need_more_have_a_line_of_their_own() {
    let tools = Features::from(tokenbus_protocol::Feature::Tools);
    let mut room = WaitingRoom::new(bounds(10));
    let plain = room.ticket("m", 0, None, 0, now());
    let picky = Ticket {
        line: tools.into(),
        ..room.ticket("m", 9, None, 0, now())
    };
    room.enter(&picky, "picky", now()).unwrap();
    room.enter(&plain, "plain", now()).unwrap();
    assert_eq!((room.waiting("m"), room.waiting_in("m", tools)), (2, 1));
    assert_eq!(room.lines("m").count(), 2);
    assert_eq!(room.next("m", Features::NONE, now()), Some("plain"));
    assert_eq!(room.next("m", Features::NONE, now()), None);
    room.leave(&picky);
    assert_eq!((room.len(), room.models().count()), (0, 0));
}

#[test]
fn whose_turn_is_next_can_be_seen() {
    let mut room = WaitingRoom::new(bounds(10));
    let tickets: Vec<Ticket> = [(0, "x"), (0, "y"), (1, "y")]
        .map(|(priority, tenant)| room.ticket("m", priority, Some(tenant.to_owned()), 0, now()))
        .into();
    for (name, ticket) in ["a", "b", "c"].into_iter().zip(&tickets) {
        room.enter(ticket, name, now()).unwrap();
    }
    for (n, first) in [(2, "c"), (0, "a"), (1, "b")] {
        let next: Vec<bool> = tickets.iter().map(|ticket| room.is_next(ticket, now())).collect();
        assert!(next[n], "{next:?}");
        assert_eq!(next.iter().filter(|next| **next).count(), 1);
        assert_eq!(room.next("m", Features::NONE, now()), Some(first));
    }
}

#[test]
fn what_has_begun_goes_first_and_is_kept_out_by_no_bound() {
    let mut room = WaitingRoom::new(Bounds { requests: 2, bytes: 10 });
    for name in ["a", "b"] {
        let ticket = room.ticket("m", 1000, None, 5, now());
        room.enter(&ticket, name, now()).unwrap();
    }
    for name in ["c", "d"] {
        let begun = Ticket {
            begun: true,
            ..room.ticket("m", -1000, None, 100, now())
        };
        assert!(room.enter(&begun, name, now()).unwrap().is_empty());
    }
    assert_eq!((room.len(), room.bytes(), room.tenants()), (4, 210, 1));
    assert_eq!(drain(&mut room), ["c", "d", "a", "b"]);
    assert_eq!((room.len(), room.bytes(), room.tenants()), (0, 0, 0));
}

#[test]
fn bytes_enter_and_leave_with_the_request_also_when_it_was_woken_in_vain() {
    let mut room = WaitingRoom::new(Bounds { requests: 9, bytes: 10 });
    let (first, second) = (room.ticket("m", 0, None, 6, now()), room.ticket("m", 0, None, 6, now()));
    room.enter(&first, "first", now()).unwrap();
    assert_eq!(room.enter(&second, "second", now()).unwrap_err(), Full);
    assert_eq!(room.next("m", Features::NONE, now()), Some("first"));
    assert_eq!(room.bytes(), 0);
    room.enter(&second, "second", now()).unwrap();
    // The first comes back from a full worker. It arrived earlier, so it displaces the other.
    let displaced = room.enter(&first, "first", now()).unwrap();
    assert_eq!((displaced.len(), displaced[0].1, room.bytes()), (1, "second", 6));
    room.leave(&first);
    assert_eq!((room.len(), room.bytes(), room.models().count()), (0, 0, 0));
}

#[test]
fn a_line_that_was_woken_in_vain_comes_back_with_its_turns() {
    let mut room = WaitingRoom::new(bounds(10));
    let names = ["x1", "x2", "y1", "y2", "y3"];
    let tickets = names.map(|name| Ticket {
        tokens: if name.starts_with('x') { 100 } else { 1 },
        ..room.ticket("m", 0, Some(name[..1].to_owned()), 1, now())
    });
    for (name, ticket) in names.into_iter().zip(&tickets) {
        room.enter(ticket, name, now()).unwrap();
    }
    assert_eq!(room.next("m", Features::NONE, now()), Some("x1"));
    assert_eq!(room.dissolve("m", Features::NONE), ["x2", "y1", "y2", "y3"]);
    assert_eq!((room.len(), room.bytes(), room.models().count()), (0, 0, 0));
    for (name, ticket) in names.into_iter().zip(&tickets).skip(1) {
        room.enter(ticket, name, now()).unwrap();
    }
    assert_eq!(
        drain(&mut room),
        ["y1", "y2", "y3", "x2"],
        "x has had its hundred tokens"
    );
    assert_eq!((room.len(), room.bytes(), room.models().count()), (0, 0, 0));
}

#[test]
fn a_new_request_is_told_how_many_go_before_it_at_least() {
    let (mut room, start) = (WaitingRoom::new(bounds(1000)), now());
    let enter = |room: &mut WaitingRoom<&'static str>, priority, tenant: &str| {
        let ticket = room.ticket("m", priority, Some(tenant.to_owned()), 0, start);
        room.enter(&ticket, "waits", start).unwrap();
        ticket
    };
    for _ in 0..500 {
        enter(&mut room, 0, "crowd");
    }
    for _ in 0..3 {
        enter(&mut room, 0, "few");
    }
    let first = enter(&mut room, 5, "urgent");
    let mut ahead = |priority, tenant: &str, at| {
        let ticket = room.ticket("m", priority, Some(tenant.to_owned()), 0, start);
        room.ahead(&ticket, at)
    };
    assert_eq!(ahead(0, "crowd", start), Some(500 + 3 + 1));
    assert_eq!(ahead(0, "few", start), Some(3 + 3 + 1), "they take turns");
    assert_eq!(ahead(0, "new", start), Some(1));
    assert_eq!(ahead(5, "crowd", start), Some(0));
    assert_eq!(ahead(5, "urgent", start), Some(1));
    room.give_up(&first, start);
    let last = enter(&mut room, 0, "few");
    room.give_up(&last, start);
    let newest = room.ticket("m", 0, Some("crowd".to_owned()), 0, start);
    assert_eq!(
        room.ahead(&newest, start),
        None,
        "the newest goes first while clients leave"
    );
}

#[test]
fn a_line_for_one_worker_goes_first_unless_the_others_have_begun_or_a_higher_class() {
    let mut room = WaitingRoom::new(Bounds {
        requests: 100,
        bytes: 1000,
    });
    let worker = Name::new("w").unwrap();
    let mut held = room.ticket("m", 0, None, 1, now());
    held.line.worker = Some(worker.clone());
    room.enter(&held, "held", now()).unwrap();
    let goes_first = |room: &WaitingRoom<&str>, does: bool| room.worker_goes_first("m", &worker, |_| does, now());
    let enter = |room: &mut WaitingRoom<&'static str>, priority, begun| {
        let mut ticket = room.ticket("m", priority, None, 1, now());
        ticket.begun = begun;
        room.enter(&ticket, "any", now()).unwrap();
        ticket
    };
    enter(&mut room, 0, false);
    assert!(goes_first(&room, true));
    assert_eq!(room.waiting_in("m", Features::NONE), 1, "lines are counted apart");
    for (priority, begun) in [(5, false), (0, true)] {
        let other = enter(&mut room, priority, begun);
        assert!(!goes_first(&room, true));
        assert!(goes_first(&room, false), "the worker could not serve it");
        room.leave(&other);
    }
    assert_eq!(room.next("m", &held.line, now()), Some("held"));
    assert_eq!(room.next("m", &held.line, now()), None);
}
