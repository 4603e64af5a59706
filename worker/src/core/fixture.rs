//! A worker's mind with an engine that does what the test says, and no NATS.

use std::sync::Mutex;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokenbus_bus::task;
use tokenbus_engine::job_channel;
use tokenbus_protocol::{
    Cancel, Capabilities, Control, ControlReply, Features, ModelInfo, Name, Request, RequestKind, SlotsFrom,
};
use tokio::sync::mpsc;

use super::*;
use crate::engine::{Job as EngineJob, ModelCommandError, Running, Sink};
use crate::outbox::Outbox;
use crate::outbox::post::Letter;

#[derive(Default)]
pub(crate) struct Script {
    pub(crate) jobs: Vec<(EngineJob, Option<Box<dyn Sink>>)>,
    stopped: Vec<(Uuid, Bytes)>,
    pub(crate) panics: bool,
}

#[derive(Clone, Default)]
pub(crate) struct FakeEngine(pub(crate) Arc<Mutex<Script>>);

pub(crate) struct Stopped(FakeEngine, Uuid, Bytes);

impl Drop for Stopped {
    fn drop(&mut self) {
        (self.0).0.lock().unwrap().stopped.push((self.1, self.2.clone()));
    }
}

impl Engine for FakeEngine {
    fn info(&self) -> watch::Receiver<EngineInfo> {
        watch::channel(info(2)).1
    }

    fn generate(&self, job: EngineJob, sink: Box<dyn Sink>) -> Running {
        assert!(!self.0.lock().unwrap().panics, "a test panic of an engine");
        let guard = Stopped(self.clone(), job.id, job.body.clone());
        self.0.lock().unwrap().jobs.push((job, Some(sink)));
        Running::new(guard)
    }

    fn load(&self, model: &str) -> BoxFuture<'_, Result<(), ModelCommandError>> {
        let ok = model == "good";
        Box::pin(async move {
            if ok {
                Ok(())
            } else {
                Err(ModelCommandError::Failed("no such file".into()))
            }
        })
    }
}

impl FakeEngine {
    pub(crate) fn started(&self) -> usize {
        self.0.lock().unwrap().jobs.len()
    }

    pub(crate) fn stopped(&self) -> usize {
        self.0.lock().unwrap().stopped.len()
    }

    pub(crate) fn sink(&self, n: usize) -> Box<dyn Sink> {
        self.0.lock().unwrap().jobs[n].1.take().unwrap()
    }

    pub(crate) fn body(&self, n: usize) -> Bytes {
        self.0.lock().unwrap().jobs[n].0.body.clone()
    }
}

pub(crate) fn info(slots: u32) -> EngineInfo {
    EngineInfo {
        engine: "fake",
        health: Health::Ready,
        models: vec![ModelInfo {
            name: "m".into(),
            context_length: None,
            capabilities: Capabilities {
                chat: true,
                ..Capabilities::default()
            },
        }],
        slots,
        slots_from: SlotsFrom::Engine,
        kv_used: None,
    }
}

/// A frame in readable form: stream, attempt, sequence number, what.
pub(crate) type Seen = (u64, u32, u32, String);

pub(crate) struct Bench {
    pub(crate) core: Core,
    pub(crate) engine: FakeEngine,
    pub(crate) ends: mpsc::UnboundedReceiver<Key>,
    pub(crate) letters: mpsc::Receiver<Letter>,
    pub(crate) outboxes: Arc<Mutex<HashMap<Name, Arc<Outbox>>>>,
    pub(crate) now: Instant,
    pub(crate) connection: Option<u64>,
    _snapshot: watch::Receiver<Snapshot>,
}

