//! What of a request's body must change for the engine, and nothing else.

pub(crate) mod added;
mod blank;
pub(crate) mod count;
pub(crate) mod engine_request;
pub(crate) mod members;
mod resume;
pub(crate) mod seam;
mod text;

use serde::Deserialize;
use serde_json::value::RawValue;
use tokenbus_protocol::{EngineError, ErrorCode, RawJsonError, RawObject, RequestKind, Resume};

use self::count::{Counting, PER_TOKEN};
use self::engine_request::{Asked, Call, Plan};
use self::members::{demands_a_tool, encode, number, parsed, unwritable};
use self::seam::Seam;
use crate::engine::openai::error;
use crate::engine::openai::manner::{Manner, Sent, Whole};
use crate::engine::openai::options::Streaming;
use crate::engine::openai::target::{ServerKind, Target};
use crate::engine::openai::wire::client::Path;

/// The member that names a slot of a llama-server.
const SLOT: &str = "id_slot";

/// The path of the API for `kind`, or `None` where this engine does not know it.
pub(crate) fn path(kind: RequestKind) -> Option<Path<'static>> {
    match kind {
        RequestKind::Chat => Some(Path::Api("chat/completions")),
        RequestKind::Completion => Some(Path::Api("completions")),
        RequestKind::Embeddings => Some(Path::Api("embeddings")),
        RequestKind::Rerank => Some(Path::Api("rerank")),
        RequestKind::Score => Some(Path::Api("score")),
        RequestKind::Tokenize => Some(Path::Root("tokenize")),
        RequestKind::Detokenize => Some(Path::Root("detokenize")),
        RequestKind::Other => None,
    }
}

/// Decides what to send for `body`, asked in `manner`.
///
/// # Errors
/// An [`EngineError`] for the client when the body is no object, or asks what the model cannot do,
/// or cannot be continued.
pub(crate) fn plan_as(
    kind: RequestKind,
    body: &[u8],
    target: &Target,
    resume: Option<&Resume>,
    manner: &Manner,
) -> Result<Plan, EngineError> {
    let mut object = RawObject::parse(body).map_err(|reason| {
        error::plain(
            ErrorCode::BadRequest,
            format!("the body is no JSON object: {reason}"),
            false,
        )
    })?;
    refuse_impossible(kind, &object, target)?;
    let Prepared { counting, asked, sent } = prepare(kind, &mut object, target, manner).map_err(unwritable)?;
    match resume.filter(|resume| !resume.choices.is_empty()) {
        None => {
            let n = number(&object, "n").unwrap_or(1).max(1);
            let each = u32::try_from(n).unwrap_or(u32::MAX);
            let prompts = if kind == RequestKind::Completion {
                text::prompts(&object)
            } else {
                1
            };
            Ok(Plan {
                calls: vec![Call {
                    body: encode(&object).map_err(unwritable)?,
                    choice: None,
                    choices: each.saturating_mul(prompts),
                    each,
                    echoes: text::echoes(kind, &object, target)?,
                    delivered: 0,
                    again: 0,
                    continues: false,
                    seam: Seam::Open,
                    counting,
                    otherwise: None,
                    asked,
                }],
                exhausted: Vec::new(),
                sent,
            })
        }
        Some(resume) => {
            // The client's text goes on.
            let asked = Asked {
                check_calls: false,
                ..asked
            };
            Ok(Plan {
                sent,
                ..resume::plan(kind, &object, target, resume, (counting, asked))?
            })
        }
    }
}

/// The same for a server of which nothing was learned.
#[cfg(test)]
pub(crate) fn plan(
    kind: RequestKind,
    body: &[u8],
    target: &Target,
    resume: Option<&Resume>,
) -> Result<Plan, EngineError> {
    plan_as(kind, body, target, resume, &Manner::default())
}

/// What was decided while a request was prepared.
struct Prepared {
    counting: Counting,
    asked: Asked,
    sent: Sent,
}

