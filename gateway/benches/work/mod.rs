//! What a gateway does for each token and each request, as work that can be repeated: for the benchmarks and the
//! instruction count.

use std::hint::black_box;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::BytesMut;
use tokenbus_api::{Encoder, Identity, Template, check_chat};
use tokenbus_gateway::testing::{
    Ask, Choice, Fate, Inbox, Lane, Outlet, Prefixes, STREAM_BUFFER, Sent, Splice, Streams, Target, Tried, View,
};
use tokenbus_placement::{Chain, Prompt};
use tokenbus_protocol::{BatchReader, Body, Capacity, Delta, Features, Frame, Name};
use tokio::time::Instant;

#[path = "../../../protocol/benches/work/mod.rs"]
pub mod codec;
mod http2;

/// Streams of one HTTP/2 connection.
const OF_CONNECTION: u64 = 64;

/// Steps until the streams are set up anew.
const STEPS: u32 = 64;

/// A client that takes everything.
#[derive(Debug)]
struct Nowhere;

impl Outlet for Nowhere {
    fn send(&self, events: &[u8], _tokens: u64, _gap: Duration, _scratch: &mut Vec<u8>) -> Sent {
        black_box(events);
        Sent::All
    }
}

fn identity() -> Identity {
    Identity {
        id: "chatcmpl-0197f3c5a3d47c31b7e1c7d5a1f0b2c4".to_owned(),
        created: 1_790_000_000,
        model: "qwen2.5:0.5b".to_owned(),
    }
}

fn delta(text: &str) -> Delta<'_> {
    let Body::Delta(delta) = codec::token(1, 0, text).body else {
        unreachable!("a token is a delta")
    };
    delta
}

/// An encoder in the middle of a stream.
pub fn encoder() -> Box<dyn Encoder> {
    let request = br#"{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"hi"}]}"#;
    let mut encoder = check_chat(request).unwrap().form.encoder(identity());
    encoder.delta(&delta("first "), &mut BytesMut::new()).unwrap();
    encoder
}

/// Writes the event of one token.
pub fn event(encoder: &mut dyn Encoder, text: &str, out: &mut BytesMut) {
    out.clear();
    encoder.delta(black_box(&delta(text)), out).unwrap();
    black_box(&out);
}

/// 512 streams between the bus and their clients.
pub struct Demultiplexer {
    streams: Streams,
    inboxes: Vec<Arc<Inbox>>,
    worker: Name,
    template: Arc<Template>,
    /// The messages of each step.
    steps: Vec<Vec<Vec<u8>>>,
    at: usize,
    /// The way to each stream's client, where its text leaves without its reader.
    outlets: Vec<Arc<dyn Outlet>>,
    connections: Vec<http2::Http2>,
    touched: Vec<Arc<Inbox>>,
    scratch: Vec<u8>,
}

impl Demultiplexer {
    /// With text that leaves by way of the reader.
    pub fn to_readers() -> Self {
        Self::new(Vec::new(), Vec::new())
    }

    /// With text that leaves at once.
    pub fn to_clients() -> Self {
        let outlets = (0..codec::STREAMS).map(|_| Arc::new(Nowhere) as Arc<dyn Outlet>);
        Self::new(outlets.collect(), Vec::new())
    }

    /// With text that leaves at once, over HTTP/2, to the bytes of its frames.
    pub fn to_http2() -> Self {
        let connections = (0..codec::STREAMS / OF_CONNECTION).map(|_| http2::Http2::new(OF_CONNECTION as u32));
        let (connections, outlets): (Vec<_>, Vec<_>) = connections.unzip();
        Self::new(outlets.concat(), connections)
    }

    fn new(outlets: Vec<Arc<dyn Outlet>>, connections: Vec<http2::Http2>) -> Self {
        let streams = Streams::default();
        let inboxes = (0..codec::STREAMS)
            .map(|_| streams.open(uuid::Uuid::nil(), STREAM_BUFFER).1)
            .collect();
        let mut this = Self {
            streams,
            inboxes,
            worker: Name::new("worker-1").unwrap(),
            template: encoder().template().unwrap(),
            steps: (0..STEPS).map(|seq| codec::step(seq, "token ", |_| ())).collect(),
            at: 0,
            outlets,
            connections,
            touched: Vec::new(),
            scratch: Vec::new(),
        };
        this.begin();
        this
    }

