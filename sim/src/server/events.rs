//! Events of a streamed answer, in the form that engines write. All but the text is made once per stream.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{BufMut as _, Bytes, BytesMut};
use tokenbus_protocol::{Delta, DeltaExtra, Finish, RawJson};

/// Id, model and time of an answer.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    /// `chatcmpl-…`, unique.
    pub(super) id: String,
    /// The model, as the request named it.
    pub(super) model: String,
    /// Seconds since 1970.
    pub(super) created: u64,
}

impl Identity {
    /// For a new answer.
    pub(super) fn new(id: uuid::Uuid, model: String) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            id: format!("chatcmpl-{}", id.simple()),
            model,
            created: since.map_or(0, |since| since.as_secs()),
        }
    }
}

/// Writes the events of one stream.
#[derive(Debug)]
pub(super) struct Chunks {
    /// `data: {"id":…,"choices":[`
    prefix: Bytes,
    /// Text after the choices.
    close: &'static [u8],
    usage: bool,
    begun: Vec<u32>,
}

impl Chunks {
    /// For a stream with usage at its end or without.
    pub(super) fn new(identity: &Identity, usage: bool) -> Self {
        let (id, created) = (&identity.id, identity.created);
        let head =
            format!("data: {{\"id\":\"{id}\",\"object\":\"chat.completion.chunk\",\"created\":{created},\"model\":");
        let mut prefix = BytesMut::from(head.as_bytes());
        push_string(&identity.model, &mut prefix);
        prefix.extend_from_slice(b",\"choices\":[");
        Self {
            prefix: prefix.freeze(),
            close: if usage { b"],\"usage\":null}\n\n" } else { b"]}\n\n" },
            usage,
            begun: Vec::new(),
        }
    }

    /// Appends the events for `delta`; before a choice's first one, the role.
    pub(super) fn delta(&mut self, delta: &Delta<'_>, out: &mut BytesMut) {
        if !self.begun.contains(&delta.choice) {
            self.begun.push(delta.choice);
            self.open(delta.choice, out);
            out.extend_from_slice(
                b"\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null}",
            );
            out.extend_from_slice(self.close);
        }
        self.open(delta.choice, out);
        out.extend_from_slice(b"\"content\":");
        push_string(&delta.text, out);
        match delta.extra.as_deref() {
            None => out.extend_from_slice(b"},\"logprobs\":null"),
            Some(extra) => push_extra(extra, out),
        }
        match delta.finish_reason.as_deref() {
            None => out.extend_from_slice(b",\"finish_reason\":null}"),
            Some(reason) => {
                out.extend_from_slice(b",\"finish_reason\":");
                push_string(reason, out);
                out.put_u8(b'}');
            }
        }
        out.extend_from_slice(self.close);
    }

