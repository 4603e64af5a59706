//! Tests of the stream checker: every way of being wrong, and that cuts do not matter.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use proptest::prelude::*;

use super::*;
use crate::limits::MAX_EVENT_BYTES;
use tokenbus_http_parts::EventParser;

const SIM: Rules = Rules {
    level: Level::Sim,
    usage: true,
    max_tokens: 3,
};
const PROTOCOL: Rules = Rules {
    level: Level::Protocol,
    usage: false,
    max_tokens: 3,
};
const TRANSPORT: Rules = Rules {
    level: Level::Transport,
    usage: false,
    max_tokens: 3,
};

fn chunk(delta: &str, finish: &str) -> String {
    format!(
        "data: {{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\
         \"choices\":[{{\"index\":0,\"delta\":{delta},\"finish_reason\":{finish}}}]}}\n\n"
    )
}

fn content(text: &str) -> String {
    chunk(&format!("{{\"content\":\"{text}\"}}"), "null")
}

fn usage(tokens: u64) -> String {
    format!(
        "data: {{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"choices\":[],\
         \"usage\":{{\"prompt_tokens\":1,\"completion_tokens\":{tokens}}}}}\n\n"
    )
}

const ROLE: &str = "{\"role\":\"assistant\",\"content\":\"\"}";
const DONE: &str = "data: [DONE]\n\n";

fn good() -> Vec<String> {
    vec![
        chunk(ROLE, "null"),
        content("t0 "),
        content("t1 "),
        content("t2 "),
        chunk("{}", "\"length\""),
        usage(3),
        DONE.to_owned(),
    ]
}

/// What the checker says of a stream given in these parts.
fn verdict(rules: Rules, parts: &[&[u8]]) -> (Option<Kind>, u64, u64) {
    let mut parser = EventParser::new(MAX_EVENT_BYTES);
    let mut check = StreamCheck::new(rules);
    let mut output = 0;
    for part in parts {
        parser.push(part, |e| output += u64::from(check.event(e))).unwrap();
    }
    let kind = check.end(parser.is_inside_event()).map(|f| f.kind);
    (kind, check.tokens(), output)
}

fn kind(rules: Rules, stream: &[String]) -> Option<Kind> {
    verdict(rules, &[stream.concat().as_bytes()]).0
}

fn with(at: usize, event: impl Into<String>) -> Vec<String> {
    let mut stream = good();
    stream[at] = event.into();
    stream
}

fn plus(at: usize, event: impl Into<String>) -> Vec<String> {
    let mut stream = good();
    stream.insert(at, event.into());
    stream
}

#[test]
fn a_good_stream_passes_every_level() {
    for rules in [SIM, PROTOCOL, TRANSPORT] {
        assert_eq!(verdict(rules, &[good().concat().as_bytes()]), (None, 3, 3), "{rules:?}");
    }
}

#[test]
fn several_tokens_may_share_an_event() {
    let mut stream = good();
    stream.splice(1..4, [content("t0 t"), content("1 t2 ")]);
    assert_eq!(verdict(SIM, &[stream.concat().as_bytes()]), (None, 3, 2));
}

#[test]
fn each_break_of_the_protocol_is_named() {
    let cases = [
        (with(0, content("t")), Kind::MissingRole),
        (with(0, chunk("{\"role\":\"user\"}", "null")), Kind::MissingRole),
        (with(2, content("t1 ").replace("\"c\"", "\"d\"")), Kind::WrongId),
        (with(2, content("t1 ").replace("\"id\":\"c\",", "")), Kind::WrongId),
        (
            with(2, content("t1 ").replace("completion.chunk", "completion")),
            Kind::WrongObject,
        ),
        (
            with(2, content("t1 ").replace("\"index\":0", "\"index\":1")),
            Kind::UnexpectedChoice,
        ),
        (with(2, "data: {\"id\":\"c\n\n"), Kind::Malformed),
        (plus(5, chunk("{}", "\"length\"")), Kind::FinishTwice),
        (plus(5, content("t3 ")), Kind::AfterFinish),
        (plus(7, usage(3)), Kind::AfterDone),
        (good()[..6].to_vec(), Kind::MissingDone),
        (good()[..4].to_vec(), Kind::Truncated),
        (with(6, "data: [DONE]\n"), Kind::Truncated),
        (with(4, ": nothing\n\n"), Kind::Truncated),
    ];
    for (stream, want) in cases {
        assert_eq!(kind(PROTOCOL, &stream), Some(want), "{}", stream.concat());
        assert_eq!(kind(SIM, &stream), Some(want), "{}", stream.concat());
    }
}