/// The members that every request needs, changed only where they differ.
fn prepare(
    kind: RequestKind,
    object: &mut RawObject,
    target: &Target,
    manner: &Manner,
) -> Result<Prepared, RawJsonError> {
    if parsed::<String>(object, "model").as_deref() != Some(target.upstream.as_str()) {
        object.set("model", &target.upstream)?;
    }
    let mut added = added::settle(object, target.kind, &manner.without)?;
    if kind == RequestKind::Chat && added::history(object, target.kind, &manner.without)? {
        added.push(added::HISTORY.to_owned());
    }
    if let Some(slot) = manner.slot.filter(|_| object.get(SLOT).is_none()) {
        object.set(SLOT, &slot)?;
    }
    let streamed = parsed::<bool>(object, "stream") == Some(true);
    let has = Shape::of(kind, object);
    let mut sent = Sent {
        whole: is_whole(streamed, has, target, manner),
        can_be_whole: !(streamed && has.no_stream),
        tools: has.tools,
        added,
    };
    if sent.whole {
        if streamed {
            object.set("stream", &false)?;
        }
        // Engines refuse it beside an answer in one piece.
        object.remove("stream_options");
        return Ok(Prepared {
            counting: Counting::Chunks,
            asked: Asked::default(),
            sent,
        });
    }
    if !streamed {
        object.set("stream", &true)?;
    }
    let (counting, mut asked) = set_stream_options(object, target, streamed, manner, &mut sent.added)?;
    asked.check_calls = !streamed && has.tools && manner.streaming == Streaming::Auto;
    Ok(Prepared { counting, asked, sent })
}

/// Asks for what is counted by, but for what the server refuses; returns that, and what the client itself asked for.
fn set_stream_options(
    object: &mut RawObject,
    target: &Target,
    streamed: bool,
    manner: &Manner,
    added: &mut Vec<String>,
) -> Result<(Counting, Asked), RawJsonError> {
    let options = object.get(STREAM_OPTIONS).filter(|raw| raw.get() != "null");
    let Ok(mut options) = options.map_or(Ok(RawObject::default()), |raw| RawObject::parse(raw.get().as_bytes())) else {
        // No object: the engine tells the client so itself.
        return Ok((Counting::Chunks, Asked::default()));
    };
    let wants = |name: &str| streamed && parsed::<bool>(&options, name) == Some(true);
    let asked = Asked {
        usage_in_chunks: wants(CONTINUOUS),
        no_usage_chunk: !wants("include_usage"),
        check_calls: false,
    };
    let counting = Counting::of(target.kind, object);
    let is_refused = |name: &str| {
        manner.without.contains(STREAM_OPTIONS) || manner.without.contains(&format!("{STREAM_OPTIONS}.{name}"))
    };
    let missing: Vec<&str> = ["include_usage"]
        .into_iter()
        .chain(counting.option())
        .filter(|name| parsed::<bool>(&options, name) != Some(true) && !is_refused(name))
        .collect();
    if !missing.is_empty() {
        if options.is_empty() {
            added.push(STREAM_OPTIONS.to_owned());
        }
        for name in &missing {
            options.set(name, &true)?;
            added.push(format!("{STREAM_OPTIONS}.{name}"));
        }
        object.set(STREAM_OPTIONS, &options)?;
    }
    let is_hidden = counting == (Counting::Timings { hidden: true });
    if is_hidden && !manner.without.contains(PER_TOKEN) {
        object.set(PER_TOKEN, &true)?;
        added.push(PER_TOKEN.to_owned());
    }
    Ok((counting, asked))
}

const STREAM_OPTIONS: &str = "stream_options";
const CONTINUOUS: &str = "continuous_usage_stats";

/// What decides whether a request can be streamed.
#[derive(Debug, Clone, Copy)]
struct Shape {
    /// It has members of which no engine makes a stream.
    no_stream: bool,
    /// The answer may be a tool call.
    tools: bool,
    /// It asks for several choices.
    several: bool,
}

