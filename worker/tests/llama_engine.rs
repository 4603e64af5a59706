//! The llama.cpp engine with a real model.
//!
//! It needs `TOKENBUS_LLAMA_PACKAGES` (a folder with the Python package `xllamacpp`) or
//! `TOKENBUS_LLAMA_SERVER` (a `llama-server` program), and `TOKENBUS_LLAMA_MODEL` (the GGUF file of
//! SmolLM2-135M-Instruct). Without them it fails with a sentence that says so.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod openai_support;

use std::time::Duration;

use openai_support::llama::{chat, engine_with, gravity, of_kind, start};
use openai_support::{PATIENCE, Told, info, job, ready, resumed};
use serde_json::{Value, json};
use tokenbus_placement::Chain;
use tokenbus_protocol::{ErrorCode, RequestKind, Resume, ResumeChoice};
use tokenbus_worker::engine::llama::{Extras, LlamaEngine};
use tokenbus_worker::engine::{Engine as _, Health, Job};

/// One server for all: loading takes longer than the tests.
#[tokio::test]
async fn a_real_model_through_the_engine() {
    let logs = tempfile::tempdir().unwrap();
    let engine = engine_with(&logs, Extras::default()).await;
    let told = ready(engine.as_ref()).await;
    assert_eq!(
        (told.engine, told.slots, told.models[0].context_length),
        ("llama", 2, Some(1024)),
        "context is per slot"
    );
    let can = told.models[0].capabilities;
    assert!(can.chat && can.completion && can.json_schema && can.logprobs && can.continuation);
    assert!(can.tokenize && !can.tools && !can.embeddings && !can.rerank && !can.vision && !can.audio);

    answers(&engine).await;
    completes_texts(&engine).await;
    tokenizes(&engine).await;
    continues_exactly(&engine).await;
    holds_to_a_schema(&engine).await;
    refuses(&engine).await;
    keeps_conversations_apart(&engine).await;
    cancelling_frees_the_slot(&engine).await;
    comes_back_after_a_crash(&engine).await;

    engine.stop().await;
    assert!(matches!(engine.info().borrow().health, Health::Down(_)));
}

async fn answers(engine: &LlamaEngine) {
    let whole = chat(engine, &gravity(48)).await;
    assert!(whole.text().to_lowercase().contains("gravity"), "{}", whole.text());
    assert_eq!(whole.finish().completion_tokens, Some(48));
    assert_eq!(whole.deltas.last().unwrap().finish_reason.as_deref(), Some("length"));
    let end = whole.deltas.last().unwrap().extra.as_ref().unwrap();
    assert!(
        end.chunk.as_ref().unwrap().get().contains("timings"),
        "the end has them"
    );
    let mut two = gravity(4);
    two["n"] = json!(2);
    assert_eq!(
        chat(engine, &two).await.finish().completion_tokens,
        Some(8),
        "of both choices"
    );
    let mut logprobs = gravity(3);
    logprobs["logprobs"] = json!(true);
    let whole = chat(engine, &logprobs).await;
    assert!(whole.deltas[0].extra.as_ref().unwrap().logprobs.is_some());
}

async fn completes_texts(engine: &LlamaEngine) {
    let completion = async |body: &Value| of_kind(engine, RequestKind::Completion, body).await;
    let body =
        json!({"model": "smol", "prompt": ["One, two, three,", "a b"], "n": 2, "max_tokens": 3, "temperature": 0});
    let whole = completion(&body).await;
    let text = |choice: u32| -> String {
        let deltas = whole.deltas.iter().filter(|delta| delta.choice == choice);
        deltas.map(|delta| delta.text.as_ref()).collect()
    };
    assert!(text(0).contains("four") && text(0) == text(1), "{}", text(0));
    assert!(!text(2).is_empty() && text(2) == text(3) && text(2) != text(0));
    assert_eq!(whole.finish().completion_tokens, Some(12));
    let (first, second) = (
        completion(&json!({"model": "smol", "prompt": "One, two, three,", "max_tokens": 1})).await,
        completion(&json!({"model": "smol", "prompt": "a b", "max_tokens": 1})).await,
    );
    let prompts = [first, second].map(|whole| whole.finish().prompt_tokens.unwrap());
    assert_eq!(
        whole.finish().prompt_tokens,
        Some(prompts.iter().sum()),
        "each prompt once"
    );
    let echo = json!({"model": "smol", "prompt": "One, two, three,", "echo": true, "max_tokens": 3, "temperature": 0});
    assert!(completion(&echo).await.text().starts_with("One, two, three, four"));
    let suffix = json!({"model": "smol", "prompt": "a", "suffix": "b"});
    assert_eq!(completion(&suffix).await.error().param.as_deref(), Some("suffix"));
}

