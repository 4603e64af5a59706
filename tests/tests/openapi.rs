//! The OpenAPI document of a running cluster: valid, and true.
#![allow(clippy::indexing_slicing)]

use tokenbus_tests::clients::Clients;
use tokenbus_tests::{Cluster, NatsOptions, Role};

async fn cluster() -> (Cluster, String) {
    let nats = NatsOptions {
        jetstream: true,
        ..NatsOptions::default()
    };
    let cluster = Cluster::plan().nats(nats).worker(Role::sim("sim", 64)).start().await;
    let url = format!("http://{}", cluster.gateways[0].address());
    (cluster, url)
}

#[tokio::test]
async fn the_document_is_valid_openapi() {
    let Some(python) = Clients::of("validator").await else {
        return;
    };
    let (_cluster, url) = cluster().await;
    python.run("openapi_valid.py", &[&url]).await;
}

#[tokio::test]
async fn the_gateway_keeps_to_its_document() {
    let Some(python) = Clients::of("schemathesis").await else {
        return;
    };
    let (_cluster, url) = cluster().await;
    python.run("openapi_schemathesis.py", &[&url]).await;
}
