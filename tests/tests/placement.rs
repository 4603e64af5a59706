//! Which worker a request goes to, and where it goes when that worker dies.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods
)]

use futures_util::future::{join_all, select_all};
use serde_json::json;
use tokenbus_tests::ask::{ask, ask_for, sim_text, with};
use tokenbus_tests::fake_worker::{FakeWorker, finish, last, text};
use tokenbus_tests::{Cluster, Gate, Role, Script, Upstream, eventually, metrics, within};

/// The upstream that is asked first, by its place in `upstreams`.
async fn first_asked(upstreams: &[Upstream]) -> usize {
    let asked = upstreams.iter().map(|upstream| Box::pin(upstream.request(0)));
    select_all(asked).await.1
}

#[tokio::test]
async fn a_worker_killed_before_the_first_token_is_replaced_unseen() {
    for streaming in [true, false] {
        let upstreams = [Upstream::start(&["m"]).await, Upstream::start(&["m"]).await];
        let roles = upstreams.iter().map(|upstream| Role::proxy(upstream, 2));
        let mut cluster = roles
            .fold(Cluster::plan(), tokenbus_tests::cluster::Plan::worker)
            .start()
            .await;
        let gate = Gate::new();
        for upstream in &upstreams {
            upstream.always(Script::texts(&["whole ", "answer"]).after(&gate));
        }
        let client = cluster.client();
        let body = with(ask("m"), "stream", json!(streaming));
        let answer = tokio::spawn(async move { client.chat(&body).await });
        let hit = first_asked(&upstreams).await;
        cluster.workers[hit].kill().await;
        let retried = upstreams[1 - hit].request(0).await;
        assert_eq!(retried.json()["messages"], ask("m")["messages"]);
        gate.open();
        let answer = within("the answer", answer).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(
            answer.text().contains("whole ") && !answer.text().contains("error"),
            "{}",
            answer.text()
        );
    }
}

#[tokio::test]
async fn a_worker_killed_mid_stream_is_an_error_event_where_its_engine_cannot_continue() {
    let upstreams = [Upstream::start(&["m"]).await, Upstream::start(&["m"]).await];
    let roles = upstreams.iter().map(|upstream| Role::proxy(upstream, 2));
    let mut cluster = roles
        .fold(Cluster::plan(), tokenbus_tests::cluster::Plan::worker)
        .start()
        .await;
    let never = Gate::new();
    for upstream in &upstreams {
        upstream.always(Script::stream().role().text("Half an ").gate(&never));
    }
    let mut stream = cluster.client().stream(&ask("m")).await;
    assert_eq!(stream.text().await, "Half an ");
    let hit = first_asked(&upstreams).await;
    cluster.workers[hit].kill().await;
    let rest = stream.transcript().await;
    assert_eq!(rest.broken_off()["code"], "worker_lost");
    assert_eq!(rest.text(), "", "text was repeated: {rest:#?}");
}

#[tokio::test]
async fn a_worker_killed_mid_stream_never_leaves_a_hang_or_half_an_answer() {
    let mut cluster = Cluster::plan()
        .worker(Role::sim("m", 8).pace("10ms", "10ms"))
        .worker(Role::sim("m", 8).pace("10ms", "10ms"))
        .start()
        .await;
    let client = cluster.client();
    let mut streams = Vec::new();
    for _ in 0..8 {
        let mut stream = client.stream(&ask_for("m", 100)).await;
        let begun = stream.text().await;
        streams.push((begun, stream));
    }
    cluster.workers[0].kill().await;
    let ended = join_all(
        streams
            .into_iter()
            .map(|(begun, stream)| async move { (begun, stream.transcript().await) }),
    );
    let mut whole = 0;
    for (begun, rest) in ended.await {
        let text = begun + &rest.text();
        if rest.error().is_some() {
            assert_eq!(rest.broken_off()["code"], "worker_lost");
            assert!(sim_text(100).starts_with(&text), "{text}");
        } else {
            assert_eq!(text, sim_text(100));
            assert_eq!(rest.finish_reasons(0), ["length"]);
            assert!(rest.done());
            whole += 1;
        }
    }
    assert!(whole >= 1, "streams of the worker that lived were hurt");
}

#[tokio::test]
async fn skewed_load_goes_to_the_lighter_worker() {
    let heavy = Upstream::start(&["shared", "other"]).await;
    let light = Upstream::start(&["shared"]).await;
    let cluster = Cluster::plan()
        .worker(Role::proxy(&heavy, 8))
        .worker(Role::proxy(&light, 8))
        .start()
        .await;
    let gate = Gate::new();
    let client = cluster.client();
    heavy.always(Script::texts(&["heavy"]).after(&gate));
    let busy: Vec<_> = (0..6)
        .map(|_| tokio::spawn(async move { client.chat(&ask("other")).await.content() }))
        .collect();
    heavy.wait_running(6).await;
    cluster.wait_active(6).await;
    for _ in 0..10 {
        assert_eq!(client.chat(&ask("shared")).await.content(), "Hello world");
    }
    assert_eq!((heavy.requests().len(), light.requests().len()), (6, 10));
    gate.open();
    within("the busy ones", join_all(busy)).await;
}

