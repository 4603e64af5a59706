//! What a server answers in one piece: embeddings, rerank, score, tokenize, detokenize.
//!
//! The answer is read whole and handed on as text, byte for byte but for its model's name, in pieces
//! that wait while the way to the gateway is full.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use tokenbus_protocol::{
    Delta, EngineError, ErrorCode, Finish, RawJson, RawJsonError, RawObject, RequestKind, model_mark,
};

use super::exchange::{Output, Server, emit, permitted, room};
use super::streamed::Stopped;
use super::vectors::Encoding;
use crate::engine::Job;
use crate::engine::openai::error::{self, Secrets};
use crate::engine::openai::limits;
use crate::engine::openai::request::members::{encode, parsed, unwritable};
use crate::engine::openai::request::{self, added};
use crate::engine::openai::target::{ServerKind, Target};
use crate::engine::openai::watch::shared::Shared;
use crate::engine::openai::wire::client::{AnswerBody, Path, SendError, read_to_end};
use crate::engine::openai::wire::completion_chunk::is_nothing;

/// All that the server does for the job. Dropped, it closes the connection.
pub(crate) async fn drive(shared: &Arc<Shared>, job: &Job, output: &Output) -> Result<Finish, Stopped> {
    let catalog = shared.catalog();
    let Some(path) = request::path(job.kind) else {
        return Err(error::plain(ErrorCode::BadRequest, "this engine does not serve that API", false).into());
    };
    let Some(target) = catalog.target(&job.model) else {
        let message = format!("the engine does not serve the model {:?}", job.model);
        return Err(error::plain(ErrorCode::ModelNotFound, message, true).into());
    };
    let server = Server::new(shared, job);
    let (kind, body, prepared_for) = (job.kind, job.body.clone(), target.clone());
    let body = beside(body.len(), move || prepare(kind, &body, &prepared_for)).await??;
    let secrets = shared.client.secrets();
    let encoding = (job.kind == RequestKind::Embeddings)
        .then(|| Encoding::of(&body))
        .flatten();
    let answer = permitted(shared, job, async {
        let plain = encoding.is_some().then(|| without_encoding(&body)).flatten();
        let body = templated(&server, job.kind, target, body).await?;
        let mut answer = read(&server, path, &body).await;
        // A form that the server does not have is made here.
        if let (Err(_), Some(plain)) = (&answer, plain)
            && server.take_refused().is_some_and(|refused| refused.names(FORMAT))
        {
            answer = read(&server, path, &encode(&plain).map_err(unwritable)?).await;
        }
        Ok(answer?)
    });
    let answer = answer.await?;
    shared.output_came(Instant::now());
    let (kind, finished_for) = (job.kind, target.clone());
    let answer = beside(answer.len(), move || {
        Answer::new(kind, encoding, &answer, &finished_for, &secrets)
    })
    .await??;
    answer.send(output).await?;
    Ok(answer.finish)
}

/// Runs `work`, on a blocking thread where it goes over many bytes.
pub(crate) async fn beside<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, EngineError> {
    if bytes <= limits::INLINE_BODY {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_panic_or_shutdown| error::nonsense("the request could not be prepared for the engine"))
}

/// The member that asks for a form of embeddings.
const FORMAT: &str = "encoding_format";

fn without_encoding(object: &RawObject) -> Option<RawObject> {
    object.get(FORMAT)?;
    let mut object = object.clone();
    object.remove(FORMAT);
    Some(object)
}

async fn read(server: &Server<'_>, path: Path<'_>, body: &Bytes) -> Result<Bytes, EngineError> {
    let answer = server.post(path, body).await.map_err(no_route)?;
    read_whole(server, answer.into_body()).await
}

/// The whole of an answer's body, within its bound.
pub(crate) async fn read_whole(server: &Server<'_>, body: AnswerBody) -> Result<Bytes, EngineError> {
    let whole = read_to_end(body, limits::MAX_WHOLE_ANSWER).await;
    whole.map_err(|reason| match reason {
        SendError::TooLarge => error::plain(
            ErrorCode::Internal,
            format!(
                "the engine's answer is larger than {} MiB",
                limits::MAX_WHOLE_ANSWER >> 20
            ),
            false,
        ),
        other => server.broken(&other),
    })
}

