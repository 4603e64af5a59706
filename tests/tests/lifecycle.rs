//! Starting, stopping and dying: of each role, and of the bus.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods
)]

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokenbus_tests::ask::{ask, ask_for, sim_text};

use tokenbus_tests::limits::STOP;
use tokenbus_tests::sse_client::Sse;
use tokenbus_tests::{Cluster, Gate, Link, NatsOptions, NatsServer, Role, Script, Upstream, eventually, within};

/// Asks `client` again and again for `time`; every answer must be whole.
async fn served_throughout(client: tokenbus_tests::Client, time: Duration) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        assert_eq!(client.chat(&ask_for("m", 3)).await.content(), sim_text(3));
    }
}

#[tokio::test]
async fn old_and_new_requests_are_served_while_every_coordinator_is_down() {
    let upstream = Upstream::start(&["held"]).await;
    let plan = Cluster::plan()
        .coordinators(2)
        .worker(Role::sim("m", 4))
        .worker(Role::proxy(&upstream, 2));
    let mut cluster = plan.start().await;
    let gate = Gate::new();
    upstream.next(
        Script::stream()
            .role()
            .text("old ")
            .gate(&gate)
            .text("stream")
            .finish("stop")
            .done(),
    );
    let mut old = cluster.client().stream(&ask("held")).await;
    assert_eq!(old.text().await, "old ");
    for coordinator in &mut cluster.coordinators {
        coordinator.kill().await;
    }
    cluster.coordinators.clear();
    // Beyond the age at which a snapshot counts for nothing any more.
    served_throughout(cluster.client(), Duration::from_secs(4)).await;
    gate.open();
    assert_eq!(old.transcript().await.text(), "stream");
    cluster
        .coordinators
        .push(Role::coordinator().start(&cluster.nats.url()).await);
    cluster.settled().await;
    assert_eq!(cluster.capacity().await["models"].as_array().unwrap().len(), 2);
}

async fn one_of_two_coordinators_dies(jetstream: bool) {
    for killed in 0..2 {
        let options = NatsOptions {
            jetstream,
            ..NatsOptions::default()
        };
        let plan = Cluster::plan().nats(options).coordinators(2).worker(Role::sim("m", 4));
        let mut cluster = plan.start().await;
        let bus = cluster.nats.client().await;
        cluster.coordinators.remove(killed).kill().await;
        let mut snapshots = bus.subscribe("tb.v1.capacity").await.unwrap();
        let snapshot = futures_util::StreamExt::next(&mut snapshots);
        within("a snapshot of the coordinator that lives", snapshot)
            .await
            .unwrap();
        cluster.add_worker(Role::sim("n", 1)).await;
        cluster.lists("n").await;
        assert_eq!(cluster.client().chat(&ask_for("n", 3)).await.content(), sim_text(3));
    }
}

#[tokio::test]
async fn one_coordinator_of_two_dies_and_the_other_goes_on_telling() {
    one_of_two_coordinators_dies(false).await;
}

#[tokio::test]
async fn one_coordinator_of_two_dies_and_the_other_goes_on_telling_with_jetstream() {
    one_of_two_coordinators_dies(true).await;
}

#[tokio::test]
async fn one_gateway_of_two_dies_and_the_other_serves_on() {
    let mut cluster = Cluster::plan()
        .gateways(2)
        .worker(Role::sim("m", 4).pace("5ms", "5ms"))
        .start()
        .await;
    let lives = cluster.gateways[1].client();
    let mut old = lives.stream(&ask_for("m", 100)).await;
    let begun = old.text().await;
    let mut lost = cluster.gateways[0].client().stream(&ask_for("m", 10_000)).await;
    lost.text().await;
    cluster.gateways[0].kill().await;
    served_throughout(lives, Duration::from_millis(200)).await;
    assert_eq!(begun + &old.transcript().await.text(), sim_text(100));
}

