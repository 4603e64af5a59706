//! Tests of the plan for a request.

use super::*;

pub(in crate::engine) fn job(body: &str, resume: Option<Resume>) -> Job {
    Job {
        id: uuid::Uuid::nil(),
        kind: RequestKind::Chat,
        model: "m".to_owned(),
        body: Bytes::copy_from_slice(body.as_bytes()),
        prompt: Default::default(),
        deadline: std::time::Instant::now(),
        resume,
        trace: None,
    }
}

fn plan(body: &str) -> Plan {
    Plan::new(&job(body, None), None).unwrap()
}

#[test]
fn the_newer_limit_wins_and_an_answer_without_one_ends_by_itself() {
    assert_eq!(plan(r#"{"messages":[]}"#).max, 16);
    assert_eq!(plan(r#"{"max_tokens":3}"#).max, 3);
    assert_eq!(plan(r#"{"max_tokens":3,"max_completion_tokens":5}"#).max, 5);
    let natural = plan(r#"{"max_tokens":null}"#);
    assert_eq!((natural.max, natural.at_end), (16, "stop"));
    assert_eq!(plan(r#"{"max_tokens":16}"#).at_end, "length");
}

#[test]
fn words_of_texts_and_parts_are_prompt_tokens() {
    let body = r#"{"messages":[{"role":"system","content":"you are  kind"},
        {"role":"user","content":[{"type":"text","text":"a b"},{"type":"image_url","image_url":{"url":"x y"}}]},
        {"role":"assistant","content":null}]}"#;
    assert_eq!(plan(body).prompt_tokens, 5);
    assert_eq!(plan(r#"{"prompt":"a b c"}"#).prompt_tokens, 3);
    assert_eq!(plan(r#"{"prompt":["a","b c"]}"#).prompt_tokens, 3);
    assert_eq!(plan(r#"{"prompt":[1,2]}"#).prompt_tokens, 2);
}

#[test]
fn sampling_and_unknown_fields_are_accepted() {
    let body = r#"{"temperature":0.5,"top_p":1,"seed":7,"stop":["x"],"logit_bias":{"1":2},"whatever":{"a":[]}}"#;
    assert_eq!(plan(body).choices.len(), 1);
}

#[test]
fn what_cannot_be_served_is_a_bad_request() {
    for (body, param) in [
        ("nope", None),
        (r#"{"n":0}"#, Some("n")),
        (r#"{"n":129}"#, Some("n")),
        (r#"{"sim":{"eror_after":1}}"#, None),
    ] {
        let error = Plan::new(&job(body, None), None).unwrap_err();
        assert_eq!((error.code, error.retryable), (ErrorCode::BadRequest, false), "{body}");
        assert_eq!(error.param.as_deref(), param, "{body}");
    }
    let unknown = Job {
        kind: RequestKind::Other,
        ..job("[]", None)
    };
    assert!(Plan::new(&unknown, None).is_err());
}

#[test]
fn each_prompt_of_a_completion_has_its_choices_and_its_echo() {
    let completion = Job {
        kind: RequestKind::Completion,
        ..job(r#"{"prompt":["a b","c"],"n":2,"echo":true,"logprobs":3}"#, None)
    };
    let plan = Plan::new(&completion, None).unwrap();
    assert_eq!((plan.choices.len(), plan.logprobs, plan.is_text), (4, Some(3), true));
    assert_eq!(plan.echoes, ["a b", "a b", "c", "c"]);
    let ids = Job {
        kind: RequestKind::Completion,
        ..job(r#"{"prompt":[[1,2],[3]],"echo":true}"#, None)
    };
    assert_eq!(Plan::new(&ids, None).unwrap().echoes, ["t1 t2 ", "t3 "]);
}

#[test]
fn reasoning_tools_and_formats_are_given_where_they_are_asked_for() {
    let fixed = |body: &str| plan(body).fixed.map(|fixed| fixed.finish_reason);
    let tools = r#""tools":[{"type":"function","function":{"name":"f"}}],"messages":[{"role":"user"}]"#;
    assert_eq!(fixed(&format!("{{{tools}}}")), Some(Some("tool_calls")));
    assert_eq!(fixed(&format!(r#"{{{tools},"tool_choice":"none"}}"#)), None);
    assert_eq!(
        fixed(r#"{"response_format":{"type":"json_object"}}"#),
        Some(Some("stop"))
    );
    let scripted = plan(r#"{"sim":{"tool_calls":[{"name":"f"},{"name":"g","arguments":{"a":1}}]},"max_tokens":1}"#);
    assert_eq!(scripted.max, 1, "a limit cuts it");
    assert!(scripted.fixed.unwrap().pieces.len() > 3);
    assert_eq!(
        plan(r#"{"reasoning_effort":"low"}"#).script.reasoning.as_deref(),
        Some(REASONING)
    );
    assert_eq!(plan(r#"{"reasoning_effort":"none"}"#).script.reasoning, None);
}

#[test]
fn the_context_is_checked_when_there_is_a_limit() {
    let body = r#"{"messages":[{"content":"a b c"}],"max_tokens":8}"#;
    assert!(Plan::new(&job(body, None), Some(11)).is_ok());
    let error = Plan::new(&job(body, None), Some(10)).unwrap_err();
    assert_eq!(error.code, ErrorCode::ContextLengthExceeded);
}

#[test]
fn a_resume_continues_by_its_text_and_otherwise_by_its_count() {
    let had = |index, text: &str, tokens, finish: Option<&str>| ResumeChoice {
        index,
        text: text.to_owned(),
        tokens,
        finish_reason: finish.map(str::to_owned),
        ..ResumeChoice::default()
    };
    let resume = Resume {
        choices: vec![
            had(0, "t0 t1 t2 ", 99, None),
            had(1, "", 4, None),
            had(2, "t0 ", 1, Some("length")),
            ResumeChoice {
                reasoning: "r0 ".to_owned(),
                ..had(4, "", 1, None)
            },
        ],
    };
    let plan = Plan::new(&job(r#"{"n":5}"#, Some(resume)), None).unwrap();
    let state: Vec<(u64, bool)> = plan.choices.iter().map(|c| (c.next, c.done)).collect();
    assert_eq!(state, [(3, false), (4, false), (1, true), (0, false), (0, false)]);
    assert!(plan.resumed);
}
