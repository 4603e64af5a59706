//! The llama.cpp engine told to give embeddings, with a real model; see `llama_engine.rs` for what it
//! needs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod openai_support;

use openai_support::llama::{chat, engine_with, gravity, of_kind};
use openai_support::ready;
use serde_json::{Value, json};
use tokenbus_protocol::{Delta, RequestKind, is_model_mark};
use tokenbus_worker::engine::Engine as _;
use tokenbus_worker::engine::llama::{Extras, Pooling};

#[tokio::test]
async fn a_real_model_gives_embeddings_when_it_is_told_to() {
    let logs = tempfile::tempdir().unwrap();
    let extras = Extras {
        embeddings: true,
        pooling: Some(Pooling::Mean),
        reranking: false,
    };
    let engine = engine_with(&logs, extras).await;
    let can = ready(engine.as_ref()).await.models[0].capabilities;
    assert!(can.embeddings && can.chat && !can.rerank, "{can:?}");
    let body = json!({"model": "smol", "input": ["a cat", "a dog", "a cat"]});
    let whole = of_kind(&engine, RequestKind::Embeddings, &body).await;
    assert!(whole.finish().prompt_tokens.unwrap() > 3);
    let named = |delta: &Delta<'_>| {
        if is_model_mark(delta) {
            "\"m\"".to_owned()
        } else {
            delta.text.to_string()
        }
    };
    let text: String = whole.deltas.iter().map(named).collect();
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(answer["model"], "m");
    let vector = |n: usize| answer["data"][n]["embedding"].as_array().unwrap();
    assert_eq!(vector(0).len(), 576);
    let near = |a: &[Value], b: &[Value]| {
        a.iter()
            .zip(b)
            .all(|(a, b)| (a.as_f64().unwrap() - b.as_f64().unwrap()).abs() < 1e-3)
    };
    assert!(near(vector(0), vector(2)) && !near(vector(0), vector(1)));
    assert!(!chat(&engine, &gravity(4)).await.text().is_empty(), "and still chats");
    engine.stop().await;
}
