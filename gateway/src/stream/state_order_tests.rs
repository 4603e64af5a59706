//! The state machine under any order, loss and repetition of events.

use proptest::prelude::*;

use super::*;

#[test]
fn an_attempt_that_was_promised_and_never_heard_of_is_given_up() {
    let mut bench = Bench::new();
    bench.publish(Some("a"));
    bench.pass(PATIENCE);
    bench.publish(None);
    bench.frame("a", 1, 0, reject("a", RejectReason::Duplicate));
    assert_eq!(bench.pass(limits::ACCEPT_MAX), [Action::Place]);
    assert_eq!(bench.publish(None).floor, 2, "whoever runs an older one replaces it");
    let late = bench.frame("a", 0, 0, accepted("a"));
    assert!(
        cancels(&late, "a", 0) && late.len() == 1,
        "its frames count no more: {late:?}"
    );
    bench.frame("a", 2, 0, accepted("a"));
    assert_eq!(bench.state.worker(), Some(&name("a")));
}

#[test]
fn a_workers_list_tells_what_was_lost_with_a_connection() {
    let held = |worker: &str, place| Event::Held {
        worker: name(worker),
        instance: 1,
        place,
    };
    let mut bench = Bench::running("a");
    bench.frame("a", 0, 1, delta("one "));
    for event in [held("a", Some((0, 2))), held("b", None)] {
        assert!(bench.event(event).is_empty(), "all is there, or it is no affair of b's");
    }
    for lost in [Some((0, 3)), None] {
        let mut bench = Bench::running("a");
        bench.frame("a", 0, 1, delta("one "));
        let actions = bench.event(held("a", lost));
        assert_eq!(actions.last(), Some(&Action::Place), "{lost:?}");
        assert!(bench.publish(Some("b")).resume.is_some());
    }
    let mut bench = Bench::new();
    bench.publish(Some("a"));
    assert!(bench.event(held("a", None)).is_empty(), "it may be on its way");
    let actions = bench.event(held("a", Some((0, 4))));
    assert!(cancels(&actions, "a", 0), "who accepted is not known: {actions:?}");
}

/// The frames of one run: accepted, tokens, finish.
fn life(worker: usize, attempt: u32, tokens: u32) -> Vec<Event> {
    let worker = name(&format!("w{worker}"));
    let first = Body::Accepted(Accepted {
        id: uuid::Uuid::nil(),
        worker: worker.clone(),
        instance: 1,
        queue_position: 0,
        resumable: true,
    });
    let texts = (0..tokens).map(|token| delta(&format!("{worker}a{attempt}t{token} ")));
    let bodies = std::iter::once(first)
        .chain(texts)
        .chain(std::iter::once(finish(u64::from(tokens))));
    bodies
        .zip(0..)
        .map(|(body, seq)| Event::Frame {
            worker: worker.clone(),
            frame: Frame {
                stream: 1,
                attempt,
                seq,
                body,
            },
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Interleaves, loses and repeats the frames of several attempts, with lost workers and timers between them. The client
    /// never sees a token twice, out of order, or of an attempt below the floor, and nothing after the end.
    #[test]
    fn no_order_of_events_lets_a_stale_frame_through(
        steps in prop::collection::vec((0usize..4, 0usize..8), 1..200),
        tokens in 1u32..6,
    ) {
        let mut bench = Bench::new();
        let mut lives: Vec<Vec<Event>> = Vec::new();
        let mut cursors: Vec<usize> = Vec::new();
        let mut seen: Vec<String> = Vec::new();
        let (mut ended, mut current) = (0, None::<Name>);
        let mut actions = vec![Action::Place];
        for (which, what) in steps {
            for action in std::mem::take(&mut actions) {
                prop_assert_eq!(ended, 0, "{:?} after the end", action);
                match action {
                    Action::Place if bench.state.is_choosing() => {
                        let Ok(attempt) = bench.state.publish(Some(name(&format!("w{}", lives.len() % 3))), bench.now, PATIENCE)
                            else { ended += 1; continue };
                        let resumed: String = attempt.resume.iter().flat_map(|r| &r.choices).map(|c| c.text.as_str()).collect();
                        prop_assert_eq!(resumed, seen.concat(), "a resume is what was delivered");
                        lives.push(life(lives.len() % 3, attempt.attempt, tokens));
                        cursors.push(0);
                    }
                    Action::Output(output @ (Output::Written(_) | Output::Anew)) => prop_assert!(false, "{:?}", output),
                    Action::Output(Output::Accepted { worker, .. }) => current = Some(worker),
                    Action::Output(Output::Delta(delta)) => {
                        let text = delta.text.into_owned();
                        let worker = current.as_ref().map(ToString::to_string).unwrap_or_default();
                        prop_assert!(text.starts_with(&worker), "{} from another than {}", text, worker);
                        prop_assert!(!seen.contains(&text), "{} twice", text);
                        seen.push(text);
                    }
                    Action::Output(Output::Finish(finish)) => {
                        prop_assert_eq!(finish.completion_tokens, Some(seen.len() as u64), "usage counts once");
                        ended += 1;
                    }
                    Action::Fail(_) => ended += 1,
                    Action::Place | Action::Taken { .. } | Action::Cancel { .. } => {}
                }
            }
            prop_assert!(ended <= 1);
            if lives.is_empty() { continue; }
            let which = which % lives.len();
            let next = lives[which].get(cursors[which]).cloned();
            match (what, next) {
                (0, _) => actions = bench.pass(Duration::from_millis(300)),
                (1, _) => actions = bench.event(Event::WorkerGone { worker: name(&format!("w{which}")) }),
                (2, _) => cursors[which] += 1, // lost on the way
                (3, Some(event)) => actions = bench.event(event), // and again later: a duplicate
                (_, Some(event)) => { cursors[which] += 1; actions = bench.event(event); }
                (_, None) => {}
            }
            // Within one attempt the tokens are in order.
            for pair in seen.windows(2) {
                let key = |text: &str| text.split_once('t').map(|(run, token)| (run.to_owned(), token.trim().parse::<u32>().unwrap()));
                let (Some(a), Some(b)) = (key(&pair[0]), key(&pair[1])) else { panic!("{pair:?}") };
                prop_assert!(a.0 != b.0 || a.1 + 1 == b.1, "{:?}", pair);
            }
        }
    }
}
