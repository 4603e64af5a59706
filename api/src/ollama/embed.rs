//! `/api/embed` and the older `/api/embeddings`: an engine's embeddings in Ollama's form.

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokenbus_protocol::{Delta, Finish, RequestKind};

use super::ask::{LoadAnswer, OllamaAsk, Resolve};
use super::error::ollama_envelope;
use super::lines::nanos;
use crate::answer::verbatim::Verbatim;
use crate::answer::{AnswerError, Collect, Encoder, Failure, Form, Identity, Times, json};
use crate::embeddings::check_embeddings;
use crate::request::fields::Integer;
use crate::request::member_reader::{MemberReader, read};
use crate::request::{self, Checked, RequestError};
use crate::translation::chat_body::ChatBody;

/// Which of the two forms the client reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// All embeddings, and what they cost.
    All,
    /// The one embedding.
    One,
}

/// Reads a request of `/api/embed`.
///
/// # Errors
/// [`RequestError`] says what is wrong and where.
pub fn ask_embed(body: &[u8], resolve: Resolve<'_>) -> Result<OllamaAsk, RequestError> {
    let mut members = MemberReader::body(body)?;
    let input = members.raw("input");
    let texts = match &input {
        None => Vec::new(),
        Some(raw) => match serde_json::from_str::<String>(raw.get()) {
            Ok(text) => vec![text],
            Err(_) => read("input", raw)?,
        },
    };
    // An empty text alone asks for nothing, as an empty list does.
    let texts = if texts.iter().all(String::is_empty) && texts.len() < 2 {
        Vec::new()
    } else {
        texts
    };
    ask(members, Shape::All, &texts, resolve)
}

/// Reads a request of `/api/embeddings`.
///
/// # Errors
/// [`RequestError`] says what is wrong and where.
pub fn ask_embeddings(body: &[u8], resolve: Resolve<'_>) -> Result<OllamaAsk, RequestError> {
    let mut members = MemberReader::body(body)?;
    let prompt: Option<String> = members.take("prompt")?;
    let texts: Vec<String> = prompt.into_iter().filter(|prompt| !prompt.is_empty()).collect();
    ask(members, Shape::One, &texts, resolve)
}

fn ask(
    mut members: MemberReader,
    shape: Shape,
    texts: &[String],
    resolve: Resolve<'_>,
) -> Result<OllamaAsk, RequestError> {
    let named = request::model(members.take("model")?)?;
    let model = resolve(&named).unwrap_or_else(|| named.clone());
    let form = EmbedForm { shape, model: named };
    let mut body = ChatBody::default();
    body.set("model", &model)?;
    body.set("input", texts)?;
    body.set("encoding_format", "float")?;
    if let Some(dimensions) = members.checked::<Integer>("dimensions")? {
        let asked: Integer = read("dimensions", &dimensions)?;
        // 0 is Ollama's word for the model's own number.
        if asked != Integer(0.0) {
            body.set("dimensions", &dimensions)?;
        }
    }
    if members.take("truncate")?.unwrap_or(false) {
        // vLLM's name for it; other engines ignore it.
        body.set("truncate_prompt_tokens", &-1)?;
    }
    if texts.is_empty() {
        let answer = LoadAnswer::whole(form.answer(&[], None, None));
        return Ok(OllamaAsk::Load { model, answer });
    }
    let body = body.finish()?;
    let checked = check_embeddings(&body)?;
    Ok(OllamaAsk::Call {
        checked: Checked {
            form: Box::new(form),
            body: Some(body),
            ..checked
        },
        kind: RequestKind::Embeddings,
    })
}

#[derive(Debug, Clone)]
struct EmbedForm {
    shape: Shape,
    model: String,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Embeddings<'a> {
    All {
        model: &'a str,
        embeddings: &'a [&'a RawValue],
        #[serde(skip_serializing_if = "Option::is_none")]
        total_duration: Option<u64>,
        load_duration: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        prompt_eval_count: Option<u64>,
    },
    One {
        embedding: &'a RawValue,
    },
    None {
        embedding: [(); 0],
    },
}

impl EmbedForm {
    fn answer(&self, embeddings: &[&RawValue], tokens: Option<u64>, times: Option<Times>) -> Bytes {
        let answer = match (self.shape, embeddings) {
            (Shape::All, _) => Embeddings::All {
                model: &self.model,
                embeddings,
                total_duration: times.map(|times| nanos(times.total)),
                load_duration: 0,
                prompt_eval_count: tokens,
            },
            (Shape::One, [embedding, ..]) => Embeddings::One { embedding },
            (Shape::One, []) => Embeddings::None { embedding: [] },
        };
        let mut out = BytesMut::new();
        json::push(&mut out, &answer);
        out.freeze()
    }
}

impl Form for EmbedForm {
    fn is_stream(&self) -> bool {
        false
    }

    /// Never called, because the form is never streamed.
    fn encoder(&self, identity: Identity) -> Box<dyn Encoder> {
        Verbatim.encoder(identity)
    }

    fn collector(&self, identity: Identity) -> Box<dyn Collect> {
        Box::new(Embedding {
            answer: Verbatim.collector(identity),
            form: self.clone(),
            times: Times::default(),
        })
    }

    fn error(&self, failure: &Failure<'_>) -> Bytes {
        ollama_envelope(failure)
    }
}

struct Embedding {
    answer: Box<dyn Collect>,
    form: EmbedForm,
    times: Times,
}

/// An engine's answer.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    data: Vec<Item<'a>>,
    #[serde(default, borrow)]
    usage: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Item<'a> {
    #[serde(default)]
    index: u64,
    #[serde(borrow)]
    embedding: &'a RawValue,
}

impl Collect for Embedding {
    fn delta(&mut self, delta: &Delta<'_>) -> Result<(), AnswerError> {
        self.answer.delta(delta)
    }

    fn times(&mut self, times: Times) {
        self.times = times;
    }

    fn finish(self: Box<Self>, finish: &Finish) -> Result<Bytes, AnswerError> {
        #[derive(Deserialize)]
        struct Usage {
            #[serde(default)]
            prompt_tokens: Option<u64>,
        }
        let answer = self.answer.finish(finish)?;
        let mut answer: Answer<'_> = serde_json::from_slice(&answer).map_err(|_| AnswerError::NoAnswer)?;
        answer.data.sort_by_key(|item| item.index);
        let embeddings: Vec<&RawValue> = answer.data.iter().map(|item| item.embedding).collect();
        let usage = answer
            .usage
            .and_then(|usage| serde_json::from_str::<Usage>(usage.get()).ok());
        let tokens = usage.and_then(|usage| usage.prompt_tokens).or(finish.prompt_tokens);
        Ok(self.form.answer(&embeddings, tokens, Some(self.times)))
    }
}
