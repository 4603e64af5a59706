//! The last worker of a model goes while others wait for it: whoever waits for what cannot come is told, and whoever
//! had a worker waits for a successor, however that worker went.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods
)]

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokenbus_tests::ask::{ask, ask_for, sim_text, with};
use tokenbus_tests::http::Answer;
use tokenbus_tests::limits::STOP;
use tokenbus_tests::metrics::{parse, sum};
use tokenbus_tests::sse_client::Sse;
use tokenbus_tests::{Client, Cluster, Role, Script, Upstream, eventually, within};

/// Slots of the worker that goes.
const SLOTS: usize = 2;

/// What waits for a worker is told of its end within this: what the design promises is three missed statuses and a
/// second, and a test shares its processors.
const AT_ONCE: Duration = Duration::from_secs(8);

/// How the last worker goes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Killed,
    Stopped,
    EngineDies,
    /// Killed; what was asked for is a name that stands for this model and a second one, whose worker lives.
    KilledBeforeAnother,
}

/// A cluster whose only worker of `m` is about to go.
struct Scene {
    cluster: Cluster,
    upstream: Option<Upstream>,
    _folder: tempfile::TempDir,
    asked: &'static str,
}

impl Scene {
    async fn set(end: End, coordinators: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("models.toml");
        std::fs::write(&file, "[models.both]\ntargets = [\"m\", \"second\"]\n").unwrap();
        let mut plan = Cluster::plan()
            .coordinators(coordinators)
            .gateway_args(&["--models", file.to_str().unwrap()]);
        let mut upstream = None;
        if end == End::EngineDies {
            let engine = Upstream::start(&["m"]).await;
            engine.always(Script::stream().role().text("t0 ").pause(Duration::from_secs(3600)));
            plan = plan.worker(Role::proxy(&engine, 2));
            upstream = Some(engine);
        } else {
            plan = plan.worker(Role::sim("m", 2).pace("0ms", "20ms").args(&["--grace", "500ms"]));
        }
        if end == End::KilledBeforeAnother {
            // Full, so that what waits does so for the first one's room.
            plan = plan.worker(Role::sim("second", 1));
        }
        let cluster = plan.start().await;
        // Without a coordinator, gateways ask the workers now and then; a name goes to the models that are known.
        cluster.lists("m").await;
        let asked = if end == End::KilledBeforeAnother { "both" } else { "m" };
        Self {
            cluster,
            upstream,
            _folder: folder,
            asked,
        }
    }

    fn request(&self) -> Value {
        with(ask(self.asked), "max_tokens", json!(100_000))
    }

    async fn waiting(&self, count: usize) {
        let client = self.cluster.client();
        eventually(&format!("{count} requests to wait"), async || {
            let page = client.get("/metrics").await.text();
            let waiting = sum(&parse(&page), "tokenbus_gateway_requests_waiting", &[]);
            if (waiting - count as f64).abs() < 0.5 {
                Ok(())
            } else {
                Err(waiting)
            }
        })
        .await;
    }

    async fn end(&mut self, end: End) {
        match end {
            End::Killed | End::KilledBeforeAnother => self.cluster.workers[0].kill().await,
            End::Stopped => {
                let status = self.cluster.workers[0].stop().await;
                assert!(status.success(), "{status}");
            }
            End::EngineDies => drop(self.upstream.take()),
        }
    }
}

/// A stream that runs: it has said something.
async fn running(client: Client, request: Value) -> Sse {
    let mut stream = client.stream(&request).await;
    assert_eq!(stream.text().await, "t0 ");
    stream
}

/// What is told at the end of a stream that was running.
async fn told(stream: Sse, since: Instant) {
    let transcript = stream.transcript().await;
    let code = transcript.broken_off()["code"].clone();
    let codes = ["no_worker", "worker_lost", "engine_unavailable"];
    assert!(codes.iter().any(|known| code == *known), "{code}");
    assert!(
        since.elapsed() < Duration::from_secs(10) + AT_ONCE,
        "{:?}",
        since.elapsed()
    );
}

