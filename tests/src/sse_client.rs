//! Server-sent events as a client sees them, each with its time of arrival.

use std::time::Instant;

use http_body_util::BodyExt as _;
use serde_json::Value;

use crate::http::Response;
use crate::wait::within;

/// One event of a stream.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// An event with JSON data.
    Chunk(Value),
    /// `data: [DONE]`.
    Done,
    /// A comment, which keeps the connection alive.
    Comment(String),
}

/// How a body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The body ended as HTTP demands.
    Clean,
    /// The connection broke in the middle of the body.
    Broken,
}

/// A stream in progress. Dropping it closes the connection.
#[derive(Debug)]
pub struct Sse {
    /// The head of the answer.
    pub response: Response,
    parser: Parser,
    end: Option<End>,
}

/// A complete stream.
#[derive(Debug)]
pub struct Transcript {
    /// The events, each with its time of arrival.
    pub events: Vec<(Instant, Event)>,
    /// How the body ended.
    pub end: End,
}

impl Sse {
    /// Reads the events of `response`. The first event checks that it is a stream.
    pub(crate) fn new(response: Response) -> Self {
        Self {
            response,
            parser: Parser::default(),
            end: None,
        }
    }

    /// Whether the answer is a stream and not an error.
    pub fn is_stream(&self) -> bool {
        let kind = self.response.headers.get(http::header::CONTENT_TYPE);
        self.response.status == 200 && kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
    }

    /// The next event; `None` at the end.
    ///
    /// # Panics
    /// After the deadline, and when the answer is not an event stream.
    pub async fn next(&mut self) -> Option<(Instant, Event)> {
        if !self.is_stream() {
            let body = self.response.body.collect_some().await;
            panic!("{} instead of a stream: {body}", self.response.status);
        }
        loop {
            if let Some(event) = self.parser.event() {
                return Some((Instant::now(), event));
            }
            if self.end.is_some() {
                assert!(
                    self.parser.is_empty(),
                    "the stream ended within an event: {:?}",
                    self.parser
                );
                return None;
            }
            match within("the next event of a stream", self.response.body.frame()).await {
                None => self.end = Some(End::Clean),
                Some(Err(_)) => self.end = Some(End::Broken),
                Some(Ok(frame)) => self.parser.bytes.extend(frame.into_data().unwrap_or_default()),
            }
        }
    }

    /// The next chunk; skips comments.
    ///
    /// # Panics
    /// When the stream ends first.
    pub async fn chunk(&mut self) -> Value {
        loop {
            match self.next().await {
                Some((_, Event::Chunk(chunk))) => return chunk,
                Some((_, Event::Comment(_))) => {}
                other => panic!("a chunk was awaited, not {other:?}"),
            }
        }
    }

    /// The next text of the first choice; skips chunks without text.
    pub async fn text(&mut self) -> String {
        loop {
            let chunk = self.chunk().await;
            assert!(chunk.get("error").is_none(), "an error instead of text: {chunk}");
            match chunk["choices"][0]["delta"]["content"].as_str() {
                Some(text) if !text.is_empty() => return text.to_owned(),
                _ => {}
            }
        }
    }

    /// The rest of the stream.
    pub async fn transcript(mut self) -> Transcript {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        Transcript {
            events,
            end: self.end.expect("the stream has ended"),
        }
    }
}

impl Transcript {
    /// The chunks, including errors.
    pub fn chunks(&self) -> impl Iterator<Item = &Value> {
        self.events.iter().filter_map(|(_, event)| match event {
            Event::Chunk(chunk) => Some(chunk),
            Event::Done | Event::Comment(_) => None,
        })
    }

    /// The number of comments.
    pub fn comments(&self) -> usize {
        self.events
            .iter()
            .filter(|(_, event)| matches!(event, Event::Comment(_)))
            .count()
    }

    /// The text of choice `index`.
    pub fn text_of(&self, index: u64) -> String {
        self.choices(index)
            .filter_map(|choice| choice["delta"]["content"].as_str())
            .collect()
    }

    /// The text of the first choice.
    pub fn text(&self) -> String {
        self.text_of(0)
    }

