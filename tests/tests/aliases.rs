//! Aliases, fallbacks and defaults of models with real processes.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use serde_json::{Value, json};
use tokenbus_tests::ask::{ask, ask_for, sim_text, with};
use tokenbus_tests::binary::run;
use tokenbus_tests::limits::STOP;
use tokenbus_tests::metrics::{parse, sum};
use tokenbus_tests::{Cluster, Role, eventually};

const MODELS: &str = r#"
[models.gpt-4o-mini]
targets = ["large", "small"]
[models.gpt-4o-mini.defaults]
max_tokens = 4
[models.small.defaults]
temperature = 0.5
top_k = 3
"#;

fn echo(model: &str) -> Value {
    with(ask(model), "sim", json!({"echo": true}))
}

#[tokio::test]
async fn a_name_stands_for_the_first_model_that_can_take_the_request() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("models.toml");
    std::fs::write(&file, MODELS).unwrap();
    let plan = Cluster::plan().gateway_args(&["--models", file.to_str().unwrap()]);
    let mut cluster = plan.worker(Role::sim("small", 2)).start().await;
    let client = cluster.client();
    // Nobody serves the large one.
    let answer = client.chat(&ask("gpt-4o-mini")).await;
    assert_eq!(answer.content(), sim_text(4), "the default bound");
    assert_eq!(answer.ok()["model"], "gpt-4o-mini");
    assert_eq!(client.chat(&ask_for("gpt-4o-mini", 2)).await.content(), sim_text(2));
    let transcript = client.transcript(&ask("gpt-4o-mini")).await;
    assert_eq!(transcript.whole(), sim_text(4));
    let engine: Value = serde_json::from_str(&client.chat(&echo("gpt-4o-mini")).await.content()).unwrap();
    assert_eq!((&engine["model"], &engine["max_tokens"]), (&json!("small"), &json!(4)));
    assert_eq!((&engine["temperature"], &engine["top_k"]), (&json!(0.5), &json!(3)));
    // The model by its own name has its own defaults only.
    let engine: Value = serde_json::from_str(&client.chat(&echo("small")).await.content()).unwrap();
    assert_eq!(
        (&engine["model"], &engine["max_tokens"]),
        (&json!("small"), &Value::Null)
    );

    cluster.lists("gpt-4o-mini").await;
    cluster.add_worker(Role::sim("large", 1)).await;
    cluster.lists("large").await;
    let engine: Value = serde_json::from_str(&client.chat(&echo("gpt-4o-mini")).await.content()).unwrap();
    assert_eq!(engine["model"], "large");
    // It is full: the next one takes it.
    let held = with(ask_for("large", 3), "sim", json!({"hang_after": 1}));
    let mut held = client.stream(&held).await;
    assert_eq!(held.text().await, "t0 ");
    cluster.wait_active(1).await;
    eventually("the small model to take over", async || {
        let answer = client.chat(&echo("gpt-4o-mini")).await.content();
        let engine: Value = serde_json::from_str(&answer).unwrap();
        if engine["model"] == "small" {
            Ok(())
        } else {
            Err(engine)
        }
    })
    .await;
}

#[tokio::test]
async fn a_name_whose_models_nobody_serves_is_known_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("models.toml");
    std::fs::write(&file, MODELS).unwrap();
    let plan = Cluster::plan().gateway_args(&["--models", file.to_str().unwrap()]);
    let cluster = plan.worker(Role::sim("other", 1)).start().await;
    let client = cluster.client();
    let answer = client.chat(&ask("gpt-4o-mini")).await;
    let error = answer.error(503);
    assert_eq!(error["code"], "no_worker");
    assert!(error["message"].as_str().unwrap().contains("gpt-4o-mini"), "{error}");
    assert!(answer.retry_after() >= 1);
    let unknown = client.chat(&ask("small")).await.error(404);
    assert!(
        unknown["message"].as_str().unwrap().contains("gpt-4o-mini, other"),
        "{unknown}"
    );
}

#[tokio::test]
async fn aliases_are_read_again_when_the_settings_file_changes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokenbus.toml");
    let path = file.to_str().unwrap().to_owned();
    let settings = |models: &str| format!("[gateway]\ncommit-after = \"9s\"\n{models}");
    let alias = |name: &str| settings(&format!("[models.{name}]\ntargets = [\"m\"]\n"));
    std::fs::write(&file, alias("one")).unwrap();
    let plan = Cluster::plan().gateway_args(&["--config", &path]);
    let cluster = plan.worker(Role::sim("m", 1)).start().await;
    cluster.lists("one").await;
    std::fs::write(&file, alias("two")).unwrap();
    cluster.lists("two").await;
    assert_eq!(cluster.client().chat(&ask("one")).await.status, 404);
    std::fs::write(&file, settings("[models.three]\ntargets = \"m\"\n")).unwrap();
    eventually("a refused reload to be counted", async || {
        let page = cluster.client().get("/metrics").await.text();
        let labels = [("what", "models"), ("outcome", "refused")];
        let refused = sum(&parse(&page), "tokenbus_gateway_reloads_total", &labels);
        if refused > 0.0 { Ok(()) } else { Err(page) }
    })
    .await;
    assert_eq!(cluster.client().chat(&ask_for("two", 1)).await.content(), sim_text(1));

    let said = run(STOP, &["gateway", "--config", &path, "--listen", "127.0.0.1:0"]).await;
    assert_eq!((said.code, said.stderr.lines().count()), (Some(2), 1), "{said:?}");
    assert!(
        said.stderr.contains(&path) && said.stderr.contains("line 4"),
        "{said:?}"
    );
}
