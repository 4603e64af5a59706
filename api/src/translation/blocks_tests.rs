//! Deltas of every cut become the same blocks.

use proptest::prelude::*;
use serde_json::json;
use tokenbus_protocol::RawJson;

use super::*;
use crate::limits::MAX_TOOL_CALLS;

/// The blocks as they were told.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Told(Vec<(Block, String, String)>, bool);

impl BlockSink for Told {
    fn open(&mut self, block: Block) {
        assert!(
            !std::mem::replace(&mut self.1, true),
            "the block before is closed first"
        );
        self.0.push((block, String::new(), String::new()));
    }

    fn append(&mut self, text: &str, logprobs: &str) {
        assert!(self.1, "what grows is open");
        let last = self.0.last_mut().unwrap();
        last.1.push_str(text);
        push_elements(&mut last.2, logprobs);
    }

    fn close(&mut self) {
        assert!(std::mem::replace(&mut self.1, false), "what is closed is open");
    }
}

fn text(text: &str) -> Delta<'static> {
    Delta {
        text: text.to_owned().into(),
        ..Delta::default()
    }
}

fn extra(members: serde_json::Value) -> Delta<'static> {
    let extra = DeltaExtra {
        delta: Some(RawJson::new(members.to_string()).unwrap()),
        ..DeltaExtra::default()
    };
    Delta {
        extra: Some(Box::new(extra)),
        ..Delta::default()
    }
}

fn call(index: u64, id: Option<&str>, name: Option<&str>, arguments: &str) -> Delta<'static> {
    let function = json!({"name": name, "arguments": arguments});
    extra(json!({"tool_calls": [{"index": index, "id": id, "type": "function", "function": function}]}))
}

fn sort(deltas: &[Delta<'static>]) -> (Vec<(Block, String, String)>, Ending) {
    let (mut blocks, mut told) = (Blocks::default(), Told::default());
    for delta in deltas {
        blocks.delta(delta, &mut told).unwrap();
    }
    let ending = blocks.finish(true, &mut told).unwrap();
    assert!(!told.1, "all is closed at the end");
    (told.0, ending)
}

fn of_call(id: &str, name: &str) -> Block {
    Block::Call {
        id: id.to_owned(),
        name: name.to_owned(),
        custom: false,
    }
}

fn block(block: Block, text: &str) -> (Block, String, String) {
    (block, text.to_owned(), String::new())
}

#[test]
fn reasoning_text_and_calls_come_one_after_the_other() {
    let (told, ending) = sort(&[
        extra(json!({"reasoning_content": "why "})),
        extra(json!({"reasoning": "not", "reasoning_content": null})),
        text("So"),
        text(" be it"),
        call(0, Some("c0"), Some("f"), ""),
        call(0, None, None, "{\"a\":"),
        call(0, None, None, "1}"),
        call(1, Some("c1"), Some("g"), "{}"),
    ]);
    let want = [
        block(Block::Reasoning, "why not"),
        block(Block::Text, "So be it"),
        block(of_call("c0", "f"), "{\"a\":1}"),
        block(of_call("c1", "g"), "{}"),
    ];
    assert_eq!(told, want);
    assert!(ending.calls && !ending.refused);
}

#[test]
fn the_same_reasoning_under_both_names_is_told_once() {
    let (told, _) = sort(&[extra(json!({"reasoning": "a", "reasoning_content": "a"}))]);
    assert_eq!(told, [block(Block::Reasoning, "a")]);
}

#[test]
fn pieces_of_calls_that_come_mixed_are_told_in_order() {
    let (told, _) = sort(&[
        call(0, Some("c0"), Some("f"), ""),
        call(1, Some("c1"), Some("g"), ""),
        call(1, None, None, "{\"x\":\"}"),
        call(0, None, None, "{\"a\":"),
        text("beside"),
        call(1, None, None, "\"}"),
        call(0, None, None, "[1]}"),
        call(0, None, None, " "),
    ]);
    let want = [
        block(of_call("c0", "f"), "{\"a\":[1]}"),
        block(of_call("c1", "g"), "{\"x\":\"}\"}"),
        block(Block::Text, "beside"),
    ];
    assert_eq!(told, want);
}

#[test]
fn a_call_that_never_becomes_whole_is_told_as_far_as_it_came() {
    let (told, _) = sort(&[
        call(0, Some("c0"), Some("f"), "{\"a\":"),
        call(1, Some("c1"), Some("g"), "{\"b\""),
        call(2, Some("c2"), None, "{}"),
    ]);
    let want = [
        block(of_call("c0", "f"), "{\"a\":"),
        block(of_call("c1", "g"), "{\"b\""),
        block(of_call("c2", ""), "{}"),
    ];
    assert_eq!(told, want);
}

#[test]
fn names_ids_and_input_come_in_any_order_and_shape() {
    let (told, _) = sort(&[
        extra(json!({"tool_calls": [{"index": 0, "function": {"arguments": "{\"a\""}}]})),
        extra(json!({"tool_calls": [{"index": 0, "id": "", "function": {"name": "", "arguments": null}}]})),
        extra(json!({"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": ":1}"}}]})),
        // An engine that numbers nothing and has objects for texts.
        extra(json!({"tool_calls": [{"id": "d", "function": {"name": "g", "arguments": {"b": 2}}}]})),
        extra(
            json!({"tool_calls": [{"index": 5, "id": "e", "type": "custom", "custom": {"name": "h", "input": "any"}}]}),
        ),
    ]);
    assert_eq!(told[0], block(of_call("c", "f"), "{\"a\":1}"));
    assert_eq!(told[1], block(of_call("d", "g"), "{\"b\":2}"));
    let custom = Block::Call {
        id: "e".to_owned(),
        name: "h".to_owned(),
        custom: true,
    };
    assert_eq!(told[2], block(custom, "any"));
}