    /// The pieces of text of the first choice, with their times.
    pub fn pieces(&self) -> Vec<(Instant, String)> {
        let piece = |event: &Event| match event {
            Event::Chunk(chunk) => chunk["choices"][0]["delta"]["content"].as_str().map(str::to_owned),
            Event::Done | Event::Comment(_) => None,
        };
        let pieces = self.events.iter().filter_map(|(at, event)| Some((*at, piece(event)?)));
        pieces.filter(|(_, text)| !text.is_empty()).collect()
    }

    /// The finish reasons of choice `index`. A complete stream has exactly one.
    pub fn finish_reasons(&self, index: u64) -> Vec<String> {
        self.choices(index)
            .filter_map(|choice| choice["finish_reason"].as_str())
            .map(str::to_owned)
            .collect()
    }

    /// The `usage` of the stream, if it came.
    pub fn usage(&self) -> Option<&Value> {
        self.chunks()
            .filter_map(|chunk| chunk.get("usage"))
            .find(|usage| !usage.is_null())
    }

    /// The `error` of the stream, if it came.
    pub fn error(&self) -> Option<&Value> {
        self.chunks().find_map(|chunk| chunk.get("error"))
    }

    /// Whether `[DONE]` came.
    pub fn done(&self) -> bool {
        self.events.iter().any(|(_, event)| *event == Event::Done)
    }

    fn choices(&self, index: u64) -> impl Iterator<Item = &Value> {
        let choices = self.chunks().filter_map(|chunk| chunk["choices"].as_array()).flatten();
        choices.filter(move |choice| choice["index"] == index)
    }

    /// Checks a complete stream of one choice, and returns its text: it ends cleanly, with `[DONE]` once and last;
    /// `id`, `created` and model stay the same; the role is in the first delta only; there is one finish reason
    /// with no text behind it; there is no error.
    ///
    /// # Panics
    /// When a check fails.
    #[track_caller]
    pub fn whole(&self) -> String {
        assert_eq!(self.error(), None, "{self:#?}");
        assert_eq!(self.end, End::Clean, "{self:#?}");
        assert_eq!(
            self.events.last().map(|(_, event)| event),
            Some(&Event::Done),
            "{self:#?}"
        );
        assert_eq!(
            self.events.iter().filter(|(_, event)| *event == Event::Done).count(),
            1,
            "{self:#?}"
        );
        let first = self.chunks().next().expect("a stream has chunks");
        for chunk in self.chunks() {
            assert_eq!(chunk["object"], "chat.completion.chunk", "{chunk}");
            for same in ["id", "created", "model"] {
                assert_eq!(chunk[same], first[same], "{same} changes within a stream");
            }
        }
        assert_eq!(first["choices"][0]["delta"]["role"], "assistant", "{first}");
        let roles = self
            .choices(0)
            .filter(|choice| choice["delta"].get("role").is_some())
            .count();
        assert_eq!(roles, 1, "the role comes once: {self:#?}");
        assert_eq!(self.finish_reasons(0).len(), 1, "{self:#?}");
        let behind = self
            .choices(0)
            .skip_while(|choice| choice["finish_reason"].is_null())
            .skip(1)
            .count();
        assert_eq!(behind, 0, "a choice goes on after its finish: {self:#?}");
        self.text()
    }

    /// The error of a stream that could not continue: one error event and then the end, with no finish reason and
    /// no `[DONE]` before it.
    ///
    /// # Panics
    /// When the stream ended otherwise.
    #[track_caller]
    pub fn broken_off(&self) -> &Value {
        let error = self
            .error()
            .unwrap_or_else(|| panic!("a stream ended in silence: {self:#?}"));
        assert_eq!(self.finish_reasons(0), Vec::<String>::new(), "a fake finish: {self:#?}");
        assert_eq!(self.end, End::Clean, "{self:#?}");
        assert!(
            error["message"].is_string() && error["type"].is_string(),
            "not OpenAI's envelope: {error}"
        );
        let last = self.chunks().last().expect("there is an error");
        assert!(last.get("error").is_some(), "something follows the error: {self:#?}");
        error
    }
}

