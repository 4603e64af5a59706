//! A scriptable OpenAI-compatible server that records its requests.

mod exchange;
mod script;
mod server;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value, json};
use tokenbus_protocol::Feature;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use exchange::{Exchange, Outcome};
pub use script::{Gate, Script};

use crate::wait::within;

/// A running upstream. Dropping it closes its socket and all connections.
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

/// The state that the connections share with the test.
#[derive(Debug)]
pub(crate) struct Shared {
    models: Mutex<Vec<Value>>,
    scripts: Mutex<VecDeque<Script>>,
    /// What answers requests whose body has the text.
    rules: Mutex<Vec<(String, Script)>>,
    default: Mutex<Script>,
    metrics: Mutex<Option<String>>,
    exchanges: watch::Sender<Vec<Arc<Exchange>>>,
    /// Chat requests running now, and the most that ever ran at once.
    running: watch::Sender<(usize, usize)>,
}

impl Upstream {
    /// Starts an upstream that serves `models` and answers every chat request with `Hello world`.
    pub async fn start(models: &[&str]) -> Self {
        let models = models.iter().map(|id| json!({"id": id, "object": "model"}));
        Self::start_with(models.collect()).await
    }

    /// Like [`Upstream::start`]; its one model declares these features and no others.
    pub async fn start_capable(model: &str, features: &[&str]) -> Self {
        let all = Feature::ALL.iter().map(|feature| feature.as_str());
        let capabilities: Map<String, Value> = all
            .map(|feature| (feature.to_owned(), features.contains(&feature).into()))
            .collect();
        Self::start_with(vec![
            json!({"id": model, "object": "model", "capabilities": capabilities}),
        ])
        .await
    }

    /// Like [`Upstream::start`]; it says that it is a vLLM.
    pub async fn start_vllm(model: &str) -> Self {
        Self::start_with(vec![json!({"id": model, "object": "model", "owned_by": "vllm"})]).await
    }

    async fn start_with(models: Vec<Value>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port on loopback");
        let address = listener.local_addr().expect("a listener has an address");
        let shared = Arc::new(Shared {
            models: Mutex::new(models),
            scripts: Mutex::default(),
            rules: Mutex::default(),
            default: Mutex::new(Script::texts(&["Hello", " world"])),
            metrics: Mutex::default(),
            exchanges: watch::Sender::default(),
            running: watch::Sender::default(),
        });
        let serving = tokio::spawn(server::serve(listener, Arc::clone(&shared)));
        Self {
            address,
            shared,
            serving,
        }
    }

    /// Its base URL, including `/v1`.
    pub fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers the next request without a script with `script`.
    pub fn next(&self, script: Script) {
        lock(&self.shared.scripts).push_back(script);
    }

    /// Answers each request whose body has `text` with `script`, if nothing is [next](Self::next). The rule that was
    /// made first counts.
    pub fn when(&self, text: &str, script: Script) {
        lock(&self.shared.rules).push((text.to_owned(), script));
    }

    /// Answers every request without its own script with `script`.
    pub fn always(&self, script: Script) {
        *lock(&self.shared.default) = script;
    }

    /// Serves this page at `/metrics`.
    pub fn metrics(&self, page: String) {
        *lock(&self.shared.metrics) = Some(page);
    }

    /// Waits for request `index`, counted from 0.
    pub async fn request(&self, index: usize) -> Arc<Exchange> {
        let mut exchanges = self.shared.exchanges.subscribe();
        let what = format!("request {index} at the upstream");
        let seen = within(&what, exchanges.wait_for(|seen| seen.len() > index)).await;
        Arc::clone(&seen.expect("the upstream lives")[index])
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<Arc<Exchange>> {
        self.shared.exchanges.borrow().clone()
    }

    /// Chat requests that are running.
    pub fn running(&self) -> usize {
        self.shared.running.borrow().0
    }

    /// The most chat requests that ever ran at once.
    pub fn peak(&self) -> usize {
        self.shared.running.borrow().1
    }

    /// Waits until `count` chat requests are running.
    pub async fn wait_running(&self, count: usize) {
        let mut running = self.shared.running.subscribe();
        let what = format!("{count} requests to run at the upstream");
        let _ = within(&what, running.wait_for(|(running, _)| *running == count))
            .await
            .expect("the upstream lives");
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Shared {
    pub(crate) fn models(&self) -> Vec<Value> {
        lock(&self.models).clone()
    }

    pub(crate) fn metrics(&self) -> Option<String> {
        lock(&self.metrics).clone()
    }

    /// The script for a request with this body.
    pub(crate) fn take_script(&self, body: &[u8]) -> Script {
        if let Some(next) = lock(&self.scripts).pop_front() {
            return next;
        }
        let body = String::from_utf8_lossy(body);
        let rules = lock(&self.rules);
        let rule = rules.iter().find(|(text, _)| body.contains(text));
        rule.map_or_else(|| lock(&self.default).clone(), |(_, script)| script.clone())
    }

    pub(crate) fn begin(&self, exchange: &Arc<Exchange>) {
        self.exchanges.send_modify(|seen| seen.push(Arc::clone(exchange)));
        self.running.send_modify(|(running, peak)| {
            *running += 1;
            *peak = (*peak).max(*running);
        });
    }

    pub(crate) fn end(&self) {
        self.running.send_modify(|(running, _)| *running -= 1);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
