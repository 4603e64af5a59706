//! The cuts of a request's prompt, from its body: first the tools, then one message after the other.
//!
//! The hashes are of the body's own bytes. A client that continues a conversation sends its beginning again, byte for
//! byte. An image or a sound is one piece, by its bytes.

use memchr::memmem;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokenbus_placement::{Chain, Prompt, session_hash};
use tokenbus_protocol::RequestKind;

/// The text before encoded data: in a data URL, or in an attachment's own member.
const ENCODED: [&[u8]; 2] = [b";base64,", b"\"data\":\""];

/// Shorter data counts as text, bytes.
const ATTACHMENT: usize = 4096;

/// The members of a body that an engine reads before it answers, in the order in which templates place them.
#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    tools: Option<&'a RawValue>,
    #[serde(borrow)]
    messages: Option<Vec<&'a RawValue>>,
    #[serde(borrow)]
    prompt: Option<&'a RawValue>,
    /// Tenants whose engines keep their prefixes apart have salts of their own.
    #[serde(borrow)]
    cache_salt: Option<&'a RawValue>,
}

/// The members of a client's body that name its session or its user.
#[derive(Deserialize)]
struct Hints<'a> {
    #[serde(borrow)]
    session_id: Option<&'a RawValue>,
    #[serde(borrow)]
    prompt_cache_key: Option<&'a RawValue>,
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
    #[serde(borrow)]
    user: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Metadata<'a> {
    #[serde(borrow)]
    user_id: Option<&'a RawValue>,
}

/// A hash of the session that the client's body names, or of its user.
pub(crate) fn session(body: &[u8]) -> Option<u64> {
    let hints = serde_json::from_slice::<Hints<'_>>(body).ok()?;
    let user_id = || {
        serde_json::from_str::<Metadata<'_>>(hints.metadata?.get())
            .ok()?
            .user_id
    };
    let name = hints
        .session_id
        .or(hints.prompt_cache_key)
        .or_else(user_id)
        .or(hints.user)?;
    Some(session_hash(name.get().as_bytes()))
}

/// The cuts of the prompt in `body`; none for a kind of request that no prefix helps, or a body that is not understood.
/// Prompts with different `cache_salt` share nothing.
pub(crate) fn cuts(kind: RequestKind, body: &[u8]) -> Prompt {
    if !kind.is_generated() {
        return Prompt::default();
    }
    let Ok(body) = serde_json::from_slice::<Body<'_>>(body) else {
        return Prompt::default();
    };
    let mut chain = Chain::new(body.cache_salt.map_or("", RawValue::get));
    for piece in body
        .tools
        .into_iter()
        .chain(body.messages.into_iter().flatten())
        .chain(body.prompt)
    {
        message(&mut chain, piece.get().as_bytes());
        chain.end_message();
    }
    chain.finish()
}

/// Adds one message, its attachments as one piece each.
fn message(chain: &mut Chain, mut text: &[u8]) {
    while let Some(start) = attachment(text) {
        let (before, rest) = text.split_at(start);
        let end = memchr::memchr(b'"', rest).unwrap_or(rest.len());
        let (data, after) = rest.split_at(end);
        chain.text(before);
        chain.attachment(data);
        text = after;
    }
    chain.text(text);
}

/// Where the first encoded data begins.
fn attachment(text: &[u8]) -> Option<usize> {
    if text.len() < ATTACHMENT {
        return None;
    }
    let begins = ENCODED
        .iter()
        .flat_map(|mark| memmem::find_iter(text, mark).map(|at| at + mark.len()));
    let long = |at: &usize| {
        let data = text.get(*at..).unwrap_or_default();
        memchr::memchr(b'"', data).unwrap_or(data.len()) >= ATTACHMENT
    };
    begins.filter(long).min()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn chat(body: &str) -> Prompt {
        cuts(RequestKind::Chat, body.as_bytes())
    }

    fn shared(one: &Prompt, other: &Prompt) -> usize {
        let pairs = one.cuts().iter().zip(other.cuts());
        pairs.take_while(|(one, other)| one.hash == other.hash).count()
    }

    #[test]
    fn a_conversation_begins_like_its_last_turn() {
        let tools = r#""tools":[{"type":"function","function":{"name":"f"}}]"#;
        let system = r#"{"role":"system","content":"Be kind."}"#;
        let user = r#"{"role":"user","content":"Hello"}"#;
        let first = chat(&format!(r#"{{"model":"m","messages":[{system},{user}],{tools}}}"#));
        assert_eq!(first.cuts().len(), 3, "tools and two messages");
        let more = r#"{"role":"assistant","content":"Hi"},{"role":"user","content":"Go on"}"#;
        let next = chat(&format!(
            r#"{{{tools}, "temperature":0,"messages":[{system}, {user},{more}]}}"#
        ));
        assert_eq!((shared(&first, &next), next.cuts().len()), (3, 5));
        let other = chat(&format!(r#"{{"messages":[{system},{user}]}}"#));
        assert_eq!(shared(&first, &other), 0, "other tools stand before everything");
    }

    #[test]
    fn an_image_is_one_piece_by_its_bytes() {
        let message = |image: &str| {
            let image = image.repeat(100_000);
            format!(
                r#"{{"messages":[{{"role":"user","content":[{{"type":"text","text":"See"}},{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{image}"}}}}]}},{{"role":"user","content":"?"}}]}}"#
            )
        };
        let (one, same, other) = (chat(&message("A")), chat(&message("A")), chat(&message("B")));
        assert_eq!(
            (one.cuts().len(), one.tokens() / 100),
            (3, 10),
            "about 1,000 tokens: {:?}",
            one.cuts()
        );
        assert_eq!((shared(&one, &same), shared(&one, &other)), (3, 0));
    }

    #[test]
    fn a_session_is_named_by_what_clients_send() {
        let named = |body: &str| session(body.as_bytes());
        assert_eq!(named("{}"), None);
        assert_eq!(named(r#"{"metadata":"x","user":null}"#), None);
        let key = named(r#"{"prompt_cache_key":"a","user":"b"}"#);
        assert_eq!(key, named(r#"{"prompt_cache_key":"a","user":"c"}"#));
        assert_ne!(key, named(r#"{"user":"b"}"#));
        assert_eq!(key, named(r#"{"session_id":"a","prompt_cache_key":"x"}"#));
        assert_eq!(
            named(r#"{"metadata":{"user_id":"b"},"user":"c"}"#),
            named(r#"{"user":"b"}"#)
        );
    }

    #[test]
    fn completions_have_prompts_and_other_kinds_have_none() {
        let body = br#"{"prompt":"Once upon a time","messages":null}"#;
        assert_eq!(cuts(RequestKind::Completion, body).cuts().len(), 1);
        let salted = |salt| chat(&format!(r#"{{"prompt":"a","cache_salt":"{salt}"}}"#));
        assert_ne!(salted("x").cuts(), salted("y").cuts(), "tenants whose caches are apart");
        assert_eq!(cuts(RequestKind::Embeddings, body), Prompt::default());
        assert_eq!(chat("[]"), Prompt::default());
        assert_eq!(chat("{}"), Prompt::default());
    }
}