/// Bytes in, events out.
#[derive(Debug, Default)]
struct Parser {
    bytes: Vec<u8>,
}

impl Parser {
    fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The next complete event or comment. An event ends with an empty line, a comment with its own line: some clients
    /// take an empty line behind a comment for an event without data, and fail.
    fn event(&mut self) -> Option<Event> {
        assert!(self.bytes.first() != Some(&b'\n'), "an event without data");
        if self.bytes.first() == Some(&b':') {
            let end = self.bytes.iter().position(|byte| *byte == b'\n')?;
            let line: Vec<u8> = self.bytes.drain(..=end).skip(1).collect();
            let comment = String::from_utf8(line).expect("an event stream is UTF-8");
            return Some(Event::Comment(comment.trim().to_owned()));
        }
        let end = self.bytes.windows(2).position(|two| two == b"\n\n")?;
        let block: Vec<u8> = self.bytes.drain(..end + 2).collect();
        let text = String::from_utf8(block).expect("an event stream is UTF-8");
        let mut data = Vec::new();
        for line in text.lines() {
            let value = line
                .strip_prefix("data:")
                .map(|value| value.strip_prefix(' ').unwrap_or(value));
            data.extend(value);
        }
        let data = data.join("\n");
        if data == "[DONE]" {
            return Some(Event::Done);
        }
        Some(Event::Chunk(
            serde_json::from_str(&data).unwrap_or_else(|error| panic!("{error} in {text:?}")),
        ))
    }
}

/// The body of an unexpected answer, as text.
trait CollectSome {
    async fn collect_some(&mut self) -> String;
}

impl CollectSome for hyper::body::Incoming {
    async fn collect_some(&mut self) -> String {
        let body = within("the body of an answer", self.collect())
            .await
            .map(http_body_util::Collected::to_bytes);
        body.map_or_else(
            |error| error.to_string(),
            |body| String::from_utf8_lossy(&body).into_owned(),
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn transcript(chunks: &[Value], done: bool) -> Transcript {
        let chunks = chunks.iter().cloned().map(Event::Chunk);
        let events = chunks
            .chain(done.then_some(Event::Done))
            .map(|event| (Instant::now(), event))
            .collect();
        Transcript {
            events,
            end: End::Clean,
        }
    }

    fn chunk(delta: &Value, finish: Option<&str>) -> Value {
        json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})
    }

    #[test]
    fn events_are_taken_apart_at_any_boundary() {
        let mut parser = Parser::default();
        let mut events = Vec::new();
        for byte in b": hi\ndata: {\"a\":1}\n\ndata: [DONE]\n\n" {
            parser.bytes.push(*byte);
            events.extend(parser.event());
        }
        assert_eq!(
            events,
            [Event::Comment("hi".into()), Event::Chunk(json!({"a": 1})), Event::Done]
        );
        assert!(parser.is_empty());
    }

    #[test]
    fn a_whole_stream_is_told_from_broken_ones() {
        let role = chunk(&json!({"role": "assistant", "content": ""}), None);
        let text = chunk(&json!({"content": "a"}), None);
        let finish = chunk(&json!({}), Some("stop"));
        let whole = [role.clone(), text.clone(), finish.clone()];
        assert_eq!(transcript(&whole, true).whole(), "a");
        let error = json!({"error": {"message": "m", "type": "t", "param": null, "code": null}});
        let broken = [
            transcript(&whole, false),
            transcript(&[role.clone(), text.clone()], true),
            transcript(&[text.clone(), finish.clone()], true),
            transcript(&[role.clone(), text.clone(), finish.clone(), finish.clone()], true),
            transcript(&[role.clone(), finish, text.clone()], true),
            transcript(&[role.clone(), error.clone()], true),
        ];
        for (number, broken) in broken.into_iter().enumerate() {
            let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| broken.whole()));
            assert!(checked.is_err(), "broken stream {number} passed");
        }
        assert_eq!(transcript(&[role, text, error], false).broken_off()["message"], "m");
    }
}