#[test]
fn the_simulated_text_must_be_exact() {
    let mut short = good();
    short.remove(3);
    let cases = [
        (with(2, content("t2 ")), Kind::WrongText),
        (with(2, content("t1")), Kind::WrongText),
        (plus(2, content("t0 ")), Kind::WrongText),
        (short, Kind::WrongLength),
        (with(3, content("t2")), Kind::WrongLength),
        (with(4, chunk("{}", "\"stop\"")), Kind::WrongFinish),
        (with(5, usage(4)), Kind::WrongUsage),
        (with(5, ": no usage\n\n"), Kind::MissingUsage),
    ];
    for (stream, want) in cases {
        assert_eq!(kind(SIM, &stream), Some(want), "{}", stream.concat());
        assert_eq!(kind(PROTOCOL, &stream), None, "{}", stream.concat());
    }
}

#[test]
fn an_error_event_is_a_failure_with_its_code_at_every_level() {
    let error = "data: {\"error\":{\"message\":\"gone\",\"code\":\"worker_lost\"}}\n\n";
    let named = "event: error\ndata: {\"detail\":\"gone\"}\n\n";
    for rules in [SIM, PROTOCOL, TRANSPORT] {
        for (event, code) in [(error, "worker_lost"), (named, "")] {
            let stream = [&good()[..3], &[event.to_owned(), DONE.to_owned()]].concat().concat();
            let mut parser = EventParser::new(MAX_EVENT_BYTES);
            let mut check = StreamCheck::new(rules);
            let mut output = false;
            parser.push(stream.as_bytes(), |e| output |= check.event(e)).unwrap();
            assert!(output);
            let failure = check.end(false).unwrap();
            assert_eq!((failure.kind, failure.code.as_str()), (Kind::ErrorEvent, code));
        }
    }
}

#[test]
fn transport_asks_only_for_an_end() {
    assert_eq!(kind(TRANSPORT, &good()[..6]), None);
    assert_eq!(kind(TRANSPORT, &good()[..4]), Some(Kind::Truncated));
    assert_eq!(kind(TRANSPORT, &with(2, content("x").replace("\"c\"", "\"d\""))), None);
}

#[test]
fn the_next_stream_starts_afresh() {
    let mut parser = EventParser::new(MAX_EVENT_BYTES);
    let mut check = StreamCheck::new(SIM);
    let mut output = false;
    for id in ["a", "a", "b"] {
        let stream = good().concat().replace("\"c\"", &format!("\"{id}\""));
        parser.push(stream.as_bytes(), |e| output |= check.event(e)).unwrap();
        assert_eq!(check.end(false), None);
        check.reset();
    }
    // The shape of the last stream's chunks must not excuse this one's missing role.
    let stream = good()[1..].concat().replace("\"c\"", "\"b\"");
    parser.push(stream.as_bytes(), |e| output |= check.event(e)).unwrap();
    assert!(output);
    assert_eq!(check.end(false).map(|f| f.kind), Some(Kind::MissingRole));
}

