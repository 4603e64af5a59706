//! The script of an upstream for one request, written by a test.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::watch;

/// A gate at which an upstream waits until the test opens it. Clones are the same gate.
#[derive(Debug, Clone)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Default for Gate {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }
}

impl Gate {
    /// A closed gate.
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens the gate, also for those who come later.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    /// Waits until it is open.
    pub async fn opened(&self) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.0.subscribe().wait_for(|open| *open).await;
    }
}

/// One step of an upstream.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Writes bytes of the body.
    Send(Bytes),
    /// Waits for the test.
    Wait(Gate),
    /// Waits for a time.
    Pause(Duration),
    /// Closes the connection in the middle of the body.
    Break,
}

/// An answer of an upstream: its head, and then its steps.
#[derive(Debug, Clone)]
pub struct Script {
    pub(crate) before_head: Vec<Step>,
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) steps: Vec<Step>,
}

impl Script {
    /// An empty event stream; add its content step by step.
    pub fn stream() -> Self {
        Self {
            before_head: Vec::new(),
            status: 200,
            headers: vec![("content-type".to_owned(), "text/event-stream".to_owned())],
            steps: Vec::new(),
        }
    }

    /// A complete stream of one choice: the role, each of `texts` as its own chunk, `stop`, usage (7 prompt tokens,
    /// one completion token per text), `[DONE]`.
    pub fn texts(texts: &[&str]) -> Self {
        let script = texts
            .iter()
            .fold(Self::stream().role(), |script, text| script.text(text));
        script.finish("stop").usage(7, texts.len()).done()
    }

    /// A complete stream that calls a tool.
    pub fn call(tool: &str, arguments: &Value) -> Self {
        let call = json!({"index": 0, "id": "c1", "type": "function",
            "function": {"name": tool, "arguments": arguments.to_string()}});
        Self::stream()
            .role()
            .choices(&json!([{"index": 0, "delta": {"tool_calls": [call]}}]))
            .finish("tool_calls")
            .usage(7, 3)
            .done()
    }

    /// An answer with this status and a JSON body.
    pub fn json(status: u16, body: &Value) -> Self {
        Self {
            before_head: Vec::new(),
            status,
            headers: vec![("content-type".to_owned(), "application/json".to_owned())],
            steps: vec![Step::Send(body.to_string().into())],
        }
    }

    /// An answer with exactly these bytes as its body.
    #[must_use]
    pub fn raw_body(mut self, bytes: impl Into<Bytes>) -> Self {
        self.steps = vec![Step::Send(bytes.into())];
        self
    }

    /// An error with this status in OpenAI's envelope.
    pub fn error(status: u16, kind: &str, code: Option<&str>, message: &str) -> Self {
        let error = json!({"message": message, "type": kind, "param": null, "code": code});
        Self::json(status, &json!({ "error": error }))
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Holds back even the head until `gate` is open.
    #[must_use]
    pub fn after(mut self, gate: &Gate) -> Self {
        self.before_head.push(Step::Wait(gate.clone()));
        self
    }

    fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// Waits for `gate` at this point.
    #[must_use]
    pub fn gate(self, gate: &Gate) -> Self {
        self.step(Step::Wait(gate.clone()))
    }

    /// Pauses at this point.
    #[must_use]
    pub fn pause(self, pause: Duration) -> Self {
        self.step(Step::Pause(pause))
    }

    /// Closes the connection in the middle of the body.
    #[must_use]
    pub fn cut(self) -> Self {
        self.step(Step::Break)
    }

    /// Writes bytes as they are.
    #[must_use]
    pub fn raw(self, bytes: impl Into<Bytes>) -> Self {
        self.step(Step::Send(bytes.into()))
    }

    /// One event with this data.
    #[must_use]
    pub fn data(self, data: &str) -> Self {
        self.raw(format!("data: {data}\n\n"))
    }

    /// A chunk with the given choices; its other members have default values.
    #[must_use]
    pub fn choices(self, choices: &Value) -> Self {
        self.chunk(json!({ "choices": choices }))
    }

    /// A chunk with the given members and default values for the others.
    #[must_use]
    pub fn chunk(self, members: Value) -> Self {
        let mut chunk = json!({
            "id": "chatcmpl-upstream", "object": "chat.completion.chunk", "created": 1_700_000_000,
            "model": "upstream-model", "system_fingerprint": "fp_upstream",
        });
        let (Value::Object(chunk_members), Value::Object(members)) = (&mut chunk, members) else {
            panic!("a chunk is an object")
        };
        chunk_members.extend(members);
        self.data(&chunk.to_string())
    }

    /// A chunk with this delta.
    #[must_use]
    pub fn delta(self, delta: &Value) -> Self {
        self.choices(&json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": null}]))
    }

    /// The first chunk: the role.
    #[must_use]
    pub fn role(self) -> Self {
        self.delta(&json!({"role": "assistant", "content": ""}))
    }

    /// A chunk with this text.
    #[must_use]
    pub fn text(self, text: &str) -> Self {
        self.delta(&json!({ "content": text }))
    }

    /// The chunk that ends the choice.
    #[must_use]
    pub fn finish(self, reason: &str) -> Self {
        self.choices(&json!([{"index": 0, "delta": {}, "finish_reason": reason}]))
    }

    /// The usage, in its own chunk behind the finish.
    #[must_use]
    pub fn usage(self, prompt: usize, completion: usize) -> Self {
        let usage = json!({
            "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion,
        });
        self.chunk(json!({ "choices": [], "usage": usage }))
    }

    /// `[DONE]`.
    #[must_use]
    pub fn done(self) -> Self {
        self.data("[DONE]")
    }
}
