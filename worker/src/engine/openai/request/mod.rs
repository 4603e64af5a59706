//! What of a request's body must change for the engine, and nothing else.

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
use self::engine_request::{Call, Plan};
use self::members::{demands_a_tool, encode, number, parsed, unwritable};
use self::seam::Seam;
use crate::engine::openai::error;
use crate::engine::openai::target::Target;
use crate::engine::openai::wire::client::Path;

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

/// Decides what to send for `body`.
///
/// # Errors
/// An [`EngineError`] for the client when the body is no object, or asks what the model cannot do,
/// or cannot be continued.
pub(crate) fn plan(
    kind: RequestKind,
    body: &[u8],
    target: &Target,
    resume: Option<&Resume>,
) -> Result<Plan, EngineError> {
    let mut object = RawObject::parse(body).map_err(|reason| {
        error::plain(
            ErrorCode::BadRequest,
            format!("the body is no JSON object: {reason}"),
            false,
        )
    })?;
    refuse_impossible(kind, &object, target)?;
    let counting = prepare(kind, &mut object, target).map_err(unwritable)?;
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
                }],
                exhausted: Vec::new(),
            })
        }
        Some(resume) => resume::plan(kind, &object, target, resume, counting),
    }
}

/// The members that every request needs, changed only where they differ.
fn prepare(kind: RequestKind, object: &mut RawObject, target: &Target) -> Result<Counting, RawJsonError> {
    if parsed::<String>(object, "model").as_deref() != Some(target.upstream.as_str()) {
        object.set("model", &target.upstream)?;
    }
    if parsed::<bool>(object, "stream") != Some(true) {
        object.set("stream", &true)?;
    }
    let options = object.get("stream_options").filter(|raw| raw.get() != "null");
    let Ok(mut options) = options.map_or(Ok(RawObject::default()), |raw| RawObject::parse(raw.get().as_bytes())) else {
        // No object: the engine tells the client so itself.
        return Ok(Counting::Chunks);
    };
    let counting = if kind.is_generated() {
        Counting::of(target.kind, object)
    } else {
        Counting::Chunks
    };
    let mut missing = ["include_usage"]
        .into_iter()
        .chain(counting.option())
        .collect::<Vec<_>>();
    missing.retain(|name| parsed::<bool>(&options, name) != Some(true));
    for name in &missing {
        options.set(name, &true)?;
    }
    if !missing.is_empty() {
        object.set("stream_options", &options)?;
    }
    if counting == (Counting::Timings { hidden: true }) {
        object.set(PER_TOKEN, &true)?;
    }
    Ok(counting)
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
    use crate::engine::openai::target::{Continuation, ServerKind};

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
