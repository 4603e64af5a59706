//! The OpenAPI document against the router: it describes every route and no other.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::Value;
use tokenbus_gateway::testing::paths;

use crate::support::{Answer, Gateway, Scripted, soon};

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// A path of the router as OpenAPI writes it.
fn written(path: &str) -> String {
    path.replace("{*", "{")
}

async fn document(gateway: &Gateway) -> Value {
    let answer = gateway.get("/openapi.json").await;
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, "application/json")
    );
    answer.json()
}

#[tokio::test]
async fn the_document_has_the_paths_of_the_router() {
    let gateway = Gateway::start().await;
    let document = document(&gateway).await;
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let described: BTreeSet<String> = document["paths"].as_object().unwrap().keys().cloned().collect();
    let routed: BTreeSet<String> = paths::<Scripted>().into_iter().map(written).collect();
    assert_eq!(described, routed);
}

#[tokio::test]
async fn a_method_is_described_where_it_is_allowed_and_only_there() {
    let gateway = Gateway::start().await;
    let document = document(&gateway).await;
    for (path, operations) in document["paths"].as_object().unwrap() {
        for method in METHODS {
            let described = operations.get(method).is_some();
            let verb = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let url = gateway.url(&path.replace("{id}", "x").replace("{file}", "page.js"));
            let answer = soon(gateway.client.request(verb, url).body("[]").send()).await.unwrap();
            let answer = Answer::of(answer).await;
            assert_eq!(answer.status != 405, described, "{method} {path}: {}", answer.text);
            assert!(!answer.text.contains("unknown_url"), "{method} {path}: {}", answer.text);
            if described {
                let responses = operations[method]["responses"].as_object().unwrap();
                assert!(responses.contains_key(&answer.status.to_string()), "{method} {path}");
            } else {
                assert!(!answer.header("allow").is_empty(), "{method} {path}");
            }
        }
    }
}