async fn tokenizes(engine: &LlamaEngine) {
    let of = async |kind, body: Value| -> Value {
        serde_json::from_str(&of_kind(engine, kind, &body).await.text()).unwrap()
    };
    let tokens = of(RequestKind::Tokenize, json!({"model": "smol", "prompt": "Hello there"})).await;
    assert_eq!(tokens["count"], tokens["tokens"].as_array().unwrap().len());
    let text = of(
        RequestKind::Detokenize,
        json!({"model": "smol", "tokens": tokens["tokens"]}),
    )
    .await;
    assert_eq!(text["prompt"], "Hello there");
    let messages = json!([{"role": "user", "content": "What is gravity?"}]);
    let counted = of(RequestKind::Tokenize, json!({"model": "smol", "messages": messages})).await;
    let prompt = chat(engine, &gravity(1)).await.finish().prompt_tokens;
    assert_eq!(counted["count"].as_u64(), prompt, "what the chat itself counts");
}

async fn continues_exactly(engine: &LlamaEngine) {
    let whole = chat(engine, &gravity(40)).await;
    let prompt = whole.finish().prompt_tokens;
    for cut in [1, 7, 20, 39] {
        let text: String = whole.deltas.iter().take(cut).map(|delta| delta.text.as_ref()).collect();
        let tokens = whole.deltas.iter().take(cut).map(|delta| u64::from(delta.tokens)).sum();
        let choice = ResumeChoice {
            text: text.clone(),
            tokens,
            ..ResumeChoice::default()
        };
        let rest = start(
            engine,
            resumed(job("smol", &gravity(40)), Resume { choices: vec![choice] }),
        )
        .whole()
        .await;
        assert_eq!(format!("{text}{}", rest.text()), whole.text(), "cut after {cut}");
        assert_eq!(rest.finish().completion_tokens.map(|rest| rest + tokens), Some(40));
        let (first, second) = (prompt.unwrap(), rest.finish().prompt_tokens.unwrap());
        assert!(
            first.abs_diff(second) <= 2,
            "the prompt is the client's: {first} and {second}"
        );
    }
}

async fn holds_to_a_schema(engine: &LlamaEngine) {
    let schema = json!({"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}, "size": {"type": "integer", "minimum": 0, "maximum": 9}},
        "required": ["city", "size"], "additionalProperties": false});
    let body = json!({"model": "smol", "temperature": 0, "max_tokens": 200,
        "response_format": {"type": "json_schema", "json_schema": {"name": "city", "strict": true, "schema": schema}},
        "messages": [{"role": "user", "content": "Name a city and its size."}]});
    let whole = chat(engine, &body).await;
    let value: Value = serde_json::from_str(&whole.text()).unwrap();
    assert!(value["city"].is_string() && value["size"].is_u64(), "{value}");
}

async fn refuses(engine: &LlamaEngine) {
    let mut long = gravity(8);
    long["messages"][0]["content"] = json!("word ".repeat(3000));
    let whole = chat(engine, &long).await;
    assert_eq!(
        (whole.error().code, whole.error().retryable),
        (ErrorCode::ContextLengthExceeded, false)
    );
    let mut tools = gravity(8);
    tools["tool_choice"] = json!("required");
    tools["tools"] = json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]);
    let whole = chat(engine, &tools).await;
    assert_eq!(
        (whole.error().code, whole.error().param.as_deref()),
        (ErrorCode::BadRequest, Some("tool_choice"))
    );
    let mut wrong = gravity(8);
    wrong["temperature"] = json!("hot");
    assert_eq!(chat(engine, &wrong).await.error().code, ErrorCode::BadRequest);
}

