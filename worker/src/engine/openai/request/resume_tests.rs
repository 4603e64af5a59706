//! Bodies that continue an answer, and requests that cannot be continued.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use serde_json::{Value, json};
use tokenbus_protocol::{EngineError, RequestKind, Resume, ResumeChoice};

use super::super::engine_request::Plan;
use super::super::plan;
use super::super::seam::Seam;
use crate::engine::openai::target::{Continuation, ServerKind, Target};

fn target(continuation: Continuation) -> Target {
    Target {
        upstream: "m".to_owned(),
        continuation,
        kind: ServerKind::Unknown,
        context: None,
        tools: None,
        vision: None,
    }
}

fn delivered(index: u32, text: &str, tokens: u64) -> ResumeChoice {
    ResumeChoice {
        index,
        text: text.to_owned(),
        tokens,
        ..ResumeChoice::default()
    }
}

fn planned(
    kind: RequestKind,
    continuation: Continuation,
    body: &Value,
    choices: Vec<ResumeChoice>,
) -> Result<Plan, EngineError> {
    plan(
        kind,
        body.to_string().as_bytes(),
        &target(continuation),
        Some(&Resume { choices }),
    )
}

fn chat(continuation: Continuation, body: &Value, choice: ResumeChoice) -> Result<Plan, EngineError> {
    planned(RequestKind::Chat, continuation, body, vec![choice])
}

fn body_of(plan: &Plan, call: usize) -> Value {
    serde_json::from_slice(&plan.calls[call].body).unwrap()
}

fn question() -> Value {
    json!({"model": "m", "messages": [{"role": "user", "content": "Why?"}], "max_tokens": 10})
}

#[test]
fn llama_server_gets_a_trailing_assistant_message_and_a_lower_limit() {
    let plan = chat(
        Continuation::TrailingAssistant,
        &question(),
        delivered(0, "Because \"", 4),
    )
    .unwrap();
    let body = body_of(&plan, 0);
    assert_eq!(
        body["messages"],
        json!([{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because \""}])
    );
    assert_eq!(body["max_tokens"], 6);
    assert!(body.get("continue_final_message").is_none() && body.get("add_generation_prompt").is_none());
    assert_eq!(
        (plan.calls[0].delivered, plan.calls[0].choice, plan.calls[0].choices),
        (4, None, 1)
    );
}

#[test]
fn vllm_is_told_to_continue() {
    let plan = chat(
        Continuation::ContinueFinalMessage,
        &question(),
        delivered(0, "Because", 4),
    )
    .unwrap();
    let body = body_of(&plan, 0);
    assert_eq!(body["continue_final_message"], true);
    assert_eq!(body["add_generation_prompt"], false);
    assert_eq!(body["messages"][1]["content"], "Because");
}

