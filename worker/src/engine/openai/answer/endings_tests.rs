//! How answers end: with a reason, with `[DONE]` alone, given up, with an error.

use tokenbus_protocol::ErrorCode;

use super::*;

fn finish_reasons(deltas: &Deltas) -> Vec<(u32, &str)> {
    let told = deltas
        .iter()
        .filter_map(|delta| Some((delta.choice, delta.finish_reason.as_deref()?)));
    told.collect()
}

#[test]
fn done_without_a_reason_is_a_finish_by_what_the_choice_has() {
    let (deltas, end) = run(&[LLAMA[1], "[DONE]"]);
    assert_eq!(
        (text(&deltas).as_str(), finish_reasons(&deltas)),
        ("Gra", vec![(0, "stop")])
    );
    end.unwrap();
    let call = r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{}"}}]},"finish_reason":null}]}"#;
    let (deltas, end) = run(&[call, LLAMA[4], "[DONE]"]);
    assert_eq!(finish_reasons(&deltas), [(0, "tool_calls")]);
    assert_eq!(end.unwrap().completion_tokens, Some(2));
    let (deltas, end) = run(&["[DONE]"]);
    assert_eq!(finish_reasons(&deltas), [(0, "stop")], "an empty answer");
    end.unwrap();
    let (deltas, end) = run(&LLAMA);
    assert_eq!(finish_reasons(&deltas), [(0, "length")], "what was said stays");
    end.unwrap();
}

#[test]
fn a_reason_that_openai_does_not_know_is_an_answer_given_up() {
    for reason in [
        r#""abort""#,
        r#""cancelled""#,
        r#""error""#,
        r#""what""#,
        r#"{"type":"abort"}"#,
    ] {
        let last = format!(r#"{{"choices":[{{"index":0,"delta":{{"content":"vi"}},"finish_reason":{reason}}}]}}"#);
        let (deltas, end) = run(&[LLAMA[1], &last, "[DONE]"]);
        assert_eq!(text(&deltas), "Gravi", "what came with it is not lost");
        assert_eq!(finish_reasons(&deltas), []);
        let Err(Stopped::Failed(error)) = end else {
            unreachable!("{reason}: {end:?}")
        };
        assert_eq!((error.code, error.retryable), (ErrorCode::EngineUnavailable, true));
    }
    let why = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"error","error":{"message":"no","code":400}}]}"#;
    let (deltas, end) = run(&[why]);
    assert_eq!(deltas, []);
    let Err(Stopped::Failed(error)) = end else {
        unreachable!("{end:?}")
    };
    assert_eq!((error.code, error.message.as_str()), (ErrorCode::BadRequest, "no"));
}

#[test]
fn other_words_for_openais_reasons_are_translated() {
    for (said, means) in [
        (r#""eos""#, "stop"),
        (r#""MAX_TOKENS""#, "length"),
        (r#"{"type":"length","length":3}"#, "length"),
    ] {
        let last = format!(r#"{{"choices":[{{"index":0,"delta":{{}},"finish_reason":{said}}}]}}"#);
        let (deltas, end) = run(&[LLAMA[1], &last]);
        assert_eq!(finish_reasons(&deltas), [(0, means)]);
        end.unwrap();
    }
}

#[test]
fn an_error_without_its_usual_place_is_one() {
    for form in [
        r#"{"message":"no","code":400}"#,
        r#"[{"error":{"message":"no","code":400}}]"#,
        r#"{"success":false,"errors":[{"message":"no","code":400}]}"#,
        r#"{"status_code":400,"error_msg":"no"}"#,
        r#"{"choices":[{"index":0,"delta":{},"error":{"message":"no","code":400},"finish_reason":null}]}"#,
    ] {
        let (_, end) = run(&[LLAMA[1], form, "[DONE]"]);
        let Err(Stopped::Failed(error)) = end else {
            unreachable!("{form}: {end:?}")
        };
        assert_eq!((error.code, error.message.as_str()), (ErrorCode::BadRequest, "no"));
    }
}

#[test]
fn an_error_that_says_nothing_is_none() {
    for form in [
        r#"{"error":false,"choices":[{"index":0,"delta":{"content":"vi"}}]}"#,
        r#"{"error":{},"choices":[{"index":null,"delta":{"content":"vi"},"error":""}]}"#,
        r#"{"code":0,"msg":"ok","choices":[{"delta":{"content":"vi"}}]}"#,
    ] {
        let (deltas, end) = run(&[LLAMA[1], form, "[DONE]"]);
        assert_eq!(text(&deltas), "Gravi", "{form}");
        end.unwrap();
    }
}