/// A cluster with one worker and one stream that has said "to the ". The gate holds its "end".
async fn held_stream() -> (Cluster, Upstream, Sse, Gate) {
    let upstream = Upstream::start(&["m"]).await;
    let cluster = Cluster::plan().worker(Role::proxy(&upstream, 2)).start().await;
    let gate = Gate::new();
    upstream.next(
        Script::stream()
            .role()
            .text("to the ")
            .gate(&gate)
            .text("end")
            .finish("stop")
            .usage(1, 2)
            .done(),
    );
    let mut stream = cluster.client().stream(&ask("m")).await;
    assert_eq!(stream.text().await, "to the ");
    (cluster, upstream, stream, gate)
}

#[tokio::test]
async fn a_worker_that_is_asked_to_stop_finishes_what_it_has() {
    let (mut cluster, upstream, stream, gate) = held_stream().await;
    let client = cluster.client();
    cluster.workers[0].signal(Signal::SIGTERM);
    eventually("the worker to be draining", async || {
        let capacity = cluster.capacity().await;
        if capacity["workers"][0]["state"] == "draining" {
            Ok(())
        } else {
            Err(capacity)
        }
    })
    .await;
    // Another worker takes what comes now; the one that drains is not asked.
    cluster.workers.push(Role::sim("m", 2).start(&cluster.nats.url()).await);
    assert_eq!(client.chat(&ask_for("m", 3)).await.content(), sim_text(3));
    assert_eq!(upstream.requests().len(), 1);
    gate.open();
    let rest = stream.transcript().await;
    assert_eq!((rest.text().as_str(), rest.done()), ("end", true));
    let status = cluster.workers[0].exited(STOP).await;
    assert!(status.success(), "{status}");
    cluster.workers.remove(0);
    cluster.settled().await;
}

#[tokio::test]
async fn an_idle_worker_stops_at_once_and_is_gone_from_the_capacity() {
    let mut cluster = Cluster::plan()
        .worker(Role::sim("m", 2))
        .worker(Role::sim("m", 2))
        .start()
        .await;
    let begun = Instant::now();
    let status = cluster.workers[0].stop().await;
    assert!(status.success(), "{status}");
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "an idle worker took {:?} to stop",
        begun.elapsed()
    );
    cluster.workers.remove(0);
    cluster.settled().await;
    assert_eq!(cluster.client().chat(&ask_for("m", 3)).await.content(), sim_text(3));
}

#[tokio::test]
async fn a_gateway_that_is_asked_to_stop_fails_its_readiness_and_finishes_its_streams() {
    let (mut cluster, _upstream, stream, gate) = held_stream().await;
    let client = cluster.client();
    cluster.gateways[0].signal(Signal::SIGTERM);
    eventually("the gateway not to be ready", async || {
        match client.try_get("/readyz").await {
            Ok(answer) if answer.status == 200 => Err(answer),
            // It answers 503, or takes no connections any more: a load balancer understands both.
            Ok(_) | Err(_) => Ok(()),
        }
    })
    .await;
    assert!(cluster.gateways[0].is_running());
    gate.open();
    let rest = stream.transcript().await;
    assert_eq!((rest.text().as_str(), rest.done()), ("end", true));
    let status = cluster.gateways[0].exited(STOP).await;
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn a_gateway_that_is_stopped_after_its_bus_ends_its_streams_at_once_and_says_so() {
    let upstream = Upstream::start(&["m"]).await;
    let mut cluster = Cluster::plan().worker(Role::proxy(&upstream, 2)).start().await;
    let client = cluster.client();
    let gate = Gate::new();
    upstream.next(
        Script::stream()
            .role()
            .text("to the ")
            .gate(&gate)
            .finish("stop")
            .done(),
    );
    let mut stream = client.stream(&ask("m")).await;
    assert_eq!(stream.text().await, "to the ");
    cluster.nats.kill().await;
    let asked = Instant::now();
    cluster.gateways[0].signal(Signal::SIGTERM);
    let rest = stream.transcript().await;
    assert!(!rest.done(), "{rest:?}");
    let error = rest.error().expect("an error event");
    assert!(error["message"].as_str().unwrap().contains("shutting down"), "{error}");
    let status = cluster.gateways[0].exited(STOP).await;
    assert!(status.success(), "{status}");
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(8), "{took:?}: it waited out its grace");
}

