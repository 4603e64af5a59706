//! A lost worker stays visible for a while, with what became of its streams.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods
)]

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tokenbus_tests::ask::{ask_for, sim_text, with};
use tokenbus_tests::wait::eventually_in;
use tokenbus_tests::{Cluster, Role, eventually, within};

#[tokio::test]
async fn a_killed_worker_is_shown_as_lost_with_what_became_of_its_streams_until_it_is_back() {
    let sim = || Role::sim("m", 8).pace("0ms", "100ms");
    let first = sim().args(&["--id", "first"]);
    let mut cluster = Cluster::plan().worker(first.clone()).start().await;
    let client = cluster.client();
    let streamed = with(ask_for("m", 60), "stream", json!(true));
    let asked: Vec<_> = (0..3)
        .map(|_| {
            let streamed = streamed.clone();
            tokio::spawn(async move { client.transcript(&streamed).await.text() })
        })
        .collect();
    cluster.wait_active(3).await;
    cluster.add_worker(sim().args(&["--id", "second"])).await;
    cluster.workers[0].kill().await;
    cluster.workers.remove(0);

    let lost = eventually_in(Duration::from_secs(20), "the lost worker", async || {
        let capacity = cluster.capacity().await;
        let lost = &capacity["lost"][0];
        if lost["moved"] == 3 {
            Ok(lost.clone())
        } else {
            Err(capacity)
        }
    })
    .await;
    assert_eq!((&lost["worker"], &lost["models"]), (&json!("first"), &json!(["m"])));
    assert_eq!((&lost["active"], &lost["failed"]), (&json!(3), &json!(0)));
    eventually("the lost worker at the gateway", async || {
        let seen = client.get("/cluster").await.ok();
        let told = seen["lost"][0]["worker"] == "first" && seen["lost"][0]["moved"] == 3;
        if told { Ok(()) } else { Err(seen) }
    })
    .await;
    let answers = within("all answers", join_all(asked)).await;
    assert!(answers.into_iter().all(|answer| answer.unwrap() == sim_text(60)));

    cluster.add_worker(first).await;
    assert_eq!(cluster.capacity().await.get("lost"), None);
}