#[test]
fn blank_text_gets_no_block_of_its_own_unless_it_is_all() {
    let (told, _) = sort(&[
        extra(json!({"reasoning_content": "\n"})),
        text("\n\n"),
        call(0, Some("c0"), Some("f"), "{}"),
        text("\n"),
        call(1, Some("c1"), Some("g"), "{}"),
    ]);
    assert_eq!(told, [block(of_call("c0", "f"), "{}"), block(of_call("c1", "g"), "{}")]);
    assert_eq!(sort(&[text(" "), text("\n")]).0, [block(Block::Text, " \n")]);
    assert_eq!(sort(&[text(" "), text("a")]).0, [block(Block::Text, " a")]);
    assert_eq!(sort(&[text("")]).0, [block(Block::Text, "")]);
}

#[test]
fn an_answer_without_text_has_no_block_where_none_is_wanted() {
    let (mut blocks, mut told) = (Blocks::default(), Told::default());
    blocks.delta(&text(""), &mut told).unwrap();
    blocks.finish(false, &mut told).unwrap();
    assert!(told.0.is_empty());
    let nothing = Blocks::default().finish(true, &mut told);
    assert_eq!(nothing, Err(AnswerError::NoAnswer));
}

#[test]
fn log_probabilities_stay_with_their_text() {
    let with = |text: &str, logprobs: &str| {
        let extra = DeltaExtra {
            logprobs: Some(RawJson::new(logprobs).unwrap()),
            ..DeltaExtra::default()
        };
        Delta {
            text: text.to_owned().into(),
            extra: Some(Box::new(extra)),
            ..Delta::default()
        }
    };
    let (told, _) = sort(&[
        with(" ", r#"{"content":[{"t":0}]}"#),
        with("a", r#"{"content":[ {"t":1},{"t":2} ],"refusal":null}"#),
        // Half a character: the token is told before its text.
        with("", r#"{"content":[{"t":3}]}"#),
        with("b", r#"{"content":null}"#),
    ]);
    let logprobs = r#"{"t":0},{"t":1},{"t":2},{"t":3}"#.to_owned();
    assert_eq!(told, [(Block::Text, " ab".to_owned(), logprobs)]);
}

#[test]
fn the_end_is_noted() {
    let ends = |reason: &str, choice: &str| {
        let extra = DeltaExtra {
            choice: Some(RawJson::new(choice).unwrap()),
            ..DeltaExtra::default()
        };
        let delta = Delta {
            text: "x".into(),
            tokens: 3,
            finish_reason: Some(reason.to_owned()),
            extra: Some(Box::new(extra)),
            ..Delta::default()
        };
        sort(&[text("y"), delta]).1
    };
    let ending = ends("stop", r#"{"stop_reason":"END"}"#);
    assert_eq!(
        (ending.reason.as_deref(), ending.stop.as_deref()),
        (Some("stop"), Some("END"))
    );
    assert_eq!(ending.tokens, 4);
    assert_eq!(ends("stop", "{\"matched_stop\":\"##\"}").stop.as_deref(), Some("##"));
    assert_eq!(ends("stop", r#"{"stop_reason":128009}"#).stop, None);
    assert_eq!(
        sort(&[extra(json!({"refusal": "no"}))]).0,
        [block(Block::Refusal, "no")]
    );
}

#[test]
fn other_choices_are_passed_over_and_impossible_ones_refused() {
    let other = Delta { choice: 1, ..text("b") };
    assert_eq!(sort(&[text("a"), other]).0, [block(Block::Text, "a")]);
    let impossible = Delta {
        choice: MAX_CHOICES,
        ..text("c")
    };
    let error = Blocks::default().delta(&impossible, &mut Told::default());
    assert_eq!(error, Err(AnswerError::TooManyChoices(MAX_CHOICES)));
}

#[test]
fn calls_without_number_are_bounded() {
    let mut deltas = Vec::new();
    for n in 0..MAX_TOOL_CALLS as u64 + 10 {
        deltas.push(call(n, Some(&format!("c{n}")), Some("f"), "{}"));
    }
    assert_eq!(sort(&deltas).0.len(), MAX_TOOL_CALLS);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// However the engine cuts and mixes, the blocks are those that it means.
    #[test]
    fn every_cut_and_mix_gives_the_same_blocks(
        reasoning in "[a-z ]{0,12}",
        said in "[a-z \"{}\\n]{0,20}",
        calls in prop::collection::vec("[a-z}{\"\\\\]{0,12}", 0..5),
        cuts in prop::collection::vec(1usize..6, 40),
        order in prop::collection::vec(any::<prop::sample::Index>(), 60),
    ) {
        let inputs: Vec<String> = calls.iter().map(|text| json!({"k": text, "l": [text, {}]}).to_string()).collect();
        let mut cuts = cuts.into_iter().cycle();
        let mut pieces = |text: &str| -> Vec<String> {
            let chars: Vec<char> = text.chars().collect();
            let mut rest = &chars[..];
            let mut out = Vec::new();
            while !rest.is_empty() {
                let (piece, more) = rest.split_at(cuts.next().unwrap().min(rest.len()));
                out.push(piece.iter().collect());
                rest = more;
            }
            out
        };
        let mut deltas = Vec::new();
        deltas.extend(pieces(&reasoning).iter().map(|text| extra(json!({"reasoning_content": text}))));
        deltas.extend(pieces(&said).iter().map(|piece| text(piece)));
        let mut queues: Vec<VecDeque<String>> = inputs.iter().map(|input| pieces(input).into()).collect();
        for (n, _) in inputs.iter().enumerate() {
            deltas.push(call(n as u64, Some(&format!("c{n}")), Some(&format!("f{n}")), ""));
        }
        let mut order = order.into_iter().cycle();
        while queues.iter().any(|queue| !queue.is_empty()) {
            let waiting: Vec<usize> = (0..queues.len()).filter(|n| !queues[*n].is_empty()).collect();
            let n = *order.next().unwrap().get(&waiting);
            let piece = queues[n].pop_front().unwrap();
            deltas.push(call(n as u64, None, None, &piece));
        }
        deltas.push(text(""));

        let mut want = Vec::new();
        if !reasoning.trim().is_empty() {
            want.push(block(Block::Reasoning, &reasoning));
        }
        if !said.trim().is_empty() || (want.is_empty() && inputs.is_empty()) {
            want.push(block(Block::Text, &said));
        }
        for (n, input) in inputs.iter().enumerate() {
            want.push(block(of_call(&format!("c{n}"), &format!("f{n}")), input));
        }
        prop_assert_eq!(sort(&deltas).0, want);
    }

    /// Whatever an engine sends, blocks are opened and closed in turn.
    #[test]
    fn anything_is_sorted(
        members in prop::collection::vec(prop::sample::select(&[
            "{}", "{\"tool_calls\":7}", "{\"tool_calls\":[]}", "{\"tool_calls\":[{}]}", "{\"reasoning\":{}}",
            "{\"reasoning\":\"r\"}", "{\"tool_calls\":[{\"index\":0}]}", "{\"refusal\":\"no\"}",
            "{\"tool_calls\":[{\"index\":1,\"id\":\"a\",\"function\":{\"name\":\"f\",\"arguments\":\"{\"}}]}",
            "{\"tool_calls\":[{\"id\":\"a\",\"function\":{\"arguments\":\"}\"}}]}",
            "{\"tool_calls\":[{\"index\":2,\"id\":\"a\",\"function\":{\"name\":\"g\"}}]}",
        ][..]), 0..12),
        texts in prop::collection::vec("[a \\n]{0,2}", 12),
    ) {
        let deltas: Vec<Delta<'static>> = members.iter().zip(texts).map(|(members, said)| Delta {
            text: said.into(),
            ..extra(serde_json::from_str(members).unwrap())
        }).collect();
        prop_assume!(!deltas.is_empty());
        sort(&deltas);
    }
}
