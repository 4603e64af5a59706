//! What the tests of HTTP engines share: a scripted server, and a sink that keeps what it is told.
// Unbounded channels: a test must not lose what it is told, and ends before a queue grows large.
#![allow(clippy::disallowed_methods)]
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs
)]

pub mod llama;
pub mod server;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use server::{Reply, Seen, Server, vllm};
use tokenbus_protocol::{Delta, EngineError, Finish, RequestKind, Resume};
use tokenbus_worker::engine::openai::{OpenAiEngine, OpenAiOptions};
use tokenbus_worker::engine::{Closed, Engine, EngineInfo, Health, Job, Running, Sink};
use tokio::sync::mpsc;
use uuid::Uuid;

/// Longer than anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What a sink was told.
#[derive(Debug, PartialEq)]
pub enum Told {
    Delta(Delta<'static>),
    Finish(Finish),
    Fail(EngineError),
    /// Dropped without a last word.
    Dropped,
}

struct Collector {
    told: mpsc::UnboundedSender<Told>,
    /// Deltas that are taken before the sink is closed.
    room: usize,
    ended: bool,
}

impl Sink for Collector {
    fn delta(&mut self, delta: Delta<'_>) -> Result<(), Closed> {
        self.room = self.room.checked_sub(1).ok_or(Closed)?;
        let Delta {
            choice,
            text,
            tokens,
            token_ids,
            finish_reason,
            extra,
        } = delta;
        let text = text.into_owned().into();
        let _ = self.told.send(Told::Delta(Delta {
            choice,
            text,
            tokens,
            token_ids,
            finish_reason,
            extra,
        }));
        Ok(())
    }

    fn finish(mut self: Box<Self>, finish: Finish) {
        self.ended = true;
        let _ = self.told.send(Told::Finish(finish));
    }

    fn fail(mut self: Box<Self>, error: EngineError) {
        self.ended = true;
        let _ = self.told.send(Told::Fail(error));
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.told.send(Told::Dropped);
        }
    }
}

/// A job that runs; dropping it cancels.
pub struct Stream {
    told: mpsc::UnboundedReceiver<Told>,
    running: Option<Running>,
}

/// A whole answer.
#[derive(Debug, PartialEq)]
pub struct Whole {
    pub deltas: Vec<Delta<'static>>,
    pub end: Told,
}

impl Whole {
    pub fn text(&self) -> String {
        self.deltas
            .iter()
            .filter(|delta| delta.choice == 0)
            .map(|delta| delta.text.as_ref())
            .collect()
    }

    pub fn finish(&self) -> &Finish {
        match &self.end {
            Told::Finish(finish) => finish,
            other => panic!("no finish: {other:?}"),
        }
    }

    pub fn error(&self) -> &EngineError {
        match &self.end {
            Told::Fail(error) => error,
            other => panic!("no failure: {other:?}"),
        }
    }
}

impl Stream {
    pub async fn next(&mut self) -> Told {
        tokio::time::timeout(PATIENCE, self.told.recv())
            .await
            .expect("nothing came")
            .expect("the sink is gone")
    }

    pub async fn whole(mut self) -> Whole {
        let mut deltas = Vec::new();
        loop {
            match self.next().await {
                Told::Delta(delta) => deltas.push(delta),
                end => return Whole { deltas, end },
            }
        }
    }

    /// Stops the generation; what was told until then, and after, is returned.
    pub async fn cancel(mut self) -> Vec<Told> {
        drop(self.running.take());
        let mut told = Vec::new();
        while let Some(one) = tokio::time::timeout(PATIENCE, self.told.recv())
            .await
            .expect("the sink stays")
        {
            told.push(one);
        }
        told
    }
}

/// A chat about nothing for `model`, one minute of patience.
pub fn job(model: &str, body: &Value) -> Job {
    Job {
        id: Uuid::now_v7(),
        kind: RequestKind::Chat,
        model: model.to_owned(),
        body: body.to_string().into(),
        prompt: Default::default(),
        // Nothing is tested by it; a real model on a busy machine takes its time.
        deadline: Instant::now() + Duration::from_secs(240),
        resume: None,
        trace: None,
    }
}

pub fn resumed(job: Job, resume: Resume) -> Job {
    Job {
        resume: Some(resume),
        ..job
    }
}

pub fn start(engine: &Arc<OpenAiEngine>, job: Job) -> Stream {
    start_with_room(engine.as_ref(), job, usize::MAX)
}

/// The sink closes after `room` deltas.
pub fn start_with_room(engine: &dyn Engine, job: Job, room: usize) -> Stream {
    let (sender, told) = mpsc::unbounded_channel();
    let running = engine.generate(
        job,
        Box::new(Collector {
            told: sender,
            room,
            ended: false,
        }),
    );
    Stream {
        told,
        running: Some(running),
    }
}

/// Waits until the engine says what is wanted of it.
pub async fn info(engine: &dyn Engine, wanted: impl Fn(&EngineInfo) -> bool) -> EngineInfo {
    let mut receiver = engine.info();
    let info = tokio::time::timeout(PATIENCE, receiver.wait_for(|info| wanted(info))).await;
    match info {
        Ok(info) => info.expect("the engine is gone").clone(),
        Err(_) => panic!("still {:?}", engine.info().borrow().clone()),
    }
}

pub async fn ready(engine: &dyn Engine) -> EngineInfo {
    info(engine, |info| info.health == Health::Ready).await
}

pub async fn down(engine: &dyn Engine) -> EngineInfo {
    info(engine, |info| matches!(info.health, Health::Down(_))).await
}

/// An engine over `server`, ready.
pub async fn engine(server: &Server) -> Arc<OpenAiEngine> {
    let options = OpenAiOptions {
        url: Some(server.url()),
        ..OpenAiOptions::default()
    };
    let engine = OpenAiEngine::start(options).await.unwrap();
    ready(engine.as_ref()).await;
    engine
}

pub fn question() -> Value {
    json!({"model": "m", "messages": [{"role": "user", "content": "Why?"}]})
}

/// One answer of a server that always replies the same way.
pub async fn once(reply: impl Fn(Seen) -> Reply + Send + Sync + 'static) -> Whole {
    let server = Server::start(vllm("m"), reply).await;
    start(&engine(&server).await, job("m", &question())).whole().await
}
