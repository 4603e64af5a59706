//! The published Python clients of OpenAI and Anthropic on the Responses and Messages APIs, and their
//! types over what the translations are known to write.
#![allow(clippy::indexing_slicing)]

use tokenbus_tests::clients::Clients;
use tokenbus_tests::{Cluster, NatsOptions, Role};

const API: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../api/src");

async fn cluster() -> Cluster {
    let nats = NatsOptions {
        jetstream: true,
        ..NatsOptions::default()
    };
    Cluster::plan()
        .nats(nats)
        .gateways(2)
        .worker(Role::sim("sim", 16))
        .start()
        .await
}

#[tokio::test]
async fn openais_client_has_conversations_through_two_gateways() {
    let Some(clients) = Clients::of("sdk").await else {
        return;
    };
    let cluster = cluster().await;
    let url = |n: usize| format!("http://{}/v1", cluster.gateways[n].address());
    clients.run("openai_responses.py", &[&url(0), &url(1)]).await;
}

#[tokio::test]
async fn anthropics_client_has_messages_answered() {
    let Some(clients) = Clients::of("sdk").await else {
        return;
    };
    let cluster = cluster().await;
    let url = format!("http://{}", cluster.gateways[0].address());
    clients.run("anthropic_messages.py", &[&url]).await;
}

#[tokio::test]
async fn golden_responses_are_what_openais_types_say() {
    let Some(clients) = Clients::of("sdk").await else {
        return;
    };
    let folder = format!("{API}/responses/golden");
    clients.run("golden_types.py", &["responses", &folder]).await;
}

#[tokio::test]
async fn golden_messages_are_what_anthropics_types_say() {
    let Some(clients) = Clients::of("sdk").await else {
        return;
    };
    let folder = format!("{API}/messages/golden");
    clients.run("golden_types.py", &["messages", &folder]).await;
}