/// A 404 that says nothing of a model is about the path.
fn no_route(refused: EngineError) -> EngineError {
    if refused.code == ErrorCode::ModelNotFound && !refused.message.to_ascii_lowercase().contains("model") {
        return error::unsupported("the engine has no such endpoint", "model");
    }
    refused
}

/// The request's body for the server: its model's name, and the members that servers of this kind call
/// otherwise.
fn prepare(kind: RequestKind, body: &[u8], target: &Target) -> Result<RawObject, EngineError> {
    let mut object = RawObject::parse(body).map_err(|reason| {
        let message = format!("the body is no JSON object: {reason}");
        error::plain(ErrorCode::BadRequest, message, false)
    })?;
    set_members(kind, &mut object, target).map_err(unwritable)?;
    Ok(object)
}

fn set_members(kind: RequestKind, object: &mut RawObject, target: &Target) -> Result<(), RawJsonError> {
    if parsed::<String>(object, "model").as_deref() != Some(target.upstream.as_str()) {
        object.set("model", &target.upstream)?;
    }
    added::settle(object, target.kind, &BTreeSet::new())?;
    if kind != RequestKind::Tokenize {
        return Ok(());
    }
    let (theirs, ours, special, also) = match target.kind {
        ServerKind::LlamaServer => ("prompt", "content", "add_special_tokens", "add_special"),
        _ => ("content", "prompt", "add_special", "add_special_tokens"),
    };
    if object.get(ours).is_none()
        && object.get("messages").is_none()
        && let Some(text) = object.remove(theirs)
    {
        object.set(ours, &text)?;
        // A prompt begins as a completion's does; a bare content does not.
        let asked = object
            .remove(special)
            .and_then(|raw| serde_json::from_str(raw.get()).ok());
        object.set(also, &asked.unwrap_or(theirs == "prompt"))?;
    }
    Ok(())
}

/// llama-server tokenizes text only: the messages of a chat go through its template first.
async fn templated(
    server: &Server<'_>,
    kind: RequestKind,
    target: &Target,
    object: RawObject,
) -> Result<Bytes, EngineError> {
    #[derive(Deserialize)]
    struct Templated {
        prompt: String,
    }
    #[derive(serde::Serialize)]
    struct Text<'a> {
        model: &'a str,
        content: &'a str,
        add_special: bool,
        parse_special: bool,
    }
    let messages = object.get("messages").is_some_and(|raw| raw.get() != "null");
    let body = encode(&object).map_err(unwritable)?;
    if kind != RequestKind::Tokenize || target.kind != ServerKind::LlamaServer || !messages {
        return Ok(body);
    }
    let answer = read(server, Path::Root("apply-template"), &body).await?;
    let Ok(Templated { prompt }) = serde_json::from_slice(&answer) else {
        return Err(error::nonsense("the engine sent no prompt made of the messages"));
    };
    let text = Text {
        model: &target.upstream,
        content: &prompt,
        add_special: false,
        parse_special: true,
    };
    let text = RawJson::from_serialize(&text).map_err(unwritable)?;
    Ok(Bytes::from(text.get().to_owned()))
}

/// The members of an answer that are looked at.
#[derive(Deserialize, Default)]
struct Top<'a> {
    #[serde(borrow, default)]
    model: Option<&'a RawValue>,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

/// Numbers of a `usage` object. Some servers tell only the sum.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Counts {
    prompt_tokens: Option<u64>,
    total_tokens: Option<u64>,
    completion_tokens: Option<u64>,
}

/// A whole answer.
#[derive(Debug)]
struct Answer {
    text: String,
    /// Where the model's name stands in it.
    model: Option<Range<usize>>,
    finish: Finish,
}