impl Shape {
    fn of(kind: RequestKind, object: &RawObject) -> Self {
        let is_there = |name: &str| {
            object
                .get(name)
                .is_some_and(|raw| !matches!(raw.get(), "null" | "false" | "[]"))
        };
        let echoed = kind == RequestKind::Completion && is_there("echo") && is_there("logprobs");
        let forbidden = |name: &str| object.get(name).is_some_and(|raw| raw.get() == "\"none\"");
        Self {
            no_stream: is_there("prompt_logprobs") || echoed,
            tools: is_there("tools") && !forbidden("tool_choice")
                || is_there("functions") && !forbidden("function_call"),
            several: number(object, "n").is_some_and(|n| n > 1),
        }
    }
}

/// Whether the request is asked in one piece. A client that wants a stream gets one where the server
/// makes one: else the whole answer as one delta. What a client wants in one piece comes so from the
/// server where its streams are known to lack something.
fn is_whole(streamed: bool, has: Shape, target: &Target, manner: &Manner) -> bool {
    let refused = match manner.whole {
        Whole::None => false,
        Whole::WithTools => has.tools,
        Whole::Always => true,
    };
    let better = has.no_stream || has.several && target.kind == ServerKind::Unknown;
    match manner.streaming {
        Streaming::Never => true,
        Streaming::Always => false,
        Streaming::Auto => refused || !streamed && better,
    }
}

/// What the model cannot do and the server would pretend to, or answer with a 500.
fn refuse_impossible(kind: RequestKind, object: &RawObject, target: &Target) -> Result<(), EngineError> {
    if kind != RequestKind::Chat {
        return text::refuse_impossible(object, target);
    }
    if target.tools == Some(false) && demands_a_tool(object) {
        let message = "this model's chat template has no tools, so tool_choice cannot demand one";
        return Err(error::unsupported(message, "tool_choice"));
    }
    if target.vision == Some(false) && object.get("messages").is_some_and(has_images) {
        return Err(error::unsupported("this model takes no images", "messages"));
    }
    Ok(())
}

