//! Reads the requests of `/api/chat` and `/api/generate`.

use bytes::{Bytes, BytesMut};
use serde_json::value::RawValue;
use tokenbus_protocol::RequestKind;

use super::answer::OllamaForm;
use super::lines::{End, Head, Kind, Piece};
use super::messages;
use super::options;
use crate::chat::check_chat;
use crate::completions::check_completion;
use crate::request::member_reader::{MemberReader, read_each, unsupported};
use crate::request::{self, Checked, RequestError, missing};
use crate::translation::chat_body::{ChatBody, unwritable};

/// The name by which the cluster knows a model, where it is not the client's.
pub(super) type Resolve<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What a request asks for.
#[derive(Debug)]
pub enum OllamaAsk {
    /// Output of a model.
    Call {
        /// The request.
        checked: Checked,
        /// What it has become.
        kind: RequestKind,
    },
    /// That the model be ready, or no longer kept so. There is nothing to do: the workers hold their models.
    Load {
        /// The model, by the cluster's name.
        model: String,
        /// What the client is told if there is such a model.
        answer: LoadAnswer,
    },
}

impl OllamaAsk {
    /// The request, which must ask for output.
    ///
    /// # Errors
    /// [`RequestError`] when it does not.
    pub fn checked(self) -> Result<Checked, RequestError> {
        match self {
            Self::Call { checked, .. } => Ok(checked),
            Self::Load { .. } => Err(missing("prompt")),
        }
    }
}

/// What a client is told that asked for no output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadAnswer(Told);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Told {
    Line {
        kind: Kind,
        model: String,
        reason: &'static str,
    },
    Whole(Bytes),
}

impl LoadAnswer {
    /// An answer that is always the same.
    pub(super) fn whole(answer: Bytes) -> Self {
        Self(Told::Whole(answer))
    }

    /// The answer, made at this Unix time in seconds.
    pub fn write(self, now: u64) -> Bytes {
        match self.0 {
            Told::Whole(answer) => answer,
            Told::Line { kind, model, reason } => {
                let mut out = BytesMut::new();
                let end = End::without_output(reason);
                Head::new(kind, model, now).push(&Piece::default(), Some(end), &mut out);
                out.freeze()
            }
        }
    }
}

/// The members that all requests share.
struct Asked {
    members: MemberReader,
    /// The model, by the client's name.
    named: String,
    /// By the cluster's.
    model: String,
    body: ChatBody,
}

/// How to answer.
struct How {
    stream: bool,
    logprobs: bool,
}

impl Asked {
    fn read(body: &[u8], resolve: Resolve<'_>) -> Result<Self, RequestError> {
        let mut members = MemberReader::body(body)?;
        let named = request::model(members.take("model")?)?;
        let model = resolve(&named).unwrap_or_else(|| named.clone());
        let mut body = ChatBody::default();
        body.set("model", &model)?;
        Ok(Self {
            members,
            named,
            model,
            body,
        })
    }

    /// Reads the members that say how to answer. Those for chats alone are read in any case, and dropped `without_chat`.
    fn how(&mut self, without_chat: bool) -> Result<How, RequestError> {
        let stream = self.members.take("stream")?.unwrap_or(true);
        self.body.set("stream", &stream)?;
        options::options(&mut self.members, &mut self.body)?;
        options::format(&mut self.members, &mut self.body)?;
        let mut dropped = ChatBody::default();
        let body = if without_chat { &mut dropped } else { &mut self.body };
        options::think(&mut self.members, body)?;
        let logprobs = options::logprobs(&mut self.members, body)?;
        Ok(How { stream, logprobs })
    }

    /// A request for no output.
    fn load(mut self, kind: Kind) -> OllamaAsk {
        let kept: Option<Box<RawValue>> = self.members.raw("keep_alive");
        let kept = kept.map(|raw| raw.get().trim_matches('"').to_owned());
        let ends = kept.is_some_and(|kept| kept.trim_end_matches(char::is_alphabetic).parse() == Ok(0.0_f64));
        OllamaAsk::Load {
            model: self.model,
            answer: LoadAnswer(Told::Line {
                kind,
                model: self.named,
                reason: if ends { "unload" } else { "load" },
            }),
        }
    }