    /// Each reader takes what is there and waits for the first frame of the run.
    fn begin(&mut self) {
        self.at = 0;
        let mut context = Context::from_waker(Waker::noop());
        for (at, inbox) in self.inboxes.iter().enumerate() {
            drop(inbox.close_lane());
            while inbox.pop().is_some() {}
            let lane = || {
                self.outlets.get(at).map(|outlet| Lane {
                    attempt: 0,
                    worker: self.worker.clone(),
                    next_seq: 0,
                    keep_text: true,
                    splice: Splice {
                        template: Arc::clone(&self.template),
                        outlet: Some(Arc::clone(outlet)),
                    },
                    last: Instant::now(),
                })
            };
            inbox.sent(0, Some(self.worker.clone()));
            assert!(inbox.poll_next(&mut context, lane).is_pending());
        }
    }

    /// A token for each stream, as the feed does it.
    pub fn step(&mut self) {
        if self.at == self.steps.len() {
            self.begin();
        }
        let now = Instant::now();
        for message in &self.steps[self.at] {
            let reader = BatchReader::new(message).unwrap();
            let (worker, touched) = (&self.worker, &mut self.touched);
            self.streams.with(|table| {
                let mut each = |frame: Frame<'_>| {
                    let inbox = table.get(&frame.stream).unwrap();
                    match inbox.push_frame(worker, frame, now) {
                        Fate::Waits => touched.push(Arc::clone(inbox)),
                        Fate::Taken => {}
                        lost => unreachable!("{lost:?}"),
                    }
                };
                reader.for_each(&mut each).unwrap();
            });
        }
        for inbox in self.touched.drain(..) {
            inbox.flush(now, &mut self.scratch);
        }
        for connection in &mut self.connections {
            connection.write();
        }
        self.at += 1;
    }
}

/// A gateway that knows workers, and places requests there.
pub struct Placement {
    view: View,
    prefixes: Prefixes,
    prompt: Prompt,
    now: Instant,
    random: fastrand::Rng,
}

impl Placement {
    /// With so many workers.
    pub fn new(workers: u32) -> Self {
        let now = Instant::now();
        let mut view = View::default();
        view.snapshot(capacity(workers), now, 1_790_000_000);
        Self {
            view,
            prefixes: Prefixes::default(),
            prompt: prompt(),
            now,
            random: fastrand::Rng::with_seed(7),
        }
    }

    /// Places one request.
    pub fn step(&mut self) {
        let ask = Ask {
            model: black_box("m-1"),
            needs: Features::NONE,
            prompt: &self.prompt,
            session: None,
        };
        let choice = self
            .view
            .choose(&ask, Tried::default(), &mut self.prefixes, self.now, &mut self.random);
        let Choice::Worker(Target { worker, .. }) = choice else {
            unreachable!("there is room")
        };
        self.view.placed(&worker, self.now);
        self.view.settled(&worker);
    }
}

/// The cuts of a conversation of some turns.
fn prompt() -> Prompt {
    let mut chain = Chain::new("");
    for n in 0..20_u8 {
        chain.text(&[n; 600]);
        chain.end_message();
    }
    chain.finish()
}

/// A snapshot as it comes over the bus; two models, each on every worker.
fn capacity(workers: u32) -> Capacity {
    let models = |n: u32| serde_json::json!([{"name": "m-0"}, {"name": format!("m-{}", 1 + n % 2)}]);
    let worker = |n: u32| {
        serde_json::json!({"worker": format!("worker-{n}"), "instance": 1, "seq": 1, "version": "0.1.0", "host": "h",
            "engine": "sim", "state": "ready", "started_at_ms": 0, "models": models(n), "slots": 64,
            "active": n % 60, "queued": 0})
    };
    let model = |name: &str| {
        serde_json::json!({"model": name, "workers": workers, "slots": 64 * workers, "free": workers, "active": 0,
            "queued": 0})
    };
    let workers: Vec<_> = (0..workers).map(worker).collect();
    let models = ["m-0", "m-1", "m-2"].map(model);
    let whole = serde_json::json!({"coordinator": "c", "seq": 1, "at_ms": 0, "workers": workers, "models": models});
    serde_json::from_value(whole).unwrap()
}
