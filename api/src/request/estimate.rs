//! Estimates how many tokens a request has, where nobody has counted them.

use std::borrow::Cow;
use std::fmt;

use memchr::memmem;
use serde::de::{Deserializer as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::limits::{ASSUMED_ATTACHMENT, BYTES_PER_TOKEN};

/// The estimate of a request, before an engine has counted it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PromptEstimate {
    /// Tokens of all its prompts together.
    pub tokens: u64,
    /// The number of its prompts, each of which is answered; at least 1.
    pub prompts: u64,
}

/// Tokens of the prompts in `body`, as [`estimate`] counts them.
pub fn estimated_tokens(body: &[u8]) -> u64 {
    estimate(body).tokens
}

/// Estimates the request `body`, which is in the form that engines get. Text counts by its bytes, token ids one by one,
/// and an image, a sound or a file in a chat's content as an attachment. A query that is compared with several
/// documents counts with each of them.
pub fn estimate(body: &[u8]) -> PromptEstimate {
    let mut found = Found::default();
    each_member(
        std::str::from_utf8(body).unwrap_or_default(),
        |name, value| match name {
            "messages" => each_item(value, |message| {
                each_member(message, |name, value| {
                    if name == "content" {
                        each_item(value, |part| found.part(part));
                    }
                });
            }),
            "prompt" | "input" | "tokens" => found.prompts(value),
            "query" | "text_1" => found.query = value.len() as u64,
            "documents" | "texts" | "text_2" => found.documents = items(value),
            _ => {}
        },
    );
    let text = (body.len() as u64).saturating_sub(found.apart);
    // Each document beyond the first repeats the query.
    let repeated = found.query.saturating_mul(found.documents.saturating_sub(1));
    PromptEstimate {
        tokens: (text.saturating_add(repeated) / BYTES_PER_TOKEN)
            .saturating_add(found.ids)
            .saturating_add(found.attachments.saturating_mul(ASSUMED_ATTACHMENT)),
        prompts: found.prompts.max(1),
    }
}

/// What the members of a request tell of its size.
#[derive(Debug, Default)]
struct Found {
    /// Bytes that are not text: attachments and token ids.
    apart: u64,
    attachments: u64,
    ids: u64,
    prompts: u64,
    /// Bytes of the query.
    query: u64,
    documents: u64,
}

impl Found {
    /// A part of a message's content. Only its own member for its kind can hold an attachment.
    fn part(&mut self, part: &str) {
        let (mut kind, mut largest) = ("", None::<(&str, u64)>);
        each_member(part, |name, value| match name {
            "type" => kind = value,
            "image_url" | "input_audio" | "audio_url" | "audio" | "video_url" | "file" => {
                let bytes = attached(value);
                if bytes > largest.map_or(0, |(_, bytes)| bytes) {
                    largest = Some((value, bytes));
                }
            }
            _ => {}
        });
        let of_its_kind = matches!(
            kind,
            r#""image_url""#
                | r#""input_image""#
                | r#""input_audio""#
                | r#""audio_url""#
                | r#""audio""#
                | r#""video_url""#
                | r#""file""#
        );
        if let Some((_, bytes)) = largest.filter(|_| of_its_kind) {
            self.apart += bytes;
            self.attachments += 1;
        }
    }

    /// A prompt, or a list of them.
    fn prompts(&mut self, value: &str) {
        let bytes = value.as_bytes();
        if !value.starts_with('[') {
            self.prompts = 1;
        } else if memchr::memchr2(b'"', b'{', bytes).is_some() {
            self.prompts = items(value);
        } else {
            // Token ids: one list, or a list of lists.
            self.prompts = (memchr::memchr_iter(b'[', bytes).count() as u64 - 1).max(1);
            self.ids = memchr::memchr_iter(b',', bytes).count() as u64 + 1;
            self.apart += bytes.len() as u64;
        }
    }
}

/// Bytes of the attachment in a part's member: of a data URL, a sound's data, or an address. Short data, and data that
/// is text, counts as text: 0.
fn attached(value: &str) -> u64 {
    let encoded = |text: &str| {
        let head = text.as_bytes().get(..128).unwrap_or(text.as_bytes());
        let is_text = text.starts_with("\"data:text") || text.starts_with("\"data:application/json");
        text.starts_with("\"data:") && !is_text && memmem::find(head, b";base64,").is_some()
    };
    let long = |text: &str| text.len() as u64 > ASSUMED_ATTACHMENT * BYTES_PER_TOKEN;
    let url = |text: &str| {
        let remote = text.starts_with("\"http:") || text.starts_with("\"https:");
        if remote || (encoded(text) && long(text)) {
            text.len() as u64
        } else {
            0
        }
    };
    if value.starts_with('"') {
        return url(value);
    }
    let mut bytes = 0;
    each_member(value, |name, text| {
        bytes = bytes.max(match name {
            "url" | "file_data" => url(text),
            "data" if text.starts_with('"') && long(text) => text.len() as u64,
            _ => 0,
        });
    });
    bytes
}