#[test]
fn earlier_messages_keep_their_text() {
    let body = br#"{"messages":[{"role":"user",  "content":"a\u0062","x":1.0}],"t":1.50}"#;
    let resume = Resume {
        choices: vec![delivered(0, "c", 1)],
    };
    let plan = plan(
        RequestKind::Chat,
        body,
        &target(Continuation::TrailingAssistant),
        Some(&resume),
    )
    .unwrap();
    let sent = std::str::from_utf8(&plan.calls[0].body).unwrap();
    assert!(
        sent.contains(r#"{"role":"user",  "content":"a\u0062","x":1.0}"#),
        "{sent}"
    );
    assert!(sent.contains(r#""t":1.50"#), "{sent}");
}

#[test]
fn a_message_that_the_client_began_is_extended() {
    let body = json!({"messages": [
        {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Be", "name": "x"}]});
    let sent = body_of(
        &chat(Continuation::TrailingAssistant, &body, delivered(0, "cause", 1)).unwrap(),
        0,
    );
    assert_eq!(
        sent["messages"][1],
        json!({"role": "assistant", "content": "Because", "name": "x"})
    );
    assert_eq!(sent["messages"].as_array().unwrap().len(), 2);

    // Without the flag vLLM would have opened a new turn after it; so does the continuation.
    let sent = body_of(
        &chat(Continuation::ContinueFinalMessage, &body, delivered(0, "So", 1)).unwrap(),
        0,
    );
    assert_eq!(sent["messages"][2]["content"], "So");

    let mut flagged = body.clone();
    flagged["continue_final_message"] = json!(true);
    let sent = body_of(
        &chat(Continuation::ContinueFinalMessage, &flagged, delivered(0, "cause", 1)).unwrap(),
        0,
    );
    assert_eq!(sent["messages"][1]["content"], "Because");
}

#[test]
fn every_limit_is_lowered_and_others_are_not_made_up() {
    let body =
        json!({"messages": [], "max_completion_tokens": 9, "min_tokens": 2, "n_predict": -1, "max_tokens": null});
    let sent = body_of(
        &chat(Continuation::TrailingAssistant, &body, delivered(0, "a", 3)).unwrap(),
        0,
    );
    assert_eq!(sent["max_completion_tokens"], 6);
    assert_eq!(sent["min_tokens"], 0);
    assert_eq!(sent["n_predict"], -1);
    assert_eq!(sent["max_tokens"], Value::Null);
}

#[test]
fn a_choice_at_its_limit_is_not_asked_for_again() {
    let plan = chat(
        Continuation::TrailingAssistant,
        &question(),
        delivered(0, "Because", 10),
    )
    .unwrap();
    assert!(plan.calls.is_empty());
    assert_eq!(plan.exhausted, [0]);
}

#[test]
fn nothing_delivered_means_from_the_start() {
    let plan = chat(Continuation::None, &question(), delivered(0, "", 0)).unwrap();
    let body = body_of(&plan, 0);
    assert_eq!(body["messages"], question()["messages"]);
    assert_eq!(body["max_tokens"], 10);
    let empty = planned(RequestKind::Chat, Continuation::None, &question(), vec![]).unwrap();
    assert_eq!(empty.calls.len(), 1);
}

#[test]
fn each_choice_goes_on_by_itself() {
    let mut body = question();
    body["n"] = json!(4);
    let done = ResumeChoice {
        finish_reason: Some("stop".to_owned()),
        ..delivered(1, "done", 1)
    };
    let choices = vec![delivered(0, "zero", 2), done, delivered(3, "three", 10)];
    let plan = planned(RequestKind::Chat, Continuation::TrailingAssistant, &body, choices).unwrap();
    assert_eq!(
        plan.calls.iter().map(|call| call.choice).collect::<Vec<_>>(),
        [Some(0), Some(2)]
    );
    assert_eq!(plan.exhausted, [3]);
    assert_eq!(body_of(&plan, 0)["n"], 1);
    assert_eq!(body_of(&plan, 0)["messages"][1]["content"], "zero");
    assert_eq!(body_of(&plan, 1)["messages"].as_array().unwrap().len(), 1);
    assert_eq!(body_of(&plan, 1)["max_tokens"], 10);
}

#[test]
fn each_choice_is_generated_again_by_the_seed_that_its_engine_drew_it_with() {
    let mut body = question();
    (body["n"], body["seed"]) = (json!(2), json!(7));
    let choices = vec![delivered(0, "zero", 2), delivered(1, "one", 1)];
    let of = |kind| {
        let target = Target {
            kind,
            ..target(Continuation::ContinueFinalMessage)
        };
        let resume = Resume {
            choices: choices.clone(),
        };
        let plan = plan(RequestKind::Chat, body.to_string().as_bytes(), &target, Some(&resume)).unwrap();
        let told = |call: usize| (body_of(&plan, call)["seed"].clone(), plan.calls[call].again);
        [told(0), told(1)]
    };
    assert_eq!(of(ServerKind::Vllm), [(json!(7), 2), (json!(8), 1)]);
    assert_eq!(of(ServerKind::Sglang), [(json!(7), 0), (json!(7), 0)]);
}

#[test]
fn an_unknown_server_does_not_continue_a_chat() {
    let error = chat(Continuation::None, &question(), delivered(0, "Because", 1)).unwrap_err();
    assert_eq!(error.engine_code.as_deref(), Some("not_continuable"));
    assert!(error.retryable, "another kind of engine can");
}

#[test]
fn answers_that_would_come_out_wrong_are_refused() {
    let with = |member: &str, value: Value| {
        let mut body = question();
        body[member] = value;
        chat(Continuation::TrailingAssistant, &body, delivered(0, "{\"a\":", 2))
    };
    let refused = [
        ("response_format", json!({"type": "json_schema", "json_schema": {}})),
        ("response_format", json!({"type": "json_object"})),
        ("grammar", json!("root ::= \"a\"")),
        ("guided_json", json!({})),
        ("structured_outputs", json!({"json": {}})),
        ("tool_choice", json!("required")),
        ("echo", json!(true)),
    ];
    for (member, value) in refused {
        let error = with(member, value).unwrap_err();
        assert_eq!(error.engine_code.as_deref(), Some("not_continuable"), "{member}");
        assert!(!error.retryable);
    }
    for (member, value) in [
        ("response_format", json!({"type": "text"})),
        ("grammar", json!("")),
        ("json_schema", json!(null)),
    ] {
        assert!(with(member, value).is_ok(), "{member}");
    }
    let reasoning = ResumeChoice {
        reasoning: "hm".to_owned(),
        ..delivered(0, "a", 2)
    };
    assert!(chat(Continuation::TrailingAssistant, &question(), reasoning).is_err());
    assert!(
        chat(Continuation::TrailingAssistant, &question(), delivered(0, "", 3)).is_err(),
        "tool calls"
    );
}

#[test]
fn a_completion_goes_on_from_its_prompt() {
    let go = |body: Value| {
        planned(
            RequestKind::Completion,
            Continuation::None,
            &body,
            vec![delivered(0, " blue", 1)],
        )
    };
    let sent = body_of(&go(json!({"prompt": "The sky is", "max_tokens": 3})).unwrap(), 0);
    assert_eq!(sent["prompt"], "The sky is blue");
    assert_eq!(sent["max_tokens"], 2);
    let sent = body_of(&go(json!({"prompt": ["The sky is"]})).unwrap(), 0);
    assert_eq!(sent["prompt"], "The sky is blue");
    for body in [
        json!({"prompt": ["a", "b"]}),
        json!({"prompt": [1, 2]}),
        json!({"prompt": "a", "suffix": "b"}),
        json!({"prompt": "a", "echo": true}),
        json!({"prompt": "a", "best_of": 3}),
        json!({}),
    ] {
        assert!(go(body.clone()).is_err(), "{body}");
    }
}

#[test]
fn an_absurd_number_of_choices_is_not_continued() {
    let mut body = question();
    body["n"] = json!(4_000_000_000_u64);
    assert!(chat(Continuation::TrailingAssistant, &body, delivered(0, "a", 1)).is_err());
}

#[test]
fn what_cannot_be_continued_is_repeated_where_it_comes_out_the_same() {
    let reasoned = || ResumeChoice {
        reasoning: "hm".to_owned(),
        ..delivered(0, "a", 4)
    };
    let with = |member: &str, value: Value| {
        let mut body = question();
        body[member] = value;
        body
    };
    for (member, value, same) in [
        ("temperature", json!(0), true),
        ("temperature", json!(0.0), true),
        ("seed", json!(7), true),
        ("seed", json!(-1), false),
        ("temperature", json!(0.1), false),
        ("temperature", json!(null), false),
    ] {
        let body = with(member, value.clone());
        for (continuation, choice) in [
            (Continuation::ContinueFinalMessage, reasoned()),
            (Continuation::None, delivered(0, "a", 4)),
        ] {
            let planned = chat(continuation, &body, choice);
            assert_eq!(planned.is_ok(), same, "{member} {value}");
            let Ok(plan) = planned else { continue };
            let sent = body_of(&plan, 0);
            assert_eq!(sent["messages"], body["messages"], "from the start");
            assert_eq!(sent["max_tokens"], 10);
            assert_eq!((plan.calls[0].delivered, plan.calls[0].again), (0, 4));
            assert!(matches!(plan.calls[0].seam, Seam::Skip(_)));
        }
    }
    let two = json!({"messages": [], "n": 2, "seed": 7});
    assert!(
        chat(Continuation::None, &two, delivered(0, "a", 1)).is_err(),
        "each choice has its own seed"
    );
    let tools = chat(
        Continuation::TrailingAssistant,
        &with("seed", json!(7)),
        delivered(0, "", 3),
    );
    assert!(tools.is_err(), "nothing to compare it with");
}

/// The first way of a plan's one call, and the second: whether the answer is generated again.
fn ways(plan: &Plan) -> (bool, Option<bool>) {
    let call = &plan.calls[0];
    (!call.continues, call.otherwise.as_ref().map(|call| !call.continues))
}

#[test]
fn what_a_continuation_would_not_bring_to_the_token_is_generated_again_first() {
    let go = |kind, text: &str, change: Value| {
        let mut body = question();
        body["temperature"] = json!(0);
        for (name, value) in change.as_object().unwrap() {
            body[name] = value.clone();
        }
        let target = Target {
            kind,
            ..target(Continuation::ContinueFinalMessage)
        };
        let resume = Resume {
            choices: vec![delivered(0, text, 3)],
        };
        ways(&plan(RequestKind::Chat, body.to_string().as_bytes(), &target, Some(&resume)).unwrap())
    };
    let vllm = |text, change| go(ServerKind::Vllm, text, change);
    assert_eq!(vllm("Because", json!({})), (false, Some(true)));
    assert_eq!(vllm("Because", json!({"stop": [""]})), (false, Some(true)));
    assert_eq!(
        vllm("Because", json!({"stop": "END"})),
        (true, Some(false)),
        "held back"
    );
    assert_eq!(vllm("Because\n", json!({})), (true, Some(false)), "trimmed");
    let sampled = json!({"temperature": 1, "seed": 7});
    assert_eq!(vllm("Because", sampled), (true, Some(false)), "other draws");
    assert_eq!(vllm("Because", json!({"temperature": 1, "stop": "END"})), (false, None));
    assert_eq!(
        vllm("Because", json!({"tools": [{}], "tool_choice": "required"})),
        (true, None)
    );
    assert_eq!(
        go(ServerKind::Unknown, "Because", json!({})),
        (true, Some(false)),
        "a count of events"
    );
    let unlimited = json!({"max_tokens": null});
    assert_eq!(go(ServerKind::Unknown, "Because", unlimited), (false, Some(true)));
}

#[test]
fn white_space_at_the_end_is_not_handed_over() {
    let sent = |text: &str, body: &Value| {
        let plan = chat(Continuation::ContinueFinalMessage, body, delivered(0, text, 3)).unwrap();
        (body_of(&plan, 0), plan.calls[0].clone())
    };
    let (body, call) = sent("```\n ", &question());
    assert_eq!(body["messages"][1]["content"], "```");
    assert!(matches!(call.seam, Seam::Blank(_)) && call.continues);
    let (body, call) = sent("\n\n", &question());
    assert_eq!(body["messages"], question()["messages"], "nothing to begin with");
    assert_eq!((call.delivered, call.again, call.continues), (0, 3, false));
    assert_eq!(body["max_tokens"], 10);
    // A prompt has no template.
    let completion = json!({"prompt": "a", "max_tokens": 9});
    let resumed = vec![delivered(0, " b ", 2)];
    let plan = planned(RequestKind::Completion, Continuation::None, &completion, resumed).unwrap();
    assert_eq!(
        (body_of(&plan, 0)["prompt"].as_str(), &plan.calls[0].seam),
        (Some("a b "), &Seam::Open)
    );
}

#[test]
fn token_ids_and_a_suffix_are_generated_again() {
    for body in [
        json!({"prompt": [1, 2], "temperature": 0}),
        json!({"prompt": "a", "suffix": "b", "seed": 3}),
    ] {
        let resumed = vec![delivered(0, " blue", 1)];
        let plan = planned(RequestKind::Completion, Continuation::None, &body, resumed).unwrap();
        assert_eq!(body_of(&plan, 0)["prompt"], body["prompt"]);
        assert!(matches!(plan.calls[0].seam, Seam::Skip(_)));
    }
}

#[test]
fn a_stop_string_that_was_begun_is_watched_for() {
    let seam = |stop: Value| {
        let mut body = question();
        body["stop"] = stop;
        chat(Continuation::TrailingAssistant, &body, delivered(0, "a E", 2))
            .unwrap()
            .calls
            .remove(0)
            .seam
    };
    assert!(matches!(seam(json!("END")), Seam::Stops(_)));
    assert!(matches!(seam(json!(["x", "END"])), Seam::Stops(_)));
    for stop in [json!("x"), json!(["x"]), json!(null), json!([])] {
        assert_eq!(seam(stop.clone()), Seam::Open, "{stop}");
    }
}
