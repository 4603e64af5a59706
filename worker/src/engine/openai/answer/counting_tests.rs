//! Chunks that say nothing, and what comes beside a usage that the client does not get.

use super::*;

/// The first chunk of vLLM, of llama-server with progress, and of servers that list what is empty.
#[rustfmt::skip]
const EMPTY: [(Counting, &str); 3] = [
    (Counting::Usage, r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""}}],"prompt_text":null,"usage":{"completion_tokens":0}}"#),
    (Counting::Timings { hidden: true }, r#"{"choices":[{"index":0,"delta":{"content":null}}],"prompt_progress":{"total":9}}"#),
    (Counting::Chunks, r#"{"choices":[{"index":0,"delta":{"content":"","reasoning_content":"","tool_calls":[],"refusal":""}}]}"#),
];

#[test]
fn a_chunk_that_says_nothing_is_no_token() {
    for (counting, chunk) in EMPTY {
        let (secrets, mut call) = (Secrets::default(), call(None, 1, 0));
        call.counting = counting;
        let (deltas, _) = run_with(&mut Answer::new(&call, UsageRule::Last, &secrets), &[chunk]);
        assert_eq!(deltas.iter().map(|delta| delta.tokens).sum::<u32>(), 0, "{chunk}");
    }
}

#[test]
fn the_end_of_a_choice_has_what_comes_beside_a_usage_that_the_client_does_not_get() {
    let secrets = Secrets::default();
    let mut quiet = call(None, 1, 0);
    quiet.asked.no_usage_chunk = true;
    let mut answer = Answer::new(&quiet, UsageRule::Last, &secrets);
    let end = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
    assert!(run_with(&mut answer, &[end]).0.is_empty());
    let beside = r#"{"choices":[],"usage":{"completion_tokens":1},"timings":{"n":1}}"#;
    let deltas = run_with(&mut answer, &[beside, "[DONE]"]).0;
    assert_eq!(deltas[0].finish_reason.as_deref(), Some("stop"));
    let chunk = deltas[0].extra.as_ref().unwrap().chunk.as_ref();
    assert_eq!(chunk.unwrap().get(), r#"{"timings":{"n":1}}"#);
}
