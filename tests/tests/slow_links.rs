//! Links to NATS that are late: time-outs follow what was measured, so that nothing is sent twice and
//! nobody is taken for lost.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::net::SocketAddr;
use std::time::Duration;

use async_nats::Subscriber;
use futures_util::{FutureExt as _, StreamExt as _};
use tokenbus_protocol::{Event, EventKind};
use tokenbus_tests::link::Late;
use tokenbus_tests::load::{Load, Report};
use tokenbus_tests::{Cluster, Link, NatsServer, Role};

const LATE: Duration = Duration::from_millis(300);

/// Requests at once; far fewer than there are slots, since nobody is told "busy" here.
const STREAMS: usize = 30;

/// A gateway, a coordinator and two workers, of which the gateway or the workers are behind a link.
struct Far {
    cluster: Cluster,
    link: Link,
    events: Subscriber,
}

#[derive(Clone, Copy, PartialEq)]
enum Behind {
    Gateway,
    Worker,
}

impl Far {
    /// Worker 1 is always near: it would take what worker 0 does not take in time.
    async fn start(behind: Behind, late: Late) -> Self {
        let nats = NatsServer::start().await;
        let link = Link::to(SocketAddr::from(([127, 0, 0, 1], nats.port()))).await;
        link.late(late);
        let events = nats.client().await.subscribe("tb.v1.event").await.unwrap();
        let (near, far) = (nats.url(), format!("nats://{}", link.address()));
        let url = |who| if who == behind { &far } else { &near };
        let worker = |id| Role::sim("m", 200).pace("20ms", "20ms").args(&["--id", id]).named(id);
        let coordinators = vec![Role::coordinator().start(&near).await];
        let workers = vec![
            worker("w0").start(url(Behind::Worker)).await,
            worker("w1").start(&near).await,
        ];
        let gateways = vec![Role::gateway().start(url(Behind::Gateway)).await];
        let cluster = Cluster {
            gateways,
            coordinators,
            workers,
            nats,
        };
        cluster.settled().await;
        cluster.lists("m").await;
        Self { cluster, link, events }
    }

    /// Three rounds of requests.
    async fn load(&self) -> Report {
        let load = Load::new(&[self.cluster.gateways[0].address()], "m", STREAMS)
            .tokens(60)
            .start();
        for _ in 0..3 {
            load.flowing().await;
        }
        let report = load.finish().await;
        report.assert_whole();
        report
    }

    async fn metric(&self, name: &str) -> f64 {
        let page = self.cluster.client().get("/metrics").await.text();
        tokenbus_tests::metrics::sum(&tokenbus_tests::metrics::parse(&page), name, &[])
    }

    async fn republished(&self) -> f64 {
        self.metric("tokenbus_gateway_republishes_total").await
    }

    /// Nobody was taken for lost: not by the coordinator, and not by the gateway.
    fn nobody_was_lost(&mut self) {
        while let Some(Some(message)) = self.events.next().now_or_never() {
            let event: Event = tokenbus_protocol::decode(&message.payload).unwrap();
            assert_ne!(event.kind, EventKind::WorkerLost, "{event:?}");
        }
        let lines = self.cluster.gateways[0].logs().lines();
        let lost = lines.iter().find(|line| line.contains("worker lost"));
        assert_eq!(lost, None);
    }
}

async fn nothing_is_sent_twice(behind: Behind) {
    let mut far = Far::start(behind, Late::By(LATE)).await;
    let report = far.load().await;
    assert!(report.samples.len() >= 3 * STREAMS);
    assert_eq!(far.republished().await, 0.0, "of {} requests", report.samples.len());
    far.nobody_was_lost();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_over_a_workers_late_link_is_sent_once() {
    nothing_is_sent_twice(Behind::Worker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_over_the_gateways_late_link_is_sent_once() {
    nothing_is_sent_twice(Behind::Gateway).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_over_a_link_that_becomes_late_is_sent_twice_until_that_is_measured() {
    let mut far = Far::start(Behind::Worker, Late::By(Duration::ZERO)).await;
    far.load().await;
    assert_eq!(far.republished().await, 0.0, "before the link was late");
    far.link.delay(LATE);
    far.load().await;
    let learnt = far.republished().await;
    // What was under way before the first answer came back; then no more.
    assert!(learnt <= STREAMS as f64, "{learnt}");
    far.load().await;
    assert_eq!(far.republished().await, learnt, "after it was measured");
    far.nobody_was_lost();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_over_a_link_that_is_late_now_and_then_is_hardly_ever_sent_twice() {
    let mut far = Far::start(Behind::Worker, Late::InTurn(LATE)).await;
    let sent = far.load().await.samples.len() as f64;
    let twice = far.republished().await;
    assert!(twice <= sent / 20.0, "{twice} of {sent}");
    far.nobody_was_lost();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_over_a_link_that_stalls_again_and_again_loses_nobody() {
    let mut far = Far::start(Behind::Worker, Late::By(Duration::ZERO)).await;
    let load = Load::new(&[far.cluster.gateways[0].address()], "m", STREAMS).start();
    load.flowing().await;
    let stall = async |time| {
        far.link.freeze();
        tokio::time::sleep(time).await;
        far.link.open();
        tokio::time::sleep(Duration::from_millis(1_200)).await; // a status in time
    };
    for _ in 0..4 {
        stall(Duration::from_millis(1_500)).await;
    }
    // More than three statuses are missing: of a worker that was always in time that is a loss.
    stall(Duration::from_millis(3_300)).await;
    load.finish().await.assert_whole();
    far.nobody_was_lost();
}
