//! Bodies and answers of requests that are answered in one piece.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;
use crate::engine::openai::target::Continuation;

fn target(kind: ServerKind) -> Target {
    Target {
        upstream: "up".to_owned(),
        kind,
        context: Some(512),
        continuation: Continuation::None,
        tools: None,
        vision: None,
    }
}

fn sent(kind: RequestKind, server: ServerKind, body: &str) -> String {
    let object = prepare(kind, body.as_bytes(), &target(server)).unwrap();
    object.to_json().unwrap().get().to_owned()
}

fn answer(kind: RequestKind, body: &str) -> Answer {
    Answer::new(
        kind,
        None,
        body.as_bytes(),
        &target(ServerKind::LlamaServer),
        &Secrets::default(),
    )
    .unwrap()
}

#[test]
fn only_the_models_name_changes_in_a_body() {
    let body = r#"{"input":["a",  "b"],"model":"m","encoding_format":"base64","x":1.0}"#;
    assert_eq!(
        sent(RequestKind::Embeddings, ServerKind::Unknown, body),
        r#"{"input":["a",  "b"],"model":"up","encoding_format":"base64","x":1.0}"#
    );
    assert!(prepare(RequestKind::Embeddings, b"[]", &target(ServerKind::Unknown)).is_err());
}

#[test]
fn a_text_to_tokenize_is_named_as_the_server_names_it() {
    let of = |server, body| sent(RequestKind::Tokenize, server, body);
    assert_eq!(
        of(ServerKind::LlamaServer, r#"{"model":"up","prompt":"a"}"#),
        r#"{"model":"up","content":"a","add_special":true}"#
    );
    assert_eq!(
        of(
            ServerKind::LlamaServer,
            r#"{"model":"up","prompt":"a","add_special_tokens":false}"#
        ),
        r#"{"model":"up","content":"a","add_special":false}"#
    );
    assert_eq!(
        of(ServerKind::Vllm, r#"{"model":"up","content":"a"}"#),
        r#"{"model":"up","prompt":"a","add_special_tokens":false}"#
    );
    for (server, body) in [
        (ServerKind::LlamaServer, r#"{"model":"up","content":"a"}"#),
        (ServerKind::Vllm, r#"{"model":"up","prompt":"a"}"#),
        (ServerKind::LlamaServer, r#"{"model":"up","messages":[],"prompt":"a"}"#),
    ] {
        assert_eq!(of(server, body), body);
    }
}

#[test]
fn the_place_of_the_models_name_and_the_usage_are_found() {
    let body = r#" {"data":[{"model":"inner"}],"model": "m","usage":{"prompt_tokens":3,"total_tokens":3}}
"#;
    let answer = answer(RequestKind::Embeddings, body);
    assert_eq!(&answer.text[answer.model.clone().unwrap()], "\"m\"");
    assert_eq!(answer.text, body.trim());
    assert_eq!(
        (answer.finish.prompt_tokens, answer.finish.completion_tokens),
        (Some(3), Some(0))
    );
    assert_eq!(
        answer.finish.usage.unwrap().get(),
        r#"{"prompt_tokens":3,"total_tokens":3}"#
    );
    let sum = self::answer(RequestKind::Rerank, r#"{"results":[],"usage":{"total_tokens":9}}"#);
    assert_eq!((sum.model, sum.finish.prompt_tokens), (None, Some(9)));
    let array = self::answer(RequestKind::Rerank, r#"[{"score":1.50,"index":0}]"#);
    assert_eq!(
        (array.text.as_str(), array.model),
        (r#"[{"score":1.50,"index":0}]"#, None)
    );
}

#[test]
fn what_is_no_answer_is_an_error() {
    let of = |body: &[u8]| {
        let target = target(ServerKind::Vllm);
        Answer::new(RequestKind::Embeddings, None, body, &target, &Secrets::default())
            .unwrap_err()
            .code
    };
    for nonsense in [&b"nope"[..], b"{\"a\":}", b"", b"\xff", b"{} {}"] {
        assert_eq!(of(nonsense), ErrorCode::Internal);
    }
    let error = br#"{"error":{"message":"no","type":"invalid_request_error"}}"#;
    assert_eq!(of(error), ErrorCode::BadRequest);
}

#[test]
fn answers_about_tokens_have_what_clients_of_each_server_look_for() {
    assert_eq!(
        answer(RequestKind::Tokenize, r#"{"tokens":[5,{"id":6}]}"#).text,
        r#"{"tokens":[5,{"id":6}],"count":2,"max_model_len":512}"#
    );
    let whole = r#"{"count":1,"max_model_len":9,"tokens":[1]}"#;
    assert_eq!(answer(RequestKind::Tokenize, whole).text, whole);
    assert_eq!(
        answer(RequestKind::Detokenize, r#"{"content":"a\"b"}"#).text,
        r#"{"content":"a\"b","prompt":"a\"b"}"#
    );
    assert_eq!(
        answer(RequestKind::Detokenize, r#"{"text":"a"}"#).text,
        r#"{"text":"a","prompt":"a","content":"a"}"#
    );
}