    /// Appends the end of the stream.
    pub(super) fn finish(&self, finish: &Finish, out: &mut BytesMut) {
        if self.usage {
            out.extend_from_slice(&self.prefix);
            out.extend_from_slice(b"],\"usage\":");
            out.extend_from_slice(usage(finish).as_bytes());
            out.extend_from_slice(b"}\n\n");
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }

    /// Appends the event for a failure in the middle of the stream.
    pub(super) fn fail(envelope: &str, out: &mut BytesMut) {
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(envelope.as_bytes());
        out.extend_from_slice(b"\n\n");
    }

    fn open(&self, choice: u32, out: &mut BytesMut) {
        out.extend_from_slice(&self.prefix);
        if choice == 0 {
            out.extend_from_slice(b"{\"index\":0,\"delta\":{");
        } else {
            out.extend_from_slice(format!("{{\"index\":{choice},\"delta\":{{").as_bytes());
        }
    }
}

/// The `usage` object of a request's end.
pub(super) fn usage(finish: &Finish) -> String {
    if let Some(scripted) = &finish.usage {
        return scripted.get().to_owned();
    }
    let prompt = finish.prompt_tokens.unwrap_or(0);
    let completion = finish.completion_tokens.unwrap_or(0);
    let total = prompt.saturating_add(completion);
    format!("{{\"prompt_tokens\":{prompt},\"completion_tokens\":{completion},\"total_tokens\":{total}}}")
}

/// What a script adds to a token: members of the delta (which this ends), of its choice, and its logprobs.
fn push_extra(extra: &DeltaExtra, out: &mut BytesMut) {
    push_members(extra.delta.as_ref(), out);
    out.extend_from_slice(b"},\"logprobs\":");
    out.extend_from_slice(extra.logprobs.as_ref().map_or("null", RawJson::get).as_bytes());
    push_members(extra.choice.as_ref(), out);
}

fn push_members(object: Option<&RawJson>, out: &mut BytesMut) {
    let members = object.and_then(|json| json.get().strip_prefix('{')?.strip_suffix('}'));
    if let Some(members) = members.map(str::trim).filter(|members| !members.is_empty()) {
        out.put_u8(b',');
        out.extend_from_slice(members.as_bytes());
    }
}

/// Appends a JSON string.
pub(super) fn push_string(text: &str, out: &mut BytesMut) {
    let plain = text.bytes().all(|b| b >= b' ' && b != b'"' && b != b'\\');
    if plain {
        out.put_u8(b'"');
        out.extend_from_slice(text.as_bytes());
        out.put_u8(b'"');
    } else {
        // A string's JSON cannot fail to be written.
        out.extend_from_slice(&serde_json::to_vec(text).unwrap_or_default());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn identity() -> Identity {
        Identity {
            id: "chatcmpl-1".to_owned(),
            model: "a \"b\"".to_owned(),
            created: 7,
        }
    }

    fn token(text: &str, finish_reason: Option<&str>) -> Delta<'static> {
        Delta {
            text: text.to_owned().into(),
            tokens: 1,
            finish_reason: finish_reason.map(str::to_owned),
            ..Delta::default()
        }
    }

    fn events(out: &[u8]) -> Vec<Value> {
        let text = std::str::from_utf8(out).unwrap();
        let events = text
            .split_terminator("\n\n")
            .map(|event| event.strip_prefix("data: ").unwrap());
        events
            .map(|data| serde_json::from_str(data).unwrap_or_else(|_| Value::String(data.to_owned())))
            .collect()
    }

    #[test]
    fn a_stream_is_role_tokens_usage_and_done() {
        let mut out = BytesMut::new();
        let mut chunks = Chunks::new(&identity(), true);
        chunks.delta(&token("t0 ", None), &mut out);
        chunks.delta(&token("\"\n", Some("length")), &mut out);
        let finish = Finish {
            prompt_tokens: Some(3),
            completion_tokens: Some(2),
            ..Finish::default()
        };
        chunks.finish(&finish, &mut out);
        let events = events(&out);
        assert_eq!(events.len(), 5);
        for event in &events[..4] {
            assert_eq!(
                (&event["id"], &event["model"]),
                (&"chatcmpl-1".into(), &"a \"b\"".into())
            );
        }
        let delta = |n: usize| &events[n]["choices"][0]["delta"];
        assert_eq!(delta(0)["role"], "assistant");
        assert_eq!(
            (&delta(1)["content"], &delta(2)["content"]),
            (&"t0 ".into(), &"\"\n".into())
        );
        assert_eq!(events[1]["choices"][0]["finish_reason"], Value::Null);
        assert_eq!(events[2]["choices"][0]["finish_reason"], "length");
        assert_eq!(events[3]["usage"]["total_tokens"], 5);
        assert_eq!(events[4], "[DONE]");
    }

    #[test]
    fn usage_comes_only_when_asked_for() {
        let mut out = BytesMut::new();
        let mut chunks = Chunks::new(&identity(), false);
        chunks.delta(&token("t0 ", Some("length")), &mut out);
        chunks.finish(&Finish::default(), &mut out);
        assert!(events(&out).iter().all(|event| event.get("usage").is_none()));
    }

    #[test]
    fn what_a_script_adds_is_there() {
        let json = |text: &str| Some(RawJson::new(text).unwrap());
        let mut delta = token("t0 ", None);
        delta.extra = Some(Box::new(DeltaExtra {
            delta: json(r#"{"reasoning_content":"hm"}"#),
            logprobs: json(r#"{"content":[]}"#),
            choice: json(r#"{"token_ids":[1]}"#),
            ..DeltaExtra::default()
        }));
        let mut out = BytesMut::new();
        Chunks::new(&identity(), false).delta(&delta, &mut out);
        let choice = &events(&out)[1]["choices"][0];
        assert_eq!(choice["delta"]["reasoning_content"], "hm");
        assert_eq!(choice["logprobs"]["content"], serde_json::json!([]));
        assert_eq!(choice["token_ids"][0], 1);
    }
}
