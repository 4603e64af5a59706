//! Text completions: what reaches the engine, what comes back, and what happens when a worker dies.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use serde_json::{Value, json};
use tokenbus_tests::sse_client::Sse;
use tokenbus_tests::{Client, Cluster, Gate, Role, Script, Upstream};

const PATH: &str = "/v1/completions";

async fn complete(client: &Client, body: &Value) -> Value {
    client.post(PATH, &[], body).await.collect().await.ok()
}

async fn streamed(client: &Client, body: &Value) -> Sse {
    client.stream_at(PATH, &[], body).await
}

fn text_chunk(index: u32, text: &str, reason: Option<&str>) -> Value {
    json!([{"index": index, "text": text, "logprobs": null, "finish_reason": reason}])
}

#[tokio::test]
async fn fields_reach_the_engine_unchanged_and_its_choices_come_back() {
    let upstream = Upstream::start(&["m"]).await;
    let cluster = Cluster::plan().worker(Role::proxy(&upstream, 4)).start().await;
    let logprobs =
        json!({"tokens": ["a"], "token_logprobs": [-0.5], "top_logprobs": [{"a": -0.5}], "text_offset": [0]});
    let script = Script::stream()
        .choices(&json!([{"index": 0, "text": "a", "logprobs": logprobs, "finish_reason": null}]))
        .choices(&text_chunk(1, "b", None))
        .choices(&json!([{"index": 0, "text": "", "finish_reason": "stop", "stop_reason": 7}]))
        .choices(&text_chunk(1, "c", Some("length")))
        .usage(4, 3)
        .done();
    upstream.always(script);
    let sent = json!({"model": "m", "prompt": ["x", "y"], "max_tokens": 2, "temperature": 0.5, "suffix": "s", "echo": false,
        "logprobs": 1, "best_of": 1, "stop": ["z"], "seed": 7, "user": "u", "top_k": 3, "x": {"y": [null]}});
    let answer = complete(&cluster.client(), &sent).await;
    let exchange = upstream.request(0).await;
    assert_eq!(exchange.path, PATH);
    let got = exchange.json();
    for (name, value) in sent.as_object().unwrap() {
        assert_eq!(got.get(name), Some(value), "{name}");
    }
    assert_eq!(
        (&answer["object"], &answer["model"]),
        (&json!("text_completion"), &json!("m"))
    );
    assert!(answer["id"].as_str().unwrap().starts_with("cmpl-"));
    assert_eq!(answer["usage"]["total_tokens"], 7);
    let choices = &answer["choices"];
    assert_eq!((&choices[0]["text"], &choices[1]["text"]), (&json!("a"), &json!("bc")));
    assert_eq!(
        (&choices[0]["logprobs"], &choices[0]["stop_reason"]),
        (&logprobs, &json!(7))
    );

    let stream = streamed(&cluster.client(), &sent).await.transcript().await;
    let texts: Vec<&Value> = stream.chunks().map(|chunk| &chunk["choices"][0]["text"]).collect();
    assert_eq!(texts, ["a", "b", "", "c"]);
    assert!(stream.done());
}

#[tokio::test]
async fn prompts_of_every_form_are_completed() {
    let cluster = Cluster::plan().worker(Role::sim("m", 4)).start().await;
    let client = cluster.client();
    for (prompt, choices) in [
        (json!("a b"), 1),
        (json!(["a", "b c"]), 2),
        (json!([1, 2, 3]), 1),
        (json!([[1], [2, 3], [4]]), 3),
    ] {
        let answer = complete(&client, &json!({"model": "m", "prompt": prompt, "max_tokens": 2})).await;
        let texts: Vec<&Value> = answer["choices"]
            .as_array()
            .unwrap()
            .iter()
            .map(|choice| &choice["text"])
            .collect();
        assert_eq!(texts, vec![&json!("t0 t1 "); choices], "{prompt}");
    }
    let echoed = json!({"model": "m", "prompt": "once ", "echo": true, "max_tokens": 1});
    assert_eq!(complete(&client, &echoed).await["choices"][0]["text"], "once t0 ");
    let many: Vec<String> = (0..300).map(|number| number.to_string()).collect();
    let answer = complete(&client, &json!({"model": "m", "prompt": many, "max_tokens": 1})).await;
    assert_eq!(
        answer["choices"].as_array().unwrap().len(),
        300,
        "more than a chat may have"
    );
    let refused = client
        .post(PATH, &[], &json!({"model": "m", "prompt": []}))
        .await
        .collect()
        .await;
    assert_eq!(refused.error(400)["param"], "prompt");
}

#[tokio::test]
async fn an_engines_refusal_is_a_status_and_its_failure_an_error_event() {
    let upstream = Upstream::start(&["m"]).await;
    let cluster = Cluster::plan().worker(Role::proxy(&upstream, 4)).start().await;
    let body = json!({"model": "m", "prompt": "a"});
    // An engine that has answered once takes what tokenbus adds: its refusals are about the request.
    complete(&cluster.client(), &body).await;
    upstream.next(Script::error(
        400,
        "invalid_request_error",
        None,
        "suffix is not supported",
    ));
    let refused = cluster.client().post(PATH, &[], &body).await.collect().await;
    assert_eq!(refused.error(400)["message"], "suffix is not supported");
    // A plain one would go on by a longer prompt.
    let body = json!({"model": "m", "prompt": "a", "echo": true});
    upstream.next(Script::stream().choices(&text_chunk(0, "a", None)).cut());
    let broken = streamed(&cluster.client(), &body).await.transcript().await;
    assert!(broken.error().is_some() && !broken.done(), "{broken:#?}");
}

#[tokio::test]
async fn a_completion_goes_on_elsewhere_when_its_worker_is_killed() {
    let mut cluster = Cluster::plan()
        .worker(Role::sim("m", 1).pace("1ms", "5ms"))
        .worker(Role::sim("m", 1).pace("1ms", "5ms"))
        .start()
        .await;
    let body = json!({"model": "m", "prompt": "a", "max_tokens": 200});
    let mut stream = streamed(&cluster.client(), &body).await;
    let first = stream.chunk().await;
    assert_eq!(first["choices"][0]["text"], "t0 ");
    let at = cluster.busy().await;
    cluster.workers.remove(at).kill().await;
    let rest = stream.transcript().await;
    let text: String = rest
        .chunks()
        .filter_map(|chunk| chunk["choices"][0]["text"].as_str())
        .collect();
    let whole: String = (1..200).map(|number| format!("t{number} ")).collect();
    assert_eq!(text, whole);
    assert!(rest.done());
}

#[tokio::test]
async fn a_client_that_leaves_frees_the_slot() {
    let upstream = Upstream::start(&["m"]).await;
    let cluster = Cluster::plan().worker(Role::proxy(&upstream, 1)).start().await;
    let gate = Gate::new();
    upstream.next(Script::stream().choices(&text_chunk(0, "a", None)).gate(&gate).done());
    let mut stream = streamed(&cluster.client(), &json!({"model": "m", "prompt": "a"})).await;
    stream.chunk().await;
    drop(stream);
    upstream.request(0).await.abandoned().await;
}