pub(crate) fn bench(slots: u32, queue: u32) -> Bench {
    let engine = FakeEngine::default();
    let load = Arc::new(Load::default());
    let metrics = Metrics::default();
    let (ends_sender, ends) = job_channel();
    let (post, letters) = Post::new(metrics.clone());
    let (snapshot, watching) = watch::channel(Snapshot::starting());
    let outboxes: Arc<Mutex<HashMap<Name, Arc<Outbox>>>> = Arc::default();
    let made = Arc::clone(&outboxes);
    let start = Box::new(move |gateway: &Name, outbox| {
        made.lock().unwrap().insert(gateway.clone(), outbox);
        task::spawn("idle-sender", std::future::pending())
    });
    let core = Core::new(
        CoreParts {
            identity: Identity::new(Some(Name::new("w1").unwrap()), &Name::new("tb").unwrap()),
            subjects: Subjects::new(Name::new("tb").unwrap()),
            engine: Arc::new(engine.clone()),
            slots: Some(slots),
            queue,
            grace: Duration::from_secs(30),
            max_frame: limits::FRAME,
            load: Arc::clone(&load),
            metrics: metrics.clone(),
            tracer: Tracer::default(),
            malformed: prometheus_client::metrics::counter::Counter::default(),
            outboxes: Outboxes::new(limits::OUTBOX, load, metrics, start),
            post,
            ends: ends_sender,
            snapshot,
            readings: crate::report::reading::Readings::new(1, Instant::now()),
        },
        info(slots),
    );
    Bench {
        core,
        engine,
        ends,
        letters,
        outboxes,
        now: Instant::now(),
        connection: Some(1),
        _snapshot: watching,
    }
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub(crate) fn request(n: u128, attempt: u32) -> Request<'static> {
    Request {
        id: Uuid::from_u128(n),
        gateway: Name::new("g").unwrap(),
        stream: u64::try_from(n).unwrap(),
        attempt,
        floor: 0,
        kind: RequestKind::Chat,
        model: "m".into(),
        needs: Features::NONE,
        budget_ms: 60_000,
        priority: 0,
        tenant: None,
        client_id: None,
        trace: None,
        resume: None,
        parts: None,
        prompt: (&[]).into(),
        body: (&b"{}"[..]).into(),
    }
}

impl Bench {
    pub(crate) fn send(&mut self, request: &Request<'_>) {
        let payload = Bytes::from(tokenbus_protocol::encode(request).unwrap());
        self.core.on_request(&payload, self.now);
        self.settle();
    }

    pub(crate) fn tell(&mut self, control: &Control) {
        let payload = tokenbus_protocol::encode(control).unwrap();
        self.core.on_control(&payload, None, self.now);
        self.settle();
    }

    pub(crate) fn ask(&mut self, control: &Control) -> ControlReply {
        let payload = tokenbus_protocol::encode(control).unwrap();
        self.core.on_control(&payload, Some("_INBOX.x".into()), self.now);
        self.settle();
        self.reply()
    }

    pub(crate) fn reply(&mut self) -> ControlReply {
        let letter = self.letters.try_recv().unwrap();
        assert_eq!(letter.subject, "_INBOX.x");
        tokenbus_protocol::decode(&letter.payload).unwrap()
    }

    pub(crate) fn cancel(&mut self, n: u128, attempt: u32) {
        self.tell(&Control::Cancel(Cancel {
            id: Uuid::from_u128(n),
            attempt,
        }));
    }

    pub(crate) fn settle(&mut self) {
        while let Ok(key) = self.ends.try_recv() {
            self.core.on_ended(key);
        }
        self.core.settle(self.now);
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now += time;
        self.core.on_timers(self.now);
        self.core.on_tick(self.connection, self.now);
        self.settle();
    }

    pub(crate) fn frames(&self) -> Vec<Seen> {
        self.frames_for("g")
    }

    pub(crate) fn frames_for(&self, gateway: &str) -> Vec<Seen> {
        let mut seen = Vec::new();
        let outboxes = self.outboxes.lock().unwrap();
        let Some(outbox) = outboxes.get(&Name::new(gateway).unwrap()) else {
            return seen;
        };
        while let Some(batch) = outbox.take() {
            let reader = tokenbus_protocol::BatchReader::new(&batch).unwrap();
            let each = |frame: tokenbus_protocol::Frame<'_>| {
                let what = match frame.body {
                    Body::Room(_) => return,
                    Body::Accepted(accepted) => format!("accepted {}", accepted.queue_position),
                    Body::Reject(reject) => format!("reject {}", reject.reason),
                    Body::Error(error) => format!("error {} {}", error.code, error.retryable),
                    Body::Finish(_) => "finish".into(),
                    Body::Alive(alive) => format!("alive {}", alive.queue_position),
                    Body::Delta(delta) => delta.text.into_owned(),
                    Body::Held(held) => {
                        let mut of: Vec<_> = held.streams.iter().map(|one| (one.stream, one.next_seq)).collect();
                        of.sort_unstable();
                        format!("held {of:?}")
                    }
                    Body::Offer(offer) => format!("offer {}", offer.slots),
                    Body::Unknown => "unknown".into(),
                };
                seen.push((frame.stream, frame.attempt, frame.seq, what));
            };
            reader.for_each(each).unwrap();
        }
        seen
    }

    pub(crate) fn said(&self) -> Vec<String> {
        self.frames()
            .into_iter()
            .map(|(stream, _, _, what)| format!("{stream}: {what}"))
            .collect()
    }

    pub(crate) fn reason(&mut self, request: &Request<'_>) -> String {
        self.send(request);
        self.said().pop().unwrap()
    }

    pub(crate) fn running(&self) -> u32 {
        assert_eq!(self.core.admission.running(), self.core.parts.load.running());
        self.core.parts.load.running()
    }
}
