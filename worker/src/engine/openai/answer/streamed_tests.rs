//! Whole answers, as the servers in use send them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use tokenbus_protocol::ErrorCode;

use super::*;

type Deltas = Vec<Delta<'static>>;

fn owned(delta: Delta<'_>) -> Delta<'static> {
    let Delta {
        choice,
        text,
        tokens,
        token_ids,
        finish_reason,
        extra,
    } = delta;
    Delta {
        choice,
        text: text.into_owned().into(),
        tokens,
        token_ids,
        finish_reason,
        extra,
    }
}

fn call(choice: Option<u32>, choices: u32, delivered: u64) -> Call {
    Call {
        body: bytes::Bytes::new(),
        choice,
        choices,
        each: choices,
        echoes: Vec::new(),
        delivered,
        again: 0,
        continues: false,
        seam: Default::default(),
        counting: Counting::Chunks,
        otherwise: None,
        asked: Default::default(),
    }
}

fn run_with(answer: &mut Answer<'_>, events: &[&str]) -> (Deltas, Result<Step, Stopped>) {
    let mut deltas = Vec::new();
    let mut last = Ok(Step::More);
    for data in events {
        let event = Event {
            name: b"",
            data: data.as_bytes(),
        };
        last = answer.event(event, &mut |delta: Delta<'_>| {
            deltas.push(owned(delta));
            Ok(())
        });
        if last != Ok(Step::More) {
            break;
        }
    }
    (deltas, last)
}

fn run(events: &[&str]) -> (Deltas, Result<Finish, Stopped>) {
    let secrets = Secrets::default();
    let mut answer = Answer::new(&call(None, 1, 0), UsageRule::Last, &secrets);
    let (deltas, last) = run_with(&mut answer, events);
    let end = match last {
        Ok(Step::Done) => Ok(answer.finish()),
        Ok(Step::More) => answer.ended().map(|()| answer.finish()).map_err(Stopped::from),
        Err(stopped) => Err(stopped),
    };
    (deltas, end)
}

fn text(deltas: &Deltas) -> String {
    deltas.iter().map(|delta| delta.text.as_ref()).collect()
}
const LLAMA: [&str; 6] = [
    r#"{"choices":[{"finish_reason":null,"index":0,"delta":{"role":"assistant","content":null}}],"created":1,"id":"c","model":"smol","system_fingerprint":"b1","object":"chat.completion.chunk"}"#,
    r#"{"choices":[{"finish_reason":null,"index":0,"delta":{"content":"Gra"}}],"created":1,"id":"c","model":"smol","system_fingerprint":"b1","object":"chat.completion.chunk"}"#,
    r#"{"choices":[{"finish_reason":null,"index":0,"delta":{"content":"vity"}}],"created":1,"id":"c","model":"smol","system_fingerprint":"b1","object":"chat.completion.chunk"}"#,
    r#"{"choices":[{"finish_reason":"length","index":0,"delta":{}}],"created":1,"id":"c","model":"smol","system_fingerprint":"b1","object":"chat.completion.chunk"}"#,
    r#"{"choices":[],"created":1,"id":"c","model":"smol","system_fingerprint":"b1","object":"chat.completion.chunk","usage":{"completion_tokens":2,"prompt_tokens":34,"total_tokens":36,"prompt_tokens_details":{"cached_tokens":0}},"timings":{"cache_n":0}}"#,
    "[DONE]",
];