/// A chat with its cuts, as a gateway makes them.
async fn turn(engine: &LlamaEngine, messages: &[Value]) -> (u64, u64, String) {
    let body = json!({"model": "smol", "temperature": 0, "max_tokens": 12, "messages": messages});
    let mut chain = Chain::new("");
    for message in messages {
        chain.text(message.to_string().as_bytes());
        chain.end_message();
    }
    let prompt = chain.finish();
    let whole = start(
        engine,
        Job {
            prompt,
            ..job("smol", &body)
        },
    )
    .whole()
    .await;
    let finish = whole.finish();
    let usage: Value = serde_json::from_str(finish.usage.as_ref().unwrap().get()).unwrap();
    let cached = usage["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
    (finish.prompt_tokens.unwrap(), cached, whole.text())
}

/// Conversations that share a system prompt and take turns: each finds all that was read of it.
async fn keeps_conversations_apart(engine: &LlamaEngine) {
    let system =
        json!({"role": "system", "content": "You know rivers, lakes and seas, and answer briefly. ".repeat(12)});
    let mut both = ["the sea", "a lake"].map(|about| (about, vec![system.clone()], 0));
    for number in 0..3 {
        for (about, messages, read) in &mut both {
            let ask = format!(
                "Question {number} is about {about}: how deep is it, how wide, how old, and who has measured that?"
            );
            messages.push(json!({"role": "user", "content": ask}));
            let (tokens, cached, text) = turn(engine, messages).await;
            assert!(
                cached + 3 >= *read,
                "{about}, {number}: {cached} of {read} tokens were there still"
            );
            messages.push(json!({"role": "assistant", "content": text}));
            *read = tokens;
        }
    }
}

/// With both slots taken by endless answers, a third would wait; cancelling one lets it run.
async fn cancelling_frees_the_slot(engine: &LlamaEngine) {
    let mut endless = gravity(900);
    endless["ignore_eos"] = json!(true);
    let mut first = start(engine, job("smol", &endless));
    let mut second = start(engine, job("smol", &endless));
    assert!(matches!(first.next().await, Told::Delta(_)));
    assert!(matches!(second.next().await, Told::Delta(_)));
    let told = first.cancel().await;
    assert_eq!(told.last(), Some(&Told::Dropped));
    let third = tokio::time::timeout(PATIENCE, chat(engine, &gravity(2))).await.unwrap();
    assert_eq!(third.finish().completion_tokens, Some(2));
    assert!(
        matches!(second.next().await, Told::Delta(_)),
        "the other one still runs: the slot was the first's"
    );
    second.cancel().await;
    // Asked for every few seconds: once nobody runs, no KV is in use.
    info(engine, |info| info.kv_used == Some(0.0)).await;
}

async fn comes_back_after_a_crash(engine: &LlamaEngine) {
    let mut stream = start(engine, job("smol", &gravity(900)));
    assert!(matches!(stream.next().await, Told::Delta(_)));
    let before = engine.info();
    kill_server(engine);
    let whole = stream.whole().await;
    assert_eq!(
        (whole.error().code, whole.error().retryable),
        (ErrorCode::EngineUnavailable, true)
    );
    openai_support::down(engine).await;
    tokio::time::timeout(Duration::from_secs(60), ready(engine))
        .await
        .unwrap();
    drop(before);
    assert!(!chat(engine, &gravity(4)).await.text().is_empty());
}

/// The server is our only child.
fn kill_server(_engine: &LlamaEngine) {
    let us = std::process::id().to_string();
    let children = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let parent = stat.rsplit(") ").next()?.split(' ').nth(1)?.to_owned();
        (parent == us).then_some(pid)
    });
    let children: Vec<i32> = children.collect();
    assert_eq!(children.len(), 1);
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(children[0]),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
}
