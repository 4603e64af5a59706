//! Names that stand for other models, at the edge.

use serde_json::{Value, json};
use tokenbus_api::ListedModel;
use tokenbus_gateway::testing::{CallError, HttpOptions, ModelConfig, ModelTable};
use tokenbus_protocol::{Capabilities, Name};

use crate::support::*;

const MODELS: &str = "[models.gpt]\ntargets = [\"a\", \"b\"]\n[models.a.defaults]\ntop_k = 7\n";

async fn gateway() -> Gateway {
    let extras = Extras {
        models: ModelConfig::new(ModelTable::parse(MODELS, false).unwrap()),
        ..Extras::default()
    };
    let gateway = Gateway::with_extras(HttpOptions::default(), extras).await;
    let listed = |name: &str| ListedModel {
        name: name.to_owned(),
        created: 7,
        context_length: Some(100),
        capabilities: Capabilities::default(),
        live: true,
    };
    gateway.list(vec![listed("a"), listed("b")]);
    gateway
}

fn ask_gpt(stream: bool) -> Value {
    let mut asked = ask(stream);
    asked["model"] = json!("gpt");
    asked
}

#[tokio::test]
async fn the_engine_gets_the_real_model_and_its_defaults_and_the_client_its_own_name() {
    let mut gateway = gateway().await;
    for stream in [false, true] {
        let client = gateway.chat(ask_gpt(stream));
        let opened = gateway.call().await;
        assert_eq!(opened.call.model, "a");
        let body: Value = serde_json::from_slice(&opened.call.body).unwrap();
        let mut expected = ask_gpt(stream);
        expected["model"] = json!("a");
        expected["top_k"] = json!(7);
        assert_eq!(body, expected);
        opened.say(Name::new("w1").unwrap()).await;
        opened.say("hi").await;
        opened.say(reason("stop")).await;
        opened.say(counted(1, 1)).await;
        let answer = client.await.unwrap();
        assert_eq!(answer.status, 200);
        let model = if stream {
            let first = answer.text.split("\n\n").next().unwrap();
            serde_json::from_str::<Value>(first.strip_prefix("data: ").unwrap()).unwrap()["model"].clone()
        } else {
            answer.json()["model"].clone()
        };
        assert_eq!(model, "gpt");
        let record = gateway.record().await;
        assert_eq!((record.model.as_str(), record.served.as_deref()), ("gpt", Some("a")));
    }
}

#[tokio::test]
async fn the_next_model_is_tried_where_the_first_cannot() {
    let mut gateway = gateway().await;
    let client = gateway.chat(ask_gpt(false));
    let opened = gateway.call().await;
    let retry_after = std::time::Duration::from_secs(3);
    let model = opened.call.model.clone();
    opened.say(CallError::Full { model, retry_after }).await;
    let opened = gateway.call().await;
    assert_eq!(opened.call.model, "b");
    assert!(!String::from_utf8_lossy(&opened.call.body).contains("top_k"));
    opened.say(Name::new("w1").unwrap()).await;
    opened.say("hi").await;
    opened.say(reason("stop")).await;
    opened.say(counted(1, 1)).await;
    assert_eq!(client.await.unwrap().json()["model"], "gpt");
    assert_eq!(gateway.record().await.served.as_deref(), Some("b"));
    assert!(gateway.untouched());
}

#[tokio::test]
async fn aliases_are_listed_and_named_among_what_there_is() {
    let mut gateway = gateway().await;
    let list = gateway.get("/v1/models").await.json();
    let ids: Vec<&Value> = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| &model["id"])
        .collect();
    assert_eq!(ids, ["a", "b", "gpt"]);
    let one = gateway.get("/v1/models/gpt").await.json();
    assert_eq!(
        (&one["id"], &one["context_length"], &one["live"]),
        (&json!("gpt"), &json!(100), &json!(true))
    );
    let client = gateway.chat(ask(false));
    let known = vec!["a".to_owned(), "b".to_owned()];
    let model = "org/m:7b".to_owned();
    gateway.call().await.say(CallError::UnknownModel { model, known }).await;
    assert!(client.await.unwrap().text.contains("Available models: a, b, gpt"));
}