    fn chat(self, kind: Kind, stream: bool) -> Result<OllamaAsk, RequestError> {
        self.call(kind, stream, RequestKind::Chat, check_chat)
    }

    fn call(
        self,
        kind: Kind,
        stream: bool,
        becomes: RequestKind,
        check: fn(&[u8]) -> Result<Checked, RequestError>,
    ) -> Result<OllamaAsk, RequestError> {
        let body = self.body.finish()?;
        let checked = check(&body)?;
        let form = OllamaForm {
            kind,
            stream,
            model: self.named,
        };
        Ok(OllamaAsk::Call {
            checked: Checked {
                form: Box::new(form),
                body: Some(body),
                ..checked
            },
            kind: becomes,
        })
    }
}

/// Reads a request of `/api/chat`. Members that no engine needs are not read.
///
/// # Errors
/// [`RequestError`] says what is wrong and where.
pub fn ask_chat(body: &[u8], resolve: Resolve<'_>) -> Result<OllamaAsk, RequestError> {
    let mut asked = Asked::read(body, resolve)?;
    let list = asked.members.list("messages")?.unwrap_or_default();
    asked.body.set("messages", &messages::messages(&list)?)?;
    let tools = asked.members.list("tools")?.unwrap_or_default();
    if !tools.is_empty() {
        asked.body.set("tools", &read_each("tools", &tools, tool)?)?;
    }
    let How { stream, .. } = asked.how(false)?;
    if list.is_empty() {
        return Ok(asked.load(Kind::Chat));
    }
    asked.chat(Kind::Chat, stream)
}

/// A tool as it came. Ollama does not ask for its type.
fn tool(mut tool: MemberReader) -> Result<tokenbus_protocol::RawObject, RequestError> {
    let kind: Option<String> = tool.take("type")?;
    let mut tool = tool.rest();
    let kind = kind.filter(|kind| !kind.is_empty());
    let set = tool.set("type", kind.as_deref().unwrap_or("function"));
    set.map_err(|error| unwritable(&error))?;
    Ok(tool)
}

/// Reads a request of `/api/generate`.
///
/// # Errors
/// [`RequestError`] says what is wrong and where.
pub fn ask_generate(body: &[u8], resolve: Resolve<'_>) -> Result<OllamaAsk, RequestError> {
    let mut asked = Asked::read(body, resolve)?;
    let members = &mut asked.members;
    let text = |members: &mut MemberReader, name| members.take(name).map(Option::unwrap_or_default);
    let (prompt, suffix): (String, String) = (text(members, "prompt")?, text(members, "suffix")?);
    let (system, template): (String, String) = (text(members, "system")?, text(members, "template")?);
    let images: Vec<String> = members.take("images")?.unwrap_or_default();
    let context = members.list("context")?.unwrap_or_default();
    let raw: bool = members.take("raw")?.unwrap_or(false);
    let completes = raw || !suffix.is_empty();
    let How { stream, logprobs } = asked.how(completes)?;
    if prompt.is_empty() {
        return Ok(asked.load(Kind::Generate));
    }
    if !template.is_empty() {
        let what = "'template' is not supported: the engine has its own. Send the whole prompt with 'raw', or a chat";
        return Err(unsupported("template", what));
    }
    if !context.is_empty() {
        let what = "'context' is not supported: no answer here has one. Send the conversation to /api/chat";
        return Err(unsupported("context", what));
    }
    if !completes {
        asked
            .body
            .set("messages", &messages::prompt(&system, prompt, &images))?;
        return asked.chat(Kind::Generate, stream);
    }
    if raw && !system.is_empty() {
        return Err(unsupported("system", "'raw' and 'system' exclude each other"));
    }
    if !images.is_empty() {
        return Err(unsupported(
            "images",
            "'images' need a prompt without 'raw' and 'suffix'",
        ));
    }
    if logprobs {
        return Err(unsupported(
            "logprobs",
            "'logprobs' need a prompt without 'raw' and 'suffix'",
        ));
    }
    asked.body.set("prompt", &prompt)?;
    if !suffix.is_empty() {
        asked.body.set("suffix", &suffix)?;
    }
    asked.call(Kind::Generate, stream, RequestKind::Completion, check_completion)
}

#[cfg(test)]
#[path = "ask_tests.rs"]
mod tests;
