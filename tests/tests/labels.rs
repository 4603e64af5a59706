//! Keys that are bound to labels: their requests never leave the workers that have them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods)]

use futures_util::future::join_all;
use serde_json::json;
use tokenbus_tests::ask::{ask_for, sim_text, with};
use tokenbus_tests::keys::{bearer, becomes, create, text};
use tokenbus_tests::{Client, Cluster, Role, eventually};

/// Asks with `key`: the status, and which worker answered.
async fn asked(client: Client, key: &str, tokens: u64) -> (u16, String) {
    let headers = [("authorization", &*bearer(key)), ("x-tokenbus-explain", "1")];
    let answer = client.chat_with(&headers, &ask_for("m", tokens)).await;
    let worker = answer.header("x-tokenbus-worker").unwrap_or_default().to_owned();
    (answer.status.as_u16(), worker)
}

#[tokio::test]
async fn requests_of_a_bound_key_never_leave_the_workers_with_its_label() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.toml");
    let place = ["--keys", text(&file)];
    let bound = create(&place, "bound", &["--label", "region=eu"]).await;
    let free = create(&place, "free", &[]).await;
    let eu = |name: &str| {
        let role = Role::sim("m", 2).pace("1ms", "10ms");
        role.args(&["--label", "region=eu", "--label", "gpu=a100", "--id", name])
    };
    let plan = Cluster::plan().gateways(2).gateway_args(&["--keys", text(&file)]);
    let mut cluster = plan.start().await;
    cluster
        .add_worker(Role::sim("m", 64).args(&["--label", "region=us", "--id", "us"]))
        .await;
    // Nobody has the label: no other worker is asked.
    becomes(&cluster.gateways[0], &free, 200).await;
    assert_eq!(asked(cluster.client(), &bound, 1).await.0, 503);
    cluster.add_worker(eu("eu")).await;
    for gateway in &cluster.gateways {
        becomes(gateway, &bound, 200).await;
    }
    // Far more than its slots: they wait, though the other worker has room.
    let crowd = (0..30).map(|n| asked(cluster.gateways[n % 2].client(), &bound, 5));
    for heard in join_all(crowd).await {
        assert_eq!(heard, (200, "eu".to_owned()));
    }
    assert_eq!(asked(cluster.client(), &free, 1).await.0, 200);
    // In the middle of its answer its worker dies, and a request waits behind it for a slot.
    let headers = [("authorization", &*bearer(&bound))];
    let endless = with(ask_for("m", 400), "stream", json!(true));
    let mut streams = [
        cluster.client().stream_with(&headers, &endless).await,
        cluster.client().stream_with(&headers, &endless).await,
    ];
    let mut begun = Vec::new();
    for stream in &mut streams {
        begun.push(stream.text().await);
    }
    cluster.workers[1].kill().await;
    cluster.workers.remove(1);
    eventually("the dead worker's label to be gone", async || {
        let heard = asked(cluster.client(), &bound, 1).await;
        if heard.0 == 503 { Ok(()) } else { Err(heard) }
    })
    .await;
    // A successor with the label takes its streams; the worker that was there all the time did not.
    cluster.workers.push(eu("eu-2").start(&cluster.nats.url()).await);
    for (stream, begun) in streams.into_iter().zip(begun) {
        let rest = stream.transcript().await;
        assert_eq!(begun + &rest.text(), sim_text(400));
    }
    assert_eq!(asked(cluster.client(), &bound, 1).await, (200, "eu-2".to_owned()));
}
