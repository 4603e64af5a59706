//! The worker as a NATS service, and what is left of one that has stopped: nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::{Nats, Running, name, sim, subjects, within};

#[tokio::test]
async fn it_is_listed_as_a_nats_service() {
    let nats = Nats::start().await;
    let worker = Running::start(&nats, "w1", sim(1, 0, 1)).await;
    let client = nats.client().await;
    let info = within("service info", client.request("$SRV.INFO.tokenbus-worker", "".into()))
        .await
        .unwrap();
    let info: serde_json::Value = serde_json::from_slice(&info.payload).unwrap();
    assert_eq!(info["name"], "tokenbus-worker");
    assert_eq!(info["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(info["metadata"]["worker"], "w1");
    assert_eq!(info["metadata"]["models"], r#"["m"]"#);
    assert_eq!(info["metadata"]["engine"], "sim");
    for verb in ["PING", "STATS"] {
        within(verb, client.request(format!("$SRV.{verb}.tokenbus-worker"), "".into()))
            .await
            .unwrap();
    }
    worker.stopped().await;
    let gone = within("no responders", client.request("$SRV.PING.tokenbus-worker", "".into())).await;
    assert_eq!(gone.unwrap_err().kind(), async_nats::RequestErrorKind::NoResponders);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_asks_a_worker_that_has_stopped_hears_at_once_that_nobody_is_there() {
    let nats = Nats::start().await;
    let client = nats.client().await;
    for _ in 0..20 {
        let worker = Running::start(&nats, "w1", sim(1, 0, 1)).await;
        worker.stopped().await;
        let control = subjects().control(&name("w1"));
        for subject in ["$SRV.PING", "$SRV.INFO.tokenbus-worker", "$SRV.STATS", control.as_str()] {
            let answer = within("no responders", client.request(subject.to_owned(), "".into())).await;
            let error = answer.map(drop).expect_err(subject);
            assert_eq!(error.kind(), async_nats::RequestErrorKind::NoResponders, "{subject}");
        }
    }
}