async fn goes(end: End, clients: usize, coordinators: usize) {
    let mut scene = Scene::set(end, coordinators).await;
    let client = scene.cluster.client();
    let mut held = None;
    if end == End::KilledBeforeAnother {
        let request = with(ask_for("second", 3), "sim", json!({"hang_after": 1}));
        held = Some(running(client, request).await);
    }
    let streams = join_all((0..clients.min(SLOTS)).map(|_| running(client, scene.request()))).await;
    let waiting = clients.saturating_sub(SLOTS);
    let request = scene.request();
    let waits: Vec<tokio::task::JoinHandle<Answer>> = (0..waiting)
        .map(|_| {
            let request = with(request.clone(), "max_tokens", json!(3));
            tokio::spawn(async move { client.chat(&request).await })
        })
        .collect();
    scene.waiting(waiting).await;
    let gone = Instant::now();
    scene.end(end).await;
    // The second model has room again: whoever waited for the first one is served there.
    drop(held);
    for wait in waits {
        let answer = within("an answer to what waited", wait).await.unwrap();
        assert!(gone.elapsed() < AT_ONCE, "told after {:?}", gone.elapsed());
        if end == End::KilledBeforeAnother {
            assert_eq!(answer.content(), sim_text(3));
        } else {
            assert_eq!(answer.error(503)["code"], "no_worker");
            answer.retry_after();
        }
    }
    // What comes new, also while streams wait for a successor, is told at once.
    let asked = Instant::now();
    let answer = client.chat(&ask_for("m", 3)).await;
    assert_eq!(answer.error(503)["code"], "no_worker");
    answer.retry_after();
    assert!(asked.elapsed() < AT_ONCE, "told after {:?}", asked.elapsed());
    join_all(streams.into_iter().map(|stream| told(stream, gone))).await;
    scene.waiting(0).await;
}

async fn goes_under_any_number(end: End) {
    let cases = [1, 2, 10].into_iter().flat_map(|clients| [(clients, 0), (clients, 1)]);
    join_all(cases.map(|(clients, coordinators)| goes(end, clients, coordinators))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_everyone_is_told_when_the_last_worker_is_killed() {
    goes_under_any_number(End::Killed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_everyone_is_told_when_the_last_worker_is_stopped() {
    goes_under_any_number(End::Stopped).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_everyone_is_told_when_the_engine_of_the_last_worker_dies() {
    goes_under_any_number(End::EngineDies).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_whoever_waits_for_the_first_of_two_models_is_served_by_the_second_when_it_is_gone() {
    goes_under_any_number(End::KilledBeforeAnother).await;
}

/// Twenty streams on the only worker, which goes and comes back within the grace.
async fn comes_back(signal: Signal, coordinators: usize) {
    let worker = || {
        Role::sim("m", 20)
            .pace("0ms", "20ms")
            .args(&["--grace", "1s", "--id", "only"])
    };
    let mut cluster = Cluster::plan()
        .coordinators(coordinators)
        .worker(worker())
        .start()
        .await;
    let client = cluster.client();
    let tokens = 500;
    let streams = join_all((0..20).map(|_| running(client, ask_for("m", tokens)))).await;
    cluster.workers[0].signal(signal);
    cluster.workers[0].exited(STOP).await;
    let transcripts = tokio::spawn(join_all(streams.into_iter().map(Sse::transcript)));
    // As long as a restart takes that is not in a hurry.
    tokio::time::sleep(Duration::from_secs(5)).await;
    cluster.workers[0] = worker().start(&cluster.nats.url()).await;
    for transcript in within("the streams", transcripts).await.unwrap() {
        assert_eq!(transcript.error(), None);
        assert_eq!(format!("t0 {}", transcript.text()), sim_text(tokens));
        assert!(transcript.done());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_streams_go_on_when_their_only_worker_is_back_however_it_went() {
    let cases = [
        (Signal::SIGKILL, 0),
        (Signal::SIGKILL, 1),
        (Signal::SIGTERM, 0),
        (Signal::SIGTERM, 1),
    ];
    join_all(cases.map(|(signal, coordinators)| comes_back(signal, coordinators))).await;
}