fn has_images(messages: &RawValue) -> bool {
    #[derive(Deserialize)]
    struct Message<'a> {
        #[serde(borrow, default)]
        content: Option<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Part<'a> {
        #[serde(rename = "type", borrow, default)]
        kind: std::borrow::Cow<'a, str>,
    }
    let messages: Vec<Message<'_>> = serde_json::from_str(messages.get()).unwrap_or_default();
    messages
        .iter()
        .filter_map(|message| message.content)
        .filter(|content| content.get().starts_with('['))
        .any(|content| {
            let parts: Vec<Part<'_>> = serde_json::from_str(content.get()).unwrap_or_default();
            parts
                .iter()
                .any(|part| matches!(part.kind.as_ref(), "image_url" | "input_image" | "image"))
        })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::engine::openai::target::Continuation;

    fn target(continuation: Continuation) -> Target {
        Target {
            upstream: "up".to_owned(),
            kind: ServerKind::Unknown,
            context: None,
            continuation,
            tools: None,
            vision: None,
        }
    }

    fn sent(body: &str) -> String {
        let plan = plan(RequestKind::Chat, body.as_bytes(), &target(Continuation::None), None).unwrap();
        assert_eq!(plan.calls.len(), 1);
        assert!(plan.exhausted.is_empty());
        String::from_utf8(plan.calls[0].body.to_vec()).unwrap()
    }

    #[test]
    fn only_three_members_change() {
        assert_eq!(
            sent(
                r#"{"model":"m","messages":[ {"role":"user"} ],"temperature":0.10,"x":1e400,"big":123456789012345678901}"#
            ),
            r#"{"model":"up","messages":[ {"role":"user"} ],"temperature":0.10,"x":1e400,"big":123456789012345678901,"stream":true,"stream_options":{"include_usage":true}}"#
        );
    }

    #[test]
    fn absent_members_stay_absent_and_nulls_stay_null() {
        let out = sent(r#"{"model":"m","messages":[],"seed":null}"#);
        assert!(out.contains(r#""seed":null"#));
        for name in ["temperature", "max_tokens", "stop", "top_p", "n"] {
            assert!(!out.contains(&format!("\"{name}\"")), "{out}");
        }
    }

    #[test]
    fn stream_options_are_merged() {
        let out = sent(r#"{"stream_options":{"continuous_usage_stats":true,"include_usage":false},"stream":false}"#);
        assert_eq!(
            out,
            r#"{"stream_options":{"continuous_usage_stats":true,"include_usage":true},"stream":true,"model":"up"}"#
        );
        let out = sent(r#"{"stream_options":null}"#);
        assert!(out.contains(r#""stream_options":{"include_usage":true}"#));
        let out = sent(r#"{"stream_options":"x"}"#);
        assert!(
            out.contains(r#""stream_options":"x""#),
            "the engine's own refusal reaches the client"
        );
    }

    #[test]
    fn what_is_right_already_is_not_touched() {
        let body = r#"{"stream_options":{ "include_usage" : true },"stream":true,"model":"up"}"#;
        assert_eq!(sent(body), body);
    }

    #[test]
    fn choices_are_counted() {
        let of = |body: &str| {
            plan(RequestKind::Chat, body.as_bytes(), &target(Continuation::None), None)
                .unwrap()
                .calls[0]
                .choices
        };
        assert_eq!(of(r#"{"n":3}"#), 3);
        for body in ["{}", r#"{"n":null}"#, r#"{"n":0}"#, r#"{"n":"x"}"#] {
            assert_eq!(of(body), 1, "{body}");
        }
    }

    #[test]
    fn no_object_is_a_bad_request() {
        for body in ["", "[]", "{", "null"] {
            let error = plan(RequestKind::Chat, body.as_bytes(), &target(Continuation::None), None).unwrap_err();
            assert_eq!((error.code, error.retryable), (ErrorCode::BadRequest, false));
        }
    }

    #[test]
    fn a_demanded_tool_is_refused_where_the_template_has_none() {
        let with = |tools, body: &str| {
            let target = Target {
                tools,
                ..target(Continuation::None)
            };
            plan(RequestKind::Chat, body.as_bytes(), &target, None)
        };
        let named = r#"{"tool_choice":{"type":"function","function":{"name":"f"}}}"#;
        for body in [r#"{"tool_choice":"required"}"#, named] {
            let error = with(Some(false), body).unwrap_err();
            assert_eq!(
                (error.code, error.param.as_deref()),
                (ErrorCode::BadRequest, Some("tool_choice"))
            );
            assert!(with(Some(true), body).is_ok() && with(None, body).is_ok());
        }
        for body in [
            r#"{"tool_choice":"auto","tools":[{}]}"#,
            r#"{"tool_choice":"none"}"#,
            r#"{"tool_choice":null}"#,
        ] {
            assert!(with(Some(false), body).is_ok(), "{body}");
        }
    }

    #[test]
    fn images_are_refused_where_the_model_is_blind() {
        let body = r#"{"messages":[{"role":"user","content":"hi"},{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"data:"}}]}]}"#;
        let with = |vision| {
            plan(
                RequestKind::Chat,
                body.as_bytes(),
                &Target {
                    vision,
                    ..target(Continuation::None)
                },
                None,
            )
        };
        assert_eq!(with(Some(false)).unwrap_err().param.as_deref(), Some("messages"));
        assert!(with(Some(true)).is_ok() && with(None).is_ok());
        let text = r#"{"messages":[{"content":[{"type":"text","text":"image_url"}]},{"content":null},{}]}"#;
        let target = Target {
            vision: Some(false),
            ..target(Continuation::None)
        };
        assert!(plan(RequestKind::Chat, text.as_bytes(), &target, None).is_ok());
    }

    #[test]
    fn paths_of_the_api() {
        assert!(matches!(path(RequestKind::Chat), Some(Path::Api("chat/completions"))));
        assert!(matches!(path(RequestKind::Tokenize), Some(Path::Root("tokenize"))));
        assert!(path(RequestKind::Other).is_none());
    }
}