impl Answer {
    fn new(
        kind: RequestKind,
        encoding: Option<Encoding>,
        body: &[u8],
        target: &Target,
        secrets: &Secrets,
    ) -> Result<Self, EngineError> {
        let text = std::str::from_utf8(body).map_err(|_| error::nonsense("the engine sent bytes that are no text"))?;
        let text = match encoding.and_then(|encoding| encoding.apply(text.trim())) {
            Some(text) => text,
            None => completed(kind, text.trim(), target).into_owned(),
        };
        let no_json = |_| error::nonsense("the engine sent an answer that is no JSON");
        if !text.starts_with('{') {
            // SGLang's rerank answers with an array.
            serde_json::from_str::<IgnoredAny>(&text).map_err(no_json)?;
            let (model, finish) = (None, finish(None));
            return Ok(Self { text, model, finish });
        }
        let top: Top<'_> = serde_json::from_str(&text).map_err(no_json)?;
        if top.error.is_some_and(|error| !is_nothing(error)) {
            return Err(error::from_stream(&text, secrets));
        }
        let model = top.model.filter(|raw| raw.get().starts_with('"'));
        let model = model.map(|raw| place(&text, raw.get()));
        let finish = finish(top.usage);
        Ok(Self { text, model, finish })
    }

    /// Hands the text to `output`.
    async fn send(&self, output: &Output) -> Result<(), Stopped> {
        let Some(at) = &self.model else {
            return send_text(&self.text, output).await;
        };
        send_text(self.text.get(..at.start).unwrap_or_default(), output).await?;
        emit(output, model_mark())?;
        send_text(self.text.get(at.end..).unwrap_or_default(), output).await
    }
}

/// Where `part`, a slice of `whole`, stands in it.
fn place(whole: &str, part: &str) -> Range<usize> {
    let start = part.as_ptr().addr().saturating_sub(whole.as_ptr().addr());
    start..start + part.len()
}

fn finish(usage: Option<&RawValue>) -> Finish {
    let usage = usage.filter(|raw| raw.get().starts_with('{'));
    let counts: Option<Counts> = usage.and_then(|raw| serde_json::from_str(raw.get()).ok());
    let counts = counts.unwrap_or_default();
    Finish {
        prompt_tokens: counts.prompt_tokens.or(counts.total_tokens),
        completion_tokens: Some(counts.completion_tokens.unwrap_or(0)),
        usage: usage.map(RawJson::from),
        chunk: None,
    }
}

async fn send_text(text: &str, output: &Output) -> Result<(), Stopped> {
    let mut rest = text;
    while !rest.is_empty() {
        room(output).await;
        let (piece, tail) = rest.split_at(rest.floor_char_boundary(limits::WHOLE_PIECE));
        emit(
            output,
            Delta {
                text: Cow::Borrowed(piece),
                ..Delta::default()
            },
        )?;
        rest = tail;
    }
    Ok(())
}

/// The answer with what servers of another kind would have in it, so that their clients are served: the
/// count of the tokens; the text under each of its names.
fn completed<'t>(kind: RequestKind, text: &'t str, target: &Target) -> Cow<'t, str> {
    let done = match kind {
        RequestKind::Tokenize => RawObject::parse(text.as_bytes()).and_then(|object| counted(object, target)),
        RequestKind::Detokenize => RawObject::parse(text.as_bytes()).and_then(named),
        _ => return Cow::Borrowed(text),
    };
    done.map_or(Cow::Borrowed(text), |json| Cow::Owned(json.get().to_owned()))
}

fn counted(mut object: RawObject, target: &Target) -> Result<RawJson, RawJsonError> {
    let tokens = parsed::<Vec<IgnoredAny>>(&object, "tokens").map(|tokens| tokens.len());
    if let (Some(count), None) = (tokens, object.get("count")) {
        object.set("count", &count)?;
    }
    if let (Some(context), None) = (target.context, object.get("max_model_len")) {
        object.set("max_model_len", &context)?;
    }
    object.to_json()
}

fn named(mut object: RawObject) -> Result<RawJson, RawJsonError> {
    const NAMES: [&str; 3] = ["prompt", "content", "text"];
    let text = NAMES.iter().find_map(|name| parsed::<String>(&object, name));
    if let Some(text) = text {
        for name in NAMES.iter().filter(|name| **name != "text") {
            if object.get(name).is_none() {
                object.set(name, &text)?;
            }
        }
    }
    object.to_json()
}

#[cfg(test)]
#[path = "unary_tests.rs"]
mod tests;