#[tokio::test]
async fn a_burst_is_spread_over_the_workers_of_its_model() {
    let upstreams = [
        Upstream::start(&["m"]).await,
        Upstream::start(&["m"]).await,
        Upstream::start(&["m"]).await,
    ];
    let roles = upstreams.iter().map(|upstream| Role::proxy(upstream, 4));
    let cluster = roles
        .fold(Cluster::plan().gateways(2), tokenbus_tests::cluster::Plan::worker)
        .start()
        .await;
    let gate = Gate::new();
    for upstream in &upstreams {
        upstream.always(Script::texts(&["done"]).after(&gate));
    }
    let clients = [cluster.gateways[0].client(), cluster.gateways[1].client()];
    // As many as there are slots: each worker must end up full, and none of them wait.
    let asked: Vec<_> = (0..12)
        .map(|number| {
            let client = clients[number % 2];
            tokio::spawn(async move { client.chat(&ask("m")).await.content() })
        })
        .collect();
    for upstream in &upstreams {
        upstream.wait_running(4).await;
    }
    gate.open();
    let answers = within("all answers", join_all(asked)).await;
    assert!(answers.into_iter().all(|answer| answer.unwrap() == "done"));
}

#[tokio::test]
async fn any_gateway_serves_any_request_of_three_workers_and_two_models() {
    let cluster = Cluster::plan()
        .gateways(2)
        .coordinators(2)
        .worker(Role::sim("alpha", 4))
        .worker(Role::sim("alpha", 4).model("beta"))
        .worker(Role::sim("beta", 4))
        .start()
        .await;
    let clients: Vec<_> = cluster.gateways.iter().map(|gateway| gateway.client()).collect();
    let asked = (0..60).map(async |number: usize| {
        let (model, client) = (["alpha", "beta"][number / 2 % 2], clients[number % 2]);
        let transcript = client.transcript(&ask_for(model, 20)).await;
        assert_eq!(transcript.whole(), sim_text(20));
        assert_eq!(transcript.chunks().next().unwrap()["model"], model);
    });
    join_all(asked).await;
}

#[tokio::test]
async fn a_request_that_nobody_accepts_is_published_again_under_its_id() {
    let cluster = Cluster::plan().coordinators(0).start().await;
    let mut worker = FakeWorker::join(&cluster.nats, "fake", "m").await;
    let client = cluster.client();
    let answer = tokio::spawn(async move { client.chat(&ask("m")).await });
    let first = worker.next_request().await;
    let second = worker.next_request().await;
    assert_eq!(second.id, first.id);
    assert!(second.attempt > first.attempt, "{second:?}");
    assert_eq!(second.body, first.body);
    let accepted = worker.accepted(&second, false);
    worker
        .send(
            &second,
            vec![(0, accepted), (1, text("ok")), (2, last("stop")), (3, finish())],
        )
        .await;
    assert_eq!(within("the answer", answer).await.unwrap().content(), "ok");
}

#[tokio::test]
async fn a_worker_that_knows_the_id_does_not_run_it_twice() {
    // The worker is frozen for longer than an `Accepted` may take, so the gateway publishes again
    // and again; what it then runs, it runs once.
    let upstream = Upstream::start(&["m"]).await;
    let cluster = Cluster::plan()
        .coordinators(0)
        .worker(Role::proxy(&upstream, 4))
        .start()
        .await;
    let client = cluster.client();
    let watch = cluster.nats.client().await;
    let mut published = watch.subscribe("tb.v1.req.>").await.unwrap();
    tokenbus_tests::fake_worker::round_trip(&watch).await;
    cluster.workers[0].freeze();
    let answer = tokio::spawn(async move { client.chat(&ask("m")).await.content() });
    for _ in 0..2 {
        within("a publish", futures_util::StreamExt::next(&mut published))
            .await
            .unwrap();
    }
    cluster.workers[0].thaw();
    assert_eq!(within("the answer", answer).await.unwrap(), "Hello world");
    assert_eq!(upstream.requests().len(), 1, "the engine was asked more than once");
}

#[tokio::test]
async fn a_worker_that_accepts_late_is_told_to_stop_when_the_client_has_left() {
    let cluster = Cluster::plan().coordinators(0).start().await;
    let mut worker = FakeWorker::join(&cluster.nats, "fake", "m").await;
    let client = cluster.client();
    let answer = tokio::spawn(async move { client.chat(&ask("m")).await });
    let taken = worker.next_request().await;
    answer.abort();
    let _ = answer.await;
    // The gateway may or may not have noticed yet; from the moment of `Accepted` it knows whom to
    // tell.
    let accepted = worker.accepted(&taken, false);
    worker.send(&taken, vec![(0, accepted)]).await;
    match worker.next_control().await {
        tokenbus_protocol::Control::Cancel(cancel) => assert_eq!(cancel.id, taken.id),
        other => panic!("a cancel was awaited, not {other:?}"),
    }
}

#[tokio::test]
async fn a_model_whose_worker_joins_while_a_request_waits_is_served() {
    let mut cluster = Cluster::plan().worker(Role::sim("m", 1)).start().await;
    let client = cluster.client();
    let never = with(ask_for("m", 3), "sim", json!({"hang_after": 1}));
    let mut stuck = client.stream(&never).await;
    assert_eq!(stuck.text().await, "t0 ");
    let waiting = tokio::spawn(async move { client.chat(&ask_for("m", 3)).await.content() });
    eventually("the second request to wait", async || {
        let samples = metrics::parse(&client.get("/metrics").await.text());
        let seen = metrics::sum(&samples, "tokenbus_gateway_requests_waiting", &[]);
        if seen > 0.0 { Ok(()) } else { Err(seen) }
    })
    .await;
    assert!(!waiting.is_finished(), "one slot served two");
    cluster.add_worker(Role::sim("m", 1)).await;
    assert_eq!(within("the answer", waiting).await.unwrap(), sim_text(3));
    drop(stuck);
}