#[test]
fn a_llama_servers_answer() {
    let (deltas, end) = run(&LLAMA);
    assert_eq!(text(&deltas), "Gravity");
    assert_eq!(deltas.len(), 3, "the role alone is no delta");
    assert_eq!(deltas.iter().map(|delta| delta.tokens).collect::<Vec<_>>(), [1, 1, 0]);
    assert_eq!(
        deltas[0].extra.as_ref().unwrap().fingerprint.as_deref(),
        Some("b1"),
        "once, with the first"
    );
    assert!(deltas[1].extra.is_none(), "plain text needs no box");
    assert_eq!(deltas[2].finish_reason.as_deref(), Some("length"));
    let finish = end.unwrap();
    assert_eq!((finish.prompt_tokens, finish.completion_tokens), (Some(34), Some(2)));
    assert!(finish.usage.unwrap().get().contains("prompt_tokens_details"));
    assert_eq!(finish.chunk.unwrap().get(), r#"{"timings":{"cache_n":0}}"#);
}

#[test]
fn without_done_a_clean_end_counts_when_every_choice_is_complete() {
    let (_, end) = run(&LLAMA[..5]);
    assert_eq!(end.unwrap().completion_tokens, Some(2));
}

#[test]
fn an_end_before_the_finish_is_a_failure() {
    for count in 0..3 {
        let (_, end) = run(&LLAMA[..count]);
        let Err(Stopped::Failed(error)) = end else {
            unreachable!("cut after {count}: {end:?}")
        };
        assert_eq!((error.code, error.retryable), (ErrorCode::EngineUnavailable, true));
    }
}

#[test]
fn of_several_choices_each_must_finish() {
    let secrets = Secrets::default();
    let done = |index: u32| format!(r#"{{"choices":[{{"index":{index},"delta":{{}},"finish_reason":"stop"}}]}}"#);
    let mut answer = Answer::new(&call(None, 2, 0), UsageRule::Last, &secrets);
    run_with(&mut answer, &[&done(1)]).1.unwrap();
    assert!(answer.ended().is_err(), "choice 0 has not even begun");
    let mut one = Answer::new(&call(None, 2, 0), UsageRule::Last, &secrets);
    let (_, last) = run_with(&mut one, &[&done(0), "[DONE]"]);
    assert_eq!(
        last,
        Ok(Step::Done),
        "an engine that passes over `n` says itself that it is done"
    );
    run_with(&mut answer, &[&done(0)]).1.unwrap();
    assert!(answer.ended().is_ok());
}

#[test]
fn an_error_in_the_stream_fails_it() {
    let cases = [
        r#"{"error":{"message":"out of memory","type":"server_error","code":500}}"#,
        r#"{"object":"error","message":"out of memory","code":500}"#,
    ];
    for case in cases {
        let (deltas, end) = run(&[LLAMA[1], case, "[DONE]"]);
        assert_eq!(text(&deltas), "Gra");
        let Err(Stopped::Failed(error)) = end else {
            unreachable!("{end:?}")
        };
        assert_eq!(
            (error.code, error.message.as_str()),
            (ErrorCode::Internal, "out of memory")
        );
    }
}

#[test]
fn nonsense_fails_it() {
    for bad in ["nope", "{", "[]", r#"{"choices":[{"index":-1}]}"#, r#"{"choices":{}}"#] {
        let (_, end) = run(&[bad]);
        assert!(matches!(end, Err(Stopped::Failed(_))), "{bad}");
    }
    let secrets = Secrets::default();
    let mut answer = Answer::new(&call(None, 1, 0), UsageRule::Last, &secrets);
    let event = Event {
        name: b"",
        data: b"\xff",
    };
    assert!(answer.event(event, &mut |_| Ok(())).is_err());
}

#[test]
fn a_closed_sink_stops_it() {
    let secrets = Secrets::default();
    let mut answer = Answer::new(&call(None, 1, 0), UsageRule::Last, &secrets);
    let event = Event {
        name: b"",
        data: LLAMA[1].as_bytes(),
    };
    assert_eq!(answer.event(event, &mut |_| Err(Closed)), Err(Stopped::Closed));
}

#[test]
fn reasoning_and_tool_calls_pass_and_count() {
    let (deltas, _) = run(&[
        r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":"","reasoning_content":"hm"}}]}"#,
        r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":""}}]}}]}"#,
        r#"{"choices":[{"index":0,"delta":{"content":null,"x":1}}]}"#,
    ]);
    let extra = |index: usize| {
        deltas[index]
            .extra
            .as_ref()
            .unwrap()
            .delta
            .as_ref()
            .unwrap()
            .get()
            .to_owned()
    };
    assert_eq!(extra(0), r#"{"reasoning_content":"hm"}"#);
    assert_eq!(
        extra(1),
        r#"{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":""}}]}"#
    );
    assert_eq!(extra(2), r#"{"x":1}"#);
    assert_eq!(deltas.iter().map(|delta| delta.tokens).collect::<Vec<_>>(), [1, 1, 0]);
}

#[test]
fn unknown_members_reach_the_delta_at_each_level() {
    let (deltas, _) = run(&[
        r#"{"x_chunk":1,"choices":[{"index":0,"delta":{"content":"a"},"x_choice":2},{"index":1,"delta":{"content":"b"}}]}"#,
        r#"{"x_chunk":3,"choices":[{"index":1,"delta":{}}]}"#,
    ]);
    let extra = deltas[0].extra.as_ref().unwrap();
    assert_eq!(extra.chunk.as_ref().unwrap().get(), r#"{"x_chunk":1}"#);
    assert_eq!(extra.choice.as_ref().unwrap().get(), r#"{"x_choice":2}"#);
    assert!(deltas[1].extra.is_none(), "the chunk's members go out once");
    assert_eq!((deltas[2].choice, deltas[2].text.as_ref()), (1, ""));
    assert_eq!(
        deltas[2].extra.as_ref().unwrap().chunk.as_ref().unwrap().get(),
        r#"{"x_chunk":3}"#
    );
}

#[test]
fn logprobs_and_token_ids_tell_the_count() {
    let (deltas, _) = run(&[
        r#"{"choices":[{"index":0,"delta":{"content":"ab"},"logprobs":{"content":[{"token":"a"},{"token":"b"}]}}]}"#,
        r#"{"choices":[{"index":0,"text":"ab","logprobs":{"tokens":["a","b","c"]}}]}"#,
        r#"{"choices":[{"index":0,"delta":{"content":"abcd"},"token_ids":[5,6,7,8]}]}"#,
        r#"{"choices":[{"index":0,"delta":{"content":"a"},"logprobs":{"content":[]}}]}"#,
    ]);
    assert_eq!(
        deltas.iter().map(|delta| delta.tokens).collect::<Vec<_>>(),
        [2, 3, 4, 1]
    );
    assert_eq!(deltas[2].token_ids, [5, 6, 7, 8]);
    assert!(
        deltas[0]
            .extra
            .as_ref()
            .unwrap()
            .logprobs
            .as_ref()
            .unwrap()
            .get()
            .contains("\"token\":\"a\"")
    );
}

#[test]
fn usage_after_the_finish_counts_and_the_last_one_wins() {
    let (_, end) = run(&[
        r#"{"choices":[{"index":0,"delta":{"content":"a"}}],"usage":{"prompt_tokens":3,"completion_tokens":1}}"#,
        r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2}}"#,
        r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}"#,
        "[DONE]",
    ]);
    let finish = end.unwrap();
    assert_eq!((finish.prompt_tokens, finish.completion_tokens), (Some(3), Some(2)));
    assert!(finish.usage.unwrap().get().contains("total_tokens"));
}

#[test]
fn llama_servers_usages_of_several_choices_add_up() {
    let secrets = Secrets::default();
    let mut answer = Answer::new(&call(None, 2, 0), UsageRule::PerChoice, &secrets);
    let usage = r#"{"choices":[],"usage":{"prompt_tokens":31,"completion_tokens":2,"total_tokens":33,"prompt_tokens_details":{"cached_tokens":9}}}"#;
    run_with(&mut answer, &[usage, usage]).1.unwrap();
    let finish = answer.finish();
    assert_eq!((finish.prompt_tokens, finish.completion_tokens), (Some(31), Some(4)));
    let told =
        r#"{"prompt_tokens":31,"completion_tokens":4,"total_tokens":35,"prompt_tokens_details":{"cached_tokens":9}}"#;
    assert_eq!(finish.usage.unwrap().get(), told);
}

#[test]
fn a_continued_answer_does_not_count_its_beginning_as_prompt() {
    let secrets = Secrets::default();
    let mut answer = Answer::new(&call(Some(3), 1, 10), UsageRule::PerChoice, &secrets);
    let (deltas, _) = run_with(
        &mut answer,
        &[
            r#"{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}]}"#,
            r#"{"choices":[],"usage":{"prompt_tokens":41,"completion_tokens":1}}"#,
        ],
    );
    assert_eq!(deltas[0].choice, 3, "the client's index");
    assert_eq!(answer.finish().prompt_tokens, Some(31));
}

#[test]
fn answers_of_single_choices_become_one() {
    let one = |prompt, completion| Finish {
        prompt_tokens: prompt,
        completion_tokens: completion,
        usage: RawJson::new("{}").ok(),
        ..Finish::default()
    };
    assert_eq!(
        merge(vec![one(Some(3), Some(4))]),
        one(Some(3), Some(4)),
        "one stays as it is"
    );
    let merged = merge(vec![one(Some(3), Some(4)), one(Some(3), Some(6))]);
    assert_eq!(
        (merged.prompt_tokens, merged.completion_tokens, merged.usage),
        (Some(3), Some(10), None)
    );
    assert_eq!(
        merge(vec![one(None, Some(1)), one(None, None)]).completion_tokens,
        None,
        "unknown stays unknown"
    );
    assert_eq!(merge(vec![]).completion_tokens, Some(0));
}

proptest::proptest! {
    /// Whatever bytes come, at whatever boundaries: no panic, and nothing but errors and deltas.
    #[test]
    fn any_bytes_are_survived(chunks in proptest::collection::vec(proptest::collection::vec(proptest::num::u8::ANY, 0..64), 0..16)) {
        let mut parser = tokenbus_http_parts::EventParser::new(4096);
        let secrets = Secrets::default();
        let mut answer = Answer::new(&call(None, 1, 0), UsageRule::Last, &secrets);
        for chunk in &chunks {
            let mut unread = chunk.as_slice();
            while let Ok(Some(event)) = parser.next(&mut unread) {
                let _ = answer.event(event, &mut |_| Ok(()));
            }
        }
        proptest::prop_assert!(answer.ended().is_err());
    }

    /// Damaged chunks: one byte of a real one replaced.
    #[test]
    fn damaged_chunks_are_survived(which in 0_usize..5, at in 0_usize..400, byte in 0_u8..128) {
        let mut data = LLAMA[which].as_bytes().to_vec();
        let place = at % data.len();
        data[place] = byte;
        let secrets = Secrets::default();
        let mut answer = Answer::new(&call(None, 1, 0), UsageRule::Last, &secrets);
        let _ = answer.event(Event { name: b"", data: &data }, &mut |_| Ok(()));
    }

    /// Any text comes out as it went in, however it is escaped.
    #[test]
    fn any_text_passes(content in ".*") {
        let plain = serde_json::json!({"choices": [{"index": 0, "delta": {"content": content}}]}).to_string();
        let escaped: String = content.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
        let escaped = format!(r#"{{"choices":[{{"index":0,"delta":{{"content":"{escaped}"}}}}]}}"#);
        for chunk in [plain, escaped] {
            let (deltas, _) = run(&[&chunk]);
            proptest::prop_assert_eq!(text(&deltas), content.clone());
        }
    }
}

#[test]
fn each_prompts_tokens_count_once_however_many_choices_it_has() {
    let secrets = Secrets::default();
    let two_prompts_of_two = Call {
        each: 2,
        ..call(None, 4, 0)
    };
    let mut answer = Answer::new(&two_prompts_of_two, UsageRule::PerChoice, &secrets);
    let ends = (0..4).map(|index| {
        let prompt = if index < 2 { 5 } else { 3 };
        format!(
            r#"{{"choices":[{{"text":"","index":{index},"finish_reason":"length"}}],"usage":{{"prompt_tokens":{prompt},"completion_tokens":10}}}}"#
        )
    });
    let events: Vec<String> = std::iter::once("null".to_owned())
        .chain(ends)
        .chain(["[DONE]".to_owned()])
        .collect();
    let events: Vec<&str> = events.iter().map(String::as_str).collect();
    let (deltas, last) = run_with(&mut answer, &events);
    assert_eq!((deltas.len(), last), (4, Ok(Step::Done)));
    let finish = answer.finish();
    assert_eq!((finish.prompt_tokens, finish.completion_tokens), (Some(8), Some(40)));
}

proptest::proptest! {
    /// Chunks of one shape, and of others between them, say what they say each alone.
    #[test]
    fn chunks_of_one_shape_are_read_as_if_each_were_the_only_one(
        texts in proptest::collection::vec((".{0,8}|[\"\\\\,:}n]{0,6}", 0..5_u8), 0..20),
    ) {
        let chunk = |text: &str, shape: u8| {
            let text = serde_json::to_string(text).unwrap();
            match shape {
                0 => format!(r#"{{"choices":[{{"delta":{{"content":{text}}},"index":0,"finish_reason":"stop"}}]}}"#),
                1 => format!(r#"{{"choices":[{{"delta":{{"content":{text},"x":1}},"index":0,"finish_reason":null}}]}}"#),
                _ => format!(r#"{{"choices":[{{"delta":{{"content":{text}}},"index":0,"finish_reason":null}}]}}"#),
            }
        };
        let events: Vec<String> = texts.iter().map(|(text, shape)| chunk(text, *shape)).collect();
        let together = run(&events.iter().map(String::as_str).collect::<Vec<_>>()).0;
        let alone = events.iter().flat_map(|event| run(&[event.as_str()]).0);
        proptest::prop_assert_eq!(together, alone.collect::<Vec<_>>());
    }
}

fn counting(counting: Counting, choices: u32) -> Call {
    Call {
        counting,
        ..call(None, choices, 0)
    }
}

fn timed(text: &str, predicted: u32) -> String {
    format!(
        r#"{{"choices":[{{"finish_reason":null,"index":0,"delta":{{"content":"{text}"}}}}],"object":"chat.completion.chunk","timings":{{"prompt_n":33,"predicted_n":{predicted},"predicted_ms":20.5}}}}"#
    )
}

#[test]
fn a_character_of_several_tokens_counts_as_the_engine_says_and_the_client_does_not_see_how() {
    let secrets = Secrets::default();
    let call = counting(Counting::Timings { hidden: true }, 1);
    let mut answer = Answer::new(&call, UsageRule::PerChoice, &secrets);
    let events = [timed("😀", 3), timed("你", 5), timed("a", 6), timed("\\n🚀", 9)];
    let end = [
        r#"{"choices":[{"finish_reason":"length","index":0,"delta":{}}]}"#,
        r#"{"choices":[],"usage":{"completion_tokens":11,"prompt_tokens":33},"timings":{"predicted_n":11}}"#,
        "[DONE]",
    ];
    let events: Vec<&str> = events.iter().map(String::as_str).chain(end).collect();
    let (deltas, last) = run_with(&mut answer, &events);
    assert_eq!(last, Ok(Step::Done));
    let told: Vec<_> = deltas.iter().map(|delta| (delta.text.as_ref(), delta.tokens)).collect();
    assert_eq!(told, [("😀", 3), ("你", 2), ("a", 1), ("\n🚀", 3), ("", 0)]);
    assert!(deltas.iter().all(|delta| delta.extra.is_none()));
    let finish = answer.finish();
    assert_eq!(finish.completion_tokens, Some(11));
    assert!(
        finish.chunk.unwrap().get().contains("timings"),
        "they come with each answer's end"
    );
}

#[test]
fn timings_that_the_client_asked_for_reach_it() {
    let secrets = Secrets::default();
    let call = counting(Counting::Timings { hidden: false }, 1);
    let mut answer = Answer::new(&call, UsageRule::PerChoice, &secrets);
    let (deltas, _) = run_with(&mut answer, &[&timed("😀", 3), &timed("你", 5)]);
    assert_eq!(deltas.iter().map(|delta| delta.tokens).collect::<Vec<_>>(), [3, 2]);
    let shown = |delta: &Delta<'_>| delta.extra.as_ref().unwrap().chunk.as_ref().unwrap().get().to_owned();
    assert!(deltas.iter().all(|delta| shown(delta).contains("predicted_n")));
}

#[test]
fn several_tokens_in_one_chunk_count_by_its_usage_for_each_choice() {
    let secrets = Secrets::default();
    let mut answer = Answer::new(&counting(Counting::Usage, 2), UsageRule::Last, &secrets);
    let chunk = |index: u32, text: &str, completion: u32| {
        format!(
            r#"{{"choices":[{{"index":{index},"delta":{{"content":"{text}"}}}}],"usage":{{"prompt_tokens":4,"completion_tokens":{completion}}}}}"#
        )
    };
    let events = [
        r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""}}],"usage":{"completion_tokens":0}}"#.into(),
        chunk(0, "a b", 2),
        chunk(0, "c", 3),
        chunk(1, "x", 1),
        chunk(1, "y z", 5),
        chunk(0, "d", 4),
        r#"{"choices":[{"index":0,"delta":{"content":"e"}}]}"#.into(),
    ];
    let events: Vec<&str> = events.iter().map(String::as_str).collect();
    let (deltas, _) = run_with(&mut answer, &events);
    let told: Vec<_> = deltas.iter().map(|delta| (delta.choice, delta.tokens)).collect();
    assert_eq!(told, [(0, 2), (0, 1), (1, 1), (1, 4), (0, 1), (0, 1)]);
    assert!(deltas.iter().all(|delta| delta.extra.is_none()));
}

#[path = "counting_tests.rs"]
mod counting;

#[path = "endings_tests.rs"]
mod endings;
