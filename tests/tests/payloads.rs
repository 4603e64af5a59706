//! Requests of any size below the limit cross the bus, whatever the bus's own limit is.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods
)]

use bytes::Bytes;
use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};
use tokenbus_tests::ask::{ask, ask_for, sim_text};
use tokenbus_tests::http::CHAT;
use tokenbus_tests::{Client, Cluster, Gate, NatsOptions, Role, Script, Upstream};

/// `bytes` bytes of text in which a lost, doubled or swapped part shows.
fn content(bytes: usize) -> String {
    let mut text = String::with_capacity(bytes + 16);
    let mut number = 0_u64;
    while text.len() < bytes {
        text.push_str(&format!("{number:x} "));
        number += 1;
    }
    text.truncate(bytes);
    text
}

fn request(content: &str) -> Value {
    json!({"model": "m", "messages": [{"role": "user", "content": content}]})
}

#[tokio::test]
async fn payloads_of_100_bytes_to_20_megabytes_cross_a_bus_of_1_megabyte() {
    let upstream = Upstream::start(&["m"]).await;
    let cluster = Cluster::plan().worker(Role::proxy(&upstream, 4)).start().await;
    let mebibyte = 1024 * 1024;
    let sizes = [
        100,
        64 * 1024,
        mebibyte - 4096,
        mebibyte - 100,
        mebibyte,
        mebibyte + 1,
        3 * mebibyte,
        20 * 1_000_000,
    ];
    for (number, size) in sizes.into_iter().enumerate() {
        let sent = request(&content(size));
        assert_eq!(
            cluster.client().chat(&sent).await.content(),
            "Hello world",
            "{size} bytes"
        );
        let received = upstream.request(number).await.json();
        let same = received["messages"] == sent["messages"];
        assert!(same, "{size} bytes were changed on the way");
    }
    assert_eq!(upstream.requests().len(), sizes.len(), "a request was sent twice");
}

#[tokio::test]
async fn large_requests_cross_a_bus_with_a_very_small_limit_at_the_same_time() {
    let upstream = Upstream::start(&["m"]).await;
    let nats = NatsOptions {
        max_payload: 128 * 1024,
        ..NatsOptions::default()
    };
    let cluster = Cluster::plan()
        .nats(nats)
        .gateways(2)
        .worker(Role::proxy(&upstream, 2))
        .start()
        .await;
    let clients: Vec<Client> = cluster.gateways.iter().map(|gateway| gateway.client()).collect();
    let sent: Vec<Value> = (0..8)
        .map(|number| request(&format!("{number} {}", content(700_000))))
        .collect();
    let answers = join_all(sent.iter().enumerate().map(|(number, sent)| {
        let client = clients[number % 2];
        async move { client.chat(sent).await.content() }
    }));
    assert_eq!(answers.await, vec!["Hello world"; 8]);
    let mut received: Vec<Value> = upstream
        .requests()
        .iter()
        .map(|one| one.json()["messages"].clone())
        .collect();
    received.sort_by_key(Value::to_string);
    let mut expected: Vec<Value> = sent.iter().map(|one| one["messages"].clone()).collect();
    expected.sort_by_key(Value::to_string);
    assert!(received == expected, "requests were changed on the way");
}

#[tokio::test]
async fn a_body_over_the_limit_is_a_413_before_anything_is_published() {
    let upstream = Upstream::start(&["m"]).await;
    let cluster = Cluster::plan().worker(Role::proxy(&upstream, 1)).start().await;
    let sent = request(&content(33 * 1024 * 1024)).to_string();
    let answer = cluster
        .client()
        .request(Method::POST, CHAT, &[], Bytes::from(sent))
        .await;
    let error = answer.error(413);
    assert!(
        error["message"].as_str().unwrap().contains("32"),
        "the limit is named: {error}"
    );
    assert_eq!(cluster.client().chat(&ask("m")).await.content(), "Hello world");
    assert_eq!(upstream.requests().len(), 1);
}

#[tokio::test]
async fn a_large_request_whose_client_leaves_frees_the_slot() {
    let upstream = Upstream::start(&["m"]).await;
    let cluster = Cluster::plan().worker(Role::proxy(&upstream, 1)).start().await;
    let never = Gate::new();
    upstream.next(Script::texts(&["never"]).after(&never));
    let client = cluster.client();
    let large = tokio::spawn(async move { client.chat(&request(&content(4_000_000))).await });
    let asked = upstream.request(0).await;
    large.abort();
    asked.abandoned().await;
    assert_eq!(
        client.chat(&request(&content(4_000_000))).await.content(),
        "Hello world"
    );
}

#[tokio::test]
async fn large_answers_come_back_whole() {
    let upstream = Upstream::start(&["m"]).await;
    let cluster = Cluster::plan().worker(Role::proxy(&upstream, 1)).start().await;
    let large = content(600_000);
    upstream.always(Script::texts(&["a", &large, "b"]));
    let expected = format!("a{large}b");
    assert!(
        cluster.client().chat(&ask("m")).await.content() == expected,
        "the answer was changed"
    );
    assert!(
        cluster.client().transcript(&ask("m")).await.whole() == expected,
        "the stream was changed"
    );
}

#[tokio::test]
async fn long_streams_come_back_whole() {
    let cluster = Cluster::plan().worker(Role::sim("m", 2)).start().await;
    let client = cluster.client();
    let long = ask_for("m", 20_000);
    let (whole, streamed) = tokio::join!(client.chat(&long), client.transcript(&long));
    assert!(whole.content() == sim_text(20_000), "the answer was changed");
    assert!(streamed.whole() == sim_text(20_000), "the stream was changed");
}
