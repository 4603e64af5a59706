//! What servers answer in one piece, and what they are found to be capable of.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod openai_support;

use serde_json::{Value, json};
use tokenbus_protocol::{ErrorCode, Feature, Features, RequestKind, is_model_mark};
use tokenbus_worker::engine::openai::{OpenAiEngine, OpenAiOptions};
use tokenbus_worker::engine::{Engine as _, Job, Overrides};

use openai_support::server::{Pages, Reply, Seen, Server, vllm};
use openai_support::{Whole, engine, job, ready, start};

/// The whole text of an answer, the model named `M`.
fn text(whole: &Whole) -> String {
    let pieces = whole.deltas.iter();
    pieces
        .map(|delta| {
            if is_model_mark(delta) {
                "\"M\""
            } else {
                delta.text.as_ref()
            }
        })
        .collect()
}

fn asked(kind: RequestKind, body: &Value) -> Job {
    Job { kind, ..job("m", body) }
}

fn plain(body: impl Into<String>) -> Reply {
    Reply::Plain(200, vec![("content-type", "application/json".to_owned())], body.into())
}

fn llama(pages: &[(&'static str, &str)]) -> Pages {
    let models = r#"{"data":[{"id":"m","owned_by":"llamacpp"}]}"#;
    let mut all = vec![
        ("/v1/models", models.to_owned()),
        (
            "/props",
            r#"{"total_slots":2,"default_generation_settings":{"n_ctx":512}}"#.to_owned(),
        ),
        ("/health", String::new()),
    ];
    all.extend(pages.iter().map(|(path, body)| (*path, (*body).to_owned())));
    all
}

#[tokio::test]
async fn each_kind_has_its_path_and_its_answer_is_handed_on() {
    let answer = r#"{ "object":"list","model":"up", "data":[{"embedding":[0.10]}],"usage":{"prompt_tokens":3,"total_tokens":3}}"#;
    let mut server = Server::start(vllm("m"), move |_| plain(answer)).await;
    let engine = engine(&server).await;
    for (kind, path) in [
        (RequestKind::Embeddings, "/v1/embeddings"),
        (RequestKind::Rerank, "/v1/rerank"),
        (RequestKind::Score, "/v1/score"),
    ] {
        let body = json!({"model": "m", "input": "a", "encoding_format": "float", "x": 1});
        let whole = start(&engine, asked(kind, &body)).whole().await;
        assert_eq!(text(&whole), answer.replace("\"up\"", "\"M\""));
        let finish = whole.finish();
        assert_eq!((finish.prompt_tokens, finish.completion_tokens), (Some(3), Some(0)));
        assert!(whole.deltas.iter().all(|delta| delta.tokens == 0));
        let seen = server.next_seen().await;
        assert_eq!(seen.path, path);
        assert_eq!(
            serde_json::from_str::<Value>(&seen.body).unwrap(),
            body,
            "no stream is asked for"
        );
    }
}

#[tokio::test]
async fn an_answer_of_many_megabytes_comes_in_pieces_of_text() {
    let numbers = vec!["0.012345678"; 500_000].join(",");
    let answer = format!(r#"{{"data":[{{"embedding":[{numbers}],"é":"ü"}}],"model":"m"}}"#);
    let expected = answer.replace("\"m\"", "\"M\"");
    let server = Server::start(vllm("m"), move |_| plain(answer.clone())).await;
    let engine = engine(&server).await;
    let whole = start(&engine, asked(RequestKind::Embeddings, &json!({"model": "m"})))
        .whole()
        .await;
    assert!(whole.deltas.len() > 100);
    assert_eq!(text(&whole), expected);
}

#[tokio::test]
async fn failures_are_told_as_those_of_a_chat() {
    let reply = |seen: Seen| match seen.body.as_str() {
        body if body.contains("\"nowhere\"") => Reply::Plain(404, Vec::new(), r#"{"detail":"Not Found"}"#.to_owned()),
        body if body.contains("\"other\"") => Reply::Plain(
            404,
            Vec::new(),
            r#"{"error":{"message":"The model `x` does not exist."}}"#.to_owned(),
        ),
        body if body.contains("\"never\"") => {
            Reply::Plain(501, Vec::new(), r#"{"error":{"message":"start it so"}}"#.to_owned())
        }
        body if body.contains("\"busy\"") => Reply::Plain(429, vec![("retry-after", "7".to_owned())], "{}".to_owned()),
        body if body.contains("\"cut\"") => Reply::Hangup,
        _ => plain("no JSON"),
    };
    let server = Server::start(vllm("m"), reply).await;
    let engine = engine(&server).await;
    let failed = async |input: &str| {
        let whole = start(
            &engine,
            asked(RequestKind::Embeddings, &json!({"model": "m", "input": input})),
        )
        .whole();
        let error = whole.await.error().clone();
        (error.code, error.retryable, error.retry_after_ms)
    };
    assert_eq!(
        failed("nowhere").await,
        (ErrorCode::BadRequest, false, None),
        "no such endpoint"
    );
    assert_eq!(failed("other").await, (ErrorCode::ModelNotFound, true, None));
    assert_eq!(failed("never").await.0, ErrorCode::BadRequest);
    assert_eq!(failed("busy").await, (ErrorCode::RateLimited, true, Some(7000)));
    assert_eq!(failed("cut").await.0, ErrorCode::EngineUnavailable);
    assert_eq!(failed("nonsense").await.0, ErrorCode::Internal);
}

#[tokio::test]
async fn llama_server_tokenizes_a_chat_by_its_template() {
    let reply = |seen: Seen| match seen.path.as_str() {
        "/apply-template" => plain(r#"{"prompt":"<user>hi"}"#),
        "/tokenize" => plain(r#"{"tokens":[5,6,7]}"#),
        path => panic!("{path}"),
    };
    let mut server = Server::start(llama(&[]), reply).await;
    let engine = engine(&server).await;
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
    let whole = start(&engine, asked(RequestKind::Tokenize, &body)).whole().await;
    assert_eq!(text(&whole), r#"{"tokens":[5,6,7],"count":3,"max_model_len":512}"#);
    assert_eq!(server.next_seen().await.body, body.to_string());
    let tokenized: Value = serde_json::from_str(&server.next_seen().await.body).unwrap();
    assert_eq!(
        tokenized,
        json!({"model": "m", "content": "<user>hi", "add_special": false, "parse_special": true})
    );
    let whole = start(
        &engine,
        asked(RequestKind::Tokenize, &json!({"model": "m", "prompt": "hi"})),
    )
    .whole()
    .await;
    assert_eq!(whole.finish().completion_tokens, Some(0));
    let plain: Value = serde_json::from_str(&server.next_seen().await.body).unwrap();
    assert_eq!(plain, json!({"model": "m", "content": "hi", "add_special": true}));
}

async fn found(pages: Pages, overrides: Overrides) -> Features {
    let server = Server::start(pages, |_| plain("{}")).await;
    let options = OpenAiOptions {
        url: Some(server.url()),
        overrides,
        ..OpenAiOptions::default()
    };
    let engine = OpenAiEngine::start(options).await.unwrap();
    ready(engine.as_ref()).await;
    let info = engine.info();
    let features = info.borrow().models[0].capabilities.features();
    // Bound first: the borrow has to end before `info` does.
    #[allow(clippy::let_and_return)]
    features
}

#[tokio::test]
async fn what_a_server_was_started_for_is_found_out() {
    use Feature::{Chat, Completion, Embeddings, Rerank, Tokenize, Tools, Vision};
    let none = Overrides::default();
    let chat = llama(&[
        ("POST /v1/chat/completions", "400"),
        ("POST /v1/embeddings", "501"),
        ("POST /v1/rerank", "501"),
    ]);
    let can = found(chat, none).await;
    assert!(can.has(Chat) && can.has(Completion) && can.has(Tokenize) && !can.has(Embeddings) && !can.has(Rerank));
    let ranks = llama(&[
        ("POST /v1/chat/completions", "501"),
        ("POST /v1/embeddings", "400"),
        ("POST /v1/rerank", "400"),
    ]);
    let can = found(ranks, none).await;
    assert!(!can.has(Chat) && !can.has(Tools) && can.has(Embeddings) && can.has(Rerank));

    let mut embeds = vllm("m");
    embeds.push((
        "/openapi.json",
        r#"{"paths":{"/v1/embeddings":{},"/tokenize":{}}}"#.to_owned(),
    ));
    assert_eq!(
        found(embeds.clone(), none).await,
        Features::from_iter([Embeddings, Tokenize])
    );
    let overrides = Overrides::new(Rerank.into(), Tokenize.into()).unwrap();
    assert_eq!(
        found(embeds, overrides).await,
        Features::from_iter([Embeddings, Rerank])
    );

    let sglang = vec![
        ("/v1/models", r#"{"data":[{"id":"m","owned_by":"sglang"}]}"#.to_owned()),
        (
            "/model_info",
            r#"{"is_generation":true,"has_image_understanding":false}"#.to_owned(),
        ),
        ("/health", String::new()),
    ];
    let can = found(sglang, none).await;
    assert!(can.has(Chat) && !can.has(Vision) && !can.has(Embeddings));
}
