//! Reasoning that clients carry in `encrypted_content`: sealed with a key that all gateways of the cluster share.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use http::StatusCode;
use serde_json::{Value, json};
use tokenbus_tests::{Cluster, NatsOptions, Process, Role, Script, Upstream, eventually};

const RESPONSES: &str = "/v1/responses";

async fn behind(upstream: &Upstream, jetstream: bool, args: &[&str]) -> Cluster {
    let nats = NatsOptions {
        jetstream,
        ..NatsOptions::default()
    };
    let plan = Cluster::plan().nats(nats).gateways(2).gateway_args(args);
    plan.worker(Role::proxy(upstream, 8)).start().await
}

/// Lets `gateway` answer with the reasoning `text`, and returns the item that has it, without the text itself.
async fn sealed(gateway: &Process, upstream: &Upstream, text: &str) -> Value {
    let script = Script::stream().role().delta(&json!({"reasoning_content": text}));
    upstream.next(script.text("Yes.").finish("stop").usage(3, 3).done());
    let request = json!({"model": "m", "input": "hi", "store": false, "include": ["reasoning.encrypted_content"]});
    let answer = gateway.client().post(RESPONSES, &[], &request).await.collect().await;
    let mut item = answer.ok()["output"][0].clone();
    assert_eq!(item["type"], "reasoning", "{item}");
    item["content"] = json!([]);
    item
}

/// Hands `item` to `gateway`, and returns the reasoning that reached the engine, or the refusal.
async fn carry(gateway: &Process, upstream: &Upstream, item: &Value, tenant: &str) -> Result<Value, Value> {
    let request = json!({"model": "m", "store": false, "input": [{"role": "user", "content": "hi"}, item,
        {"role": "assistant", "content": "Yes."}, {"role": "user", "content": "Why?"}]});
    let headers = [("x-tokenbus-tenant", tenant)];
    let headers = if tenant.is_empty() { &[][..] } else { &headers };
    let answer = gateway
        .client()
        .post(RESPONSES, headers, &request)
        .await
        .collect()
        .await;
    if answer.status != StatusCode::OK {
        return Err(answer.error(400));
    }
    let asked = upstream.requests().last().unwrap().json();
    Ok(asked["messages"][1]["reasoning_content"].clone())
}

async fn opens(gateway: &Process, upstream: &Upstream, item: &Value, text: &str) {
    assert_eq!(carry(gateway, upstream, item, "").await, Ok(json!(text)), "{item}");
}

async fn is_refused(gateway: &Process, upstream: &Upstream, item: &Value, tenant: &str) {
    let refused = carry(gateway, upstream, item, tenant).await.unwrap_err();
    assert_eq!(refused["code"], "invalid_encrypted_content", "{refused}");
    assert_eq!(refused["type"], "invalid_request_error", "{refused}");
}

fn content(item: &Value) -> &str {
    item["encrypted_content"].as_str().unwrap()
}

/// The beginning of a content, which names its key.
fn key(item: &Value) -> &str {
    content(item).get(..14).unwrap()
}

fn with(item: &Value, content: &str) -> Value {
    let mut item = item.clone();
    item["encrypted_content"] = json!(content);
    item
}