/// The number of items of a list; 1 of anything else.
fn items(value: &str) -> u64 {
    if !value.starts_with('[') {
        return 1;
    }
    let mut count = 0;
    each_item(value, |_| count += 1);
    count
}

/// Calls `visit` with each item of the JSON list `text`, up to the first error; with none if it is no list.
fn each_item<'a>(text: &'a str, visit: impl FnMut(&'a str)) {
    let _ = serde_json::Deserializer::from_str(text).deserialize_seq(Items(visit));
}

/// Calls `visit` with each member of the JSON object `text`, up to the first error; with none if it is no object.
fn each_member<'a>(text: &'a str, visit: impl FnMut(&str, &'a str)) {
    let _ = serde_json::Deserializer::from_str(text).deserialize_map(Named(visit));
}

struct Items<F>(F);

impl<'de, F: FnMut(&'de str)> Visitor<'de> for Items<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        while let Some(item) = seq.next_element::<&RawValue>()? {
            (self.0)(item.get());
        }
        Ok(())
    }
}

struct Named<F>(F);

impl<'de, F: FnMut(&str, &'de str)> Visitor<'de> for Named<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            (self.0)(&name, map.next_value::<&RawValue>()?.get());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn chat(content: &Value) -> u64 {
        estimated_tokens(
            json!({"messages": [{"role": "user", "content": content}]})
                .to_string()
                .as_bytes(),
        )
    }

    #[test]
    fn an_attachment_counts_as_one_only_where_engines_look_for_it() {
        let long = "A".repeat(1_000_000);
        let url = format!("data:image/png;base64,{long}");
        for part in [
            json!({"type": "image_url", "image_url": {"url": url}}),
            json!({"image_url": url, "type": "image_url"}),
            json!({"type": "input_audio", "input_audio": {"data": long, "format": "wav"}}),
            json!({"type": "file", "file": {"file_data": format!("data:application/pdf;base64,{long}")}}),
            json!({"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}),
        ] {
            let two = chat(&json!([part, part]));
            assert!((2000..2100).contains(&two), "{two}");
        }
        let whole = 250_000..250_100;
        for content in [
            json!(url),
            json!([{"type": "text", "text": url}]),
            json!([{"type": "text", "text": format!("\"data\":\"{long}")}]),
            json!([{"type": "text", "text": "", "image_url": {"url": url}}]),
            json!([{"type": "image_url", "image_url": {"url": "", "more": url}}]),
            json!([{"type": "image_url", "image_url": {"url": format!("data:image/png,{long}")}}]),
            json!([{"type": "file", "file": {"file_data": format!("data:text/plain;base64,{long}")}}]),
        ] {
            let counted = chat(&content);
            assert!(whole.contains(&counted), "{counted}");
        }
        for body in [
            json!({"prompt": url}),
            json!({"input": [url]}),
            json!({"messages": [], "tools": [{"type": "image_url", "image_url": {"url": url}}]}),
            json!({"messages": [{"tool_calls": [{"data": long}], "content": null}]}),
        ] {
            let counted = estimated_tokens(body.to_string().as_bytes());
            assert!(whole.contains(&counted), "{counted}");
        }
    }

    #[test]
    fn each_prompt_of_a_list_counts_and_each_token_id() {
        let of = |body: Value| {
            let PromptEstimate { tokens, prompts } = estimate(body.to_string().as_bytes());
            (tokens, prompts)
        };
        assert_eq!(of(json!({"prompt": "x".repeat(4000)})), (1003, 1));
        assert_eq!(of(json!({"prompt": vec!["x"; 2048]})), (2051, 2048));
        assert_eq!(of(json!({"prompt": vec![1; 1000]})), (1002, 1));
        assert_eq!(of(json!({"prompt": vec![vec![100_000; 10]; 100]})), (1002, 100));
        assert_eq!(of(json!({"input": [[7], [8, 9]]})), (5, 2));
        assert_eq!(of(json!({"tokens": [1, 2, 3]})).0, 5);
        assert_eq!(of(json!({"prompt": []})).1, 1);
        assert_eq!(of(json!({"messages": []})).1, 1);
    }

    #[test]
    fn a_query_counts_with_each_document() {
        let of = |body: Value| estimated_tokens(body.to_string().as_bytes());
        let (query, documents) = ("q".repeat(4000), vec!["d"; 100]);
        for body in [
            json!({"query": query, "documents": documents}),
            json!({"texts": documents, "query": query}),
            json!({"text_1": query, "text_2": documents}),
        ] {
            assert!((100_000..101_000).contains(&of(body)));
        }
        assert!(of(json!({"query": query, "documents": {"a": 1}})) < 1100);
        assert!(of(json!({"query": query})) < 1100);
    }

    #[test]
    fn what_is_no_request_counts_by_its_length() {
        for body in [
            &b"x"[..],
            b"[]",
            b"\xff\xff",
            b"{\"messages\":[{\"content\":[{\"type\"",
            b"",
        ] {
            assert_eq!(estimated_tokens(body), body.len() as u64 / 4);
        }
    }
}