#[tokio::test]
async fn every_role_stops_on_sigterm_and_sigint() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut cluster = Cluster::plan().worker(Role::sim("m", 1)).start().await;
        let roles = cluster
            .gateways
            .iter_mut()
            .chain(&mut cluster.workers)
            .chain(&mut cluster.coordinators);
        for role in roles {
            role.signal(signal);
            let status = role.exited(STOP).await;
            assert!(status.success(), "{} after {signal}: {status}", role.name());
        }
    }
}

#[tokio::test]
async fn the_gateway_is_not_ready_while_the_bus_is_away_and_serves_when_it_is_back() {
    let mut cluster = Cluster::plan().worker(Role::sim("m", 2)).start().await;
    let client = cluster.client();
    assert_eq!(client.get("/readyz").await.status, 200);
    cluster.nats.kill().await;
    eventually("the gateway not to be ready", async || {
        let answer = client.get("/readyz").await;
        if answer.status == 503 && !answer.body.is_empty() {
            Ok(())
        } else {
            Err(answer)
        }
    })
    .await;
    assert_eq!(
        client.get("/healthz").await.status,
        200,
        "it lives, though it cannot serve"
    );
    client
        .chat_with(&[("x-request-timeout", "2")], &ask("m"))
        .await
        .error(503);
    cluster.nats.start_again().await;
    eventually("the gateway to be ready", async || {
        let answer = client.get("/readyz").await;
        if answer.status == 200 { Ok(()) } else { Err(answer) }
    })
    .await;
    cluster.settled().await;
    cluster.lists("m").await;
    assert_eq!(client.chat(&ask_for("m", 3)).await.content(), sim_text(3));
}

#[tokio::test]
async fn a_frozen_link_to_the_bus_is_noticed_and_the_gateway_comes_back() {
    let nats = NatsServer::start().await;
    let link = Link::to(format!("127.0.0.1:{}", nats.port()).parse().unwrap()).await;
    let _worker = Role::sim("m", 2).start(&nats.url()).await;
    let gateway = Role::gateway().start(&format!("nats://{}", link.address())).await;
    let client = gateway.client();
    assert_eq!(client.chat(&ask_for("m", 2)).await.content(), sim_text(2));
    link.freeze();
    eventually("the dead link to be noticed", async || {
        let answer = client.get("/readyz").await;
        if answer.status == 503 { Ok(()) } else { Err(answer) }
    })
    .await;
    link.cut();
    link.open();
    eventually("the gateway to be ready", async || {
        let answer = client.get("/readyz").await;
        if answer.status == 200 { Ok(()) } else { Err(answer) }
    })
    .await;
    assert_eq!(client.chat(&ask_for("m", 2)).await.content(), sim_text(2));
}

#[tokio::test]
async fn a_stream_over_a_restart_of_the_bus_ends_whole_or_with_an_error() {
    let mut cluster = Cluster::plan()
        .worker(Role::sim("m", 2).pace("5ms", "5ms"))
        .start()
        .await;
    let mut stream = cluster.client().stream(&ask_for("m", 300)).await;
    let begun = stream.text().await;
    cluster.nats.restart().await;
    let rest = stream.transcript().await;
    let text = begun + &rest.text();
    if rest.error().is_some() {
        rest.broken_off();
        assert!(sim_text(300).starts_with(&text), "{text}");
    } else {
        assert_eq!(text, sim_text(300));
        assert!(rest.done());
    }
}

#[tokio::test]
async fn roles_wait_for_a_bus_that_is_not_there_yet() {
    let mut nats = NatsServer::start().await;
    nats.kill().await;
    let mut worker = Role::sim("m", 1).launch(&nats.url());
    let mut gateway = Role::gateway().launch(&nats.url());
    nats.start_again().await;
    worker.ready().await;
    gateway.ready().await;
    assert_eq!(gateway.client().chat(&ask_for("m", 2)).await.content(), sim_text(2));
}