#[tokio::test]
async fn any_gateway_opens_what_another_sealed_also_after_a_restart_of_everything() {
    let upstream = Upstream::start(&["m"]).await;
    let mut cluster = behind(&upstream, true, &[]).await;
    let first = sealed(&cluster.gateways[0], &upstream, "Blue light.").await;
    assert!(content(&first).starts_with("tb2."), "{first}");
    opens(&cluster.gateways[1], &upstream, &first, "Blue light.").await;
    let second = sealed(&cluster.gateways[1], &upstream, "Red light.").await;
    assert_eq!(key(&first), key(&second), "there is one key");

    let before = upstream.requests().len();
    let gateway = &cluster.gateways[1];
    let flipped = content(&first).replacen(&content(&first)[40..44], "____", 1);
    for wrong in [&flipped, "tb1.*", &content(&first)[..30]] {
        is_refused(gateway, &upstream, &with(&first, wrong), "").await;
    }
    is_refused(gateway, &upstream, &first, "mallory").await;
    assert_eq!(upstream.requests().len(), before, "what is refused reaches no engine");
    // What another server encrypted is passed over: its conversation goes on here.
    let foreign = with(&first, "gAAAAABoForeign");
    assert_eq!(carry(gateway, &upstream, &foreign, "").await, Ok(Value::Null));
    // As versions before wrote it.
    opens(gateway, &upstream, &with(&first, "tb1.R3JlZW4u"), "Green.").await;

    cluster.gateways[0].kill().await;
    assert!(cluster.gateways[1].stop().await.success());
    cluster.gateways.clear();
    cluster.nats.restart().await;
    let url = cluster.nats.url();
    for name in ["gateway 3", "gateway 4"] {
        let gateway = Role::gateway().named(name).start(&url).await;
        eventually("a worker", async || {
            let answer = gateway.client().get("/v1/models").await;
            if answer.text().contains("\"m\"") {
                Ok(())
            } else {
                Err(answer)
            }
        })
        .await;
        opens(&gateway, &upstream, &first, "Blue light.").await;
        opens(&gateway, &upstream, &second, "Red light.").await;
        let third = sealed(&gateway, &upstream, "Green light.").await;
        assert_eq!(key(&third), key(&first), "the key is the same");
    }
}

#[tokio::test]
async fn a_key_gets_a_successor_and_still_opens() {
    let upstream = Upstream::start(&["m"]).await;
    let cluster = behind(&upstream, true, &["--seal-key-age", "3s"]).await;
    let first = sealed(&cluster.gateways[0], &upstream, "Blue.").await;
    let second = eventually("another key", async || {
        let item = sealed(&cluster.gateways[0], &upstream, "Red.").await;
        if key(&item) == key(&first) { Err(item) } else { Ok(item) }
    })
    .await;
    for gateway in &cluster.gateways {
        opens(gateway, &upstream, &first, "Blue.").await;
        opens(gateway, &upstream, &second, "Red.").await;
    }
}

#[tokio::test]
async fn keys_that_the_bucket_lost_are_put_back_by_who_knows_them() {
    let upstream = Upstream::start(&["m"]).await;
    let mut cluster = behind(&upstream, true, &[]).await;
    let first = sealed(&cluster.gateways[0], &upstream, "Blue.").await;
    let jetstream = async_nats::jetstream::new(cluster.nats.client().await);
    jetstream.delete_key_value("tb_seal").await.unwrap();
    // This one never knew the first key, and makes another.
    let second = sealed(&cluster.gateways[1], &upstream, "Red.").await;
    assert_ne!(key(&first), key(&second));
    is_refused(&cluster.gateways[1], &upstream, &first, "").await;
    // The other one looks for the second, and puts the first beside it.
    opens(&cluster.gateways[0], &upstream, &second, "Red.").await;
    opens(&cluster.gateways[0], &upstream, &first, "Blue.").await;
    opens(&cluster.gateways[1], &upstream, &first, "Blue.").await;
    assert!(cluster.gateways[1].stop().await.success());
}

#[tokio::test]
async fn without_jetstream_reasoning_is_carried_unsealed_and_no_client_gets_an_error() {
    let upstream = Upstream::start(&["m"]).await;
    let cluster = behind(&upstream, false, &[]).await;
    let item = sealed(&cluster.gateways[0], &upstream, "Blue.").await;
    assert_eq!(content(&item), "tb1.Qmx1ZS4");
    opens(&cluster.gateways[1], &upstream, &item, "Blue.").await;
    is_refused(&cluster.gateways[1], &upstream, &with(&item, "tb1.*"), "").await;
}