#[test]
fn a_whole_answer_is_checked_alike() {
    let body = |object: &str, text: &str, finish: &str, tokens: u64| {
        format!(
            "{{\"id\":\"c\",\"object\":\"{object}\",\"choices\":[{{\"index\":0,\"message\":{{\"role\":\
             \"assistant\",\"content\":\"{text}\"}},\"finish_reason\":{finish}}}],\
             \"usage\":{{\"completion_tokens\":{tokens}}}}}"
        )
    };
    let check = |body: String| {
        let (failure, tokens) = check_unary(SIM, body.as_bytes());
        (failure.map(|f| f.kind), tokens)
    };
    let text = "t0 t1 t2 ";
    assert_eq!(check(body("chat.completion", text, "\"length\"", 3)), (None, 3));
    assert_eq!(check(body("x", text, "\"length\"", 3)).0, Some(Kind::WrongObject));
    assert_eq!(
        check(body("chat.completion", "t0 t2 ", "\"length\"", 3)).0,
        Some(Kind::WrongText)
    );
    assert_eq!(
        check(body("chat.completion", "t0 t1 ", "\"length\"", 2)).0,
        Some(Kind::WrongLength)
    );
    assert_eq!(check(body("chat.completion", text, "null", 3)).0, Some(Kind::Truncated));
    assert_eq!(
        check(body("chat.completion", text, "\"stop\"", 3)).0,
        Some(Kind::WrongFinish)
    );
    assert_eq!(
        check(body("chat.completion", text, "\"length\"", 4)).0,
        Some(Kind::WrongUsage)
    );
    assert_eq!(check("{\"error\":\"x\"}".to_owned()).0, Some(Kind::ErrorEvent));
    assert_eq!(check("<html>".to_owned()).0, Some(Kind::Malformed));
}

/// Streams with random damage: events doubled, dropped, swapped or replaced.
fn damaged() -> impl Strategy<Value = Vec<String>> {
    let extra = prop_oneof![
        Just(content("t1 ")),
        Just(content("\\u00741 ")),
        Just(content("x")),
        Just(chunk(ROLE, "null")),
        Just(chunk("{\"content\":\"t3 \"}", "\"stop\"")),
        Just(": comment\n\n".to_owned()),
        Just("data: {}\n\n".to_owned()),
        Just("data: nonsense\r\n\r\n".to_owned()),
    ];
    prop::collection::vec((0_usize..7, 0_u8..4, extra), 0..4).prop_map(|edits| {
        let mut stream = good();
        for (at, edit, event) in edits {
            let at = at.min(stream.len().saturating_sub(1));
            match edit {
                0 => stream.insert(at, event),
                1 if stream.len() > 1 => drop(stream.remove(at)),
                2 => stream.insert(at, stream[at].clone()),
                _ => stream[at] = event,
            }
        }
        stream
    })
}

proptest! {
    #[test]
    fn boundaries_do_not_matter(
        stream in damaged(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..30),
    ) {
        let text = stream.concat().into_bytes();
        let mut at: Vec<usize> = cuts.iter().map(|c| c.index(text.len() + 1)).collect();
        at.extend([0, text.len()]);
        at.sort_unstable();
        let parts: Vec<&[u8]> = at.windows(2).map(|w| &text[w[0]..w[1]]).collect();
        for rules in [SIM, PROTOCOL, TRANSPORT] {
            prop_assert_eq!(verdict(rules, &parts), verdict(rules, &[&text]));
        }
    }

    #[test]
    fn only_the_good_stream_is_good(stream in damaged()) {
        // Judged by a second, naive reading of the same rules: parse all, then compare.
        let mut want = good();
        want.retain(|e| !e.starts_with(':'));
        let mut got = stream.clone();
        got.retain(|e| !e.starts_with(':'));
        let plain: Vec<String> = got.iter().map(|e| e.replace("\\u0074", "t")).collect();
        if plain == want {
            prop_assert_eq!(kind(SIM, &stream), None);
        } else if kind(SIM, &stream).is_none() {
            // What else may pass: an empty object, a role said twice, text and finish in one event.
            let text: String = plain.concat();
            prop_assert_eq!(text.matches("[DONE]").count(), 1);
            prop_assert_eq!(text.matches("\"length\"").count(), 1);
            let order = ["t0 ", "t1 ", "t2 ", "\"length\"", "\"usage\"", "[DONE]"].map(|w| text.find(w));
            prop_assert!(order.is_sorted() && order[0].is_some(), "{}", text);
        }
    }
}
