//! Makes the messages of a chat request from the items or blocks of another API.
//!
//! Chat templates are strict: a call and its results are messages of their own, in that order. Many templates accept a
//! system message only at the beginning, and roles only in turns. Other APIs allow more, which is brought into this
//! order here: a later system message becomes a marked block in a user message, and neighbours of one role become one
//! message.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;

/// One message.
#[derive(Debug, Serialize)]
pub(crate) struct Message {
    role: &'static str,
    content: Option<Content>,
    #[serde(skip_serializing_if = "String::is_empty")]
    reasoning_content: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<ToolCall>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

/// A part of a message's content.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Part {
    /// Text.
    Text {
        /// The text.
        text: String,
    },
    /// An image.
    ImageUrl {
        /// The image's URL.
        image_url: ImageUrl,
    },
    /// A file.
    File {
        /// The file's content.
        file: File,
    },
    /// Audio, as the object that the client sent.
    InputAudio {
        /// `data` and `format`.
        input_audio: Box<RawValue>,
    },
}

/// The URL of an image.
#[derive(Debug, Serialize)]
pub(crate) struct ImageUrl {
    /// An address, or a data URL with the image itself.
    pub(crate) url: String,
    /// How closely the model is to look.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) detail: Option<String>,
}

/// A file in a request.
#[derive(Debug, Serialize)]
pub(crate) struct File {
    /// The content, as base64 or a data URL.
    pub(crate) file_data: String,
    /// The file's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) filename: Option<String>,
}

/// A call of a function by the model.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "function")]
pub(crate) struct ToolCall {
    /// The call's id.
    pub(crate) id: String,
    /// The function and its arguments.
    pub(crate) function: Function,
}

/// A function and its arguments.
#[derive(Debug, Serialize)]
pub(crate) struct Function {
    /// The function's name.
    pub(crate) name: String,
    /// A string of JSON.
    pub(crate) arguments: String,
}

/// One turn of the assistant.
#[derive(Debug, Default)]
struct Turn {
    reasoning: String,
    text: Option<String>,
    calls: Vec<ToolCall>,
}

/// A list of messages in the making.
#[derive(Debug, Default)]
pub(crate) struct Conversation {
    messages: Vec<Message>,
    turn: Option<Turn>,
    /// The parts of tool results that are no text. Engines accept only text in a tool's message.
    from_tools: Vec<Part>,
    /// What the system said since, for the next message of the user.
    from_system: Vec<String>,
}

impl Conversation {
    /// Adds instructions of the system. Those at the beginning become one system message. Later ones keep their place
    /// as a block that is marked with `<system>`, in the next message of the user or in one of its own. A call and its
    /// results are not parted.
    pub(crate) fn system(&mut self, text: &str) {
        match &mut *self.messages {
            [] if self.turn.is_none() => self.push("system", Some(Content::Text(text.to_owned()))),
            [message] if message.role == "system" && self.turn.is_none() => {
                if let Some(Content::Text(told)) = &mut message.content {
                    join(told, text, "\n\n");
                }
            }
            _ => {
                if self.turn.as_ref().is_some_and(|turn| turn.calls.is_empty()) {
                    self.end_turn();
                }
                if !text.is_empty() {
                    self.from_system.push(format!("<system>\n{text}\n</system>"));
                }
            }
        }
    }

    /// Adds a message of the user. It continues the one before if that is the user's as well.
    pub(crate) fn user(&mut self, parts: Vec<Part>) {
        self.settle();
        self.push_user(content(parts));
    }

    /// Adds the result of a tool call.
    pub(crate) fn result(&mut self, id: String, parts: Vec<Part>) {
        self.end_turn();
        let (text, others): (Vec<Part>, Vec<Part>) =
            parts.into_iter().partition(|part| matches!(part, Part::Text { .. }));
        self.from_tools.extend(others);
        let content = if text.is_empty() {
            Content::Text(String::new())
        } else {
            content(text)
        };
        self.push("tool", Some(content));
        if let Some(message) = self.messages.last_mut() {
            message.tool_call_id = Some(id);
        }
    }

    /// Begins a message of the assistant. The assistant's blocks that follow belong to it.
    pub(crate) fn begin_assistant(&mut self) {
        self.settle();
        self.turn = Some(Turn::default());
    }

    /// What the assistant thought. After calls, it is of the same turn still.
    pub(crate) fn reasoning(&mut self, text: &str) {
        let turn = self.turn(|turn| turn.text.is_some());
        join(&mut turn.reasoning, text, "\n");
    }

    /// Adds a message of the assistant from a list of items. Calls around it belong to the same turn; another message
    /// begins a new one.
    pub(crate) fn assistant_item(&mut self, text: &str) {
        let turn = self.turn(|turn| turn.text.is_some());
        match &mut turn.text {
            Some(told) => join(told, text, "\n"),
            None => turn.text = Some(text.to_owned()),
        }
    }

    /// Adds text to the assistant's message that began last.
    pub(crate) fn text_block(&mut self, text: &str) {
        let turn = self.turn(|_| false);
        turn.text.get_or_insert_default().push_str(text);
    }

    /// Adds a tool call of the assistant.
    pub(crate) fn call(&mut self, call: ToolCall) {
        self.turn(|_| false).calls.push(call);
    }

    /// Ends the conversation and returns its messages.
    pub(crate) fn finish(mut self) -> Vec<Message> {
        self.settle();
        self.messages
    }

    /// The assistant's turn. A new turn begins when there is none, or when the current one has no calls and `over` says
    /// that it has ended.
    fn turn(&mut self, over: impl Fn(&Turn) -> bool) -> &mut Turn {
        if self
            .turn
            .as_ref()
            .is_none_or(|turn| turn.calls.is_empty() && over(turn))
        {
            self.settle();
        }
        self.turn.get_or_insert_default()
    }

    /// Ends the turn and writes what waits for the next message of the user.
    fn settle(&mut self) {
        self.end_turn();
        if !self.from_tools.is_empty() {
            let parts = std::mem::take(&mut self.from_tools);
            self.push_user(content(parts));
        }
        for block in std::mem::take(&mut self.from_system) {
            self.push_user(Content::Text(block));
        }
    }

    fn end_turn(&mut self) {
        let Some(turn) = self.turn.take() else { return };
        // Reasoning alone is nothing that the conversation could continue from.
        if turn.text.is_none() && turn.calls.is_empty() {
            return;
        }
        match self.messages.last_mut() {
            Some(last) if last.role == "assistant" && last.tool_calls.is_empty() => last.go_on(turn),
            _ => {
                self.push("assistant", turn.text.map(Content::Text));
                if let Some(message) = self.messages.last_mut() {
                    message.reasoning_content = turn.reasoning;
                    message.tool_calls = turn.calls;
                }
            }
        }
    }

    fn push_user(&mut self, content: Content) {
        match self.messages.last_mut() {
            Some(Message {
                role: "user",
                content: Some(told),
                ..
            }) => told.append(content),
            _ => self.push("user", Some(content)),
        }
    }

    fn push(&mut self, role: &'static str, content: Option<Content>) {
        self.messages.push(Message {
            role,
            content,
            reasoning_content: String::new(),
            tool_calls: Vec::new(),
            tool_call_id: None,
        });
    }
}

impl Message {
    /// Appends another turn of the assistant to this one, which has no calls.
    fn go_on(&mut self, turn: Turn) {
        join(&mut self.reasoning_content, &turn.reasoning, "\n");
        match (&mut self.content, turn.text) {
            (Some(content), Some(text)) => content.append(Content::Text(text)),
            (content @ None, text) => *content = text.map(Content::Text),
            (Some(_), None) => {}
        }
        self.tool_calls = turn.calls;
    }
}

impl Content {
    /// Texts become one string, because not every engine accepts parts.
    fn append(&mut self, more: Self) {
        match (&mut *self, more) {
            (Self::Text(text), Self::Text(more)) => join(text, &more, "\n\n"),
            (_, more) => {
                let mut parts = std::mem::replace(self, Self::Parts(Vec::new())).into_parts();
                parts.extend(more.into_parts());
                *self = Self::Parts(parts);
            }
        }
    }

    fn into_parts(self) -> Vec<Part> {
        match self {
            Self::Text(text) if text.is_empty() => Vec::new(),
            Self::Text(text) => vec![Part::text(text)],
            Self::Parts(parts) => parts,
        }
    }
}

impl Part {
    /// Text.
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Text { text: text.into() }
    }

    /// An image at an address, or as a data URL.
    pub(crate) fn image(url: impl Into<String>, detail: Option<String>) -> Self {
        let url = url.into();
        Self::ImageUrl {
            image_url: ImageUrl { url, detail },
        }
    }
}

/// A single text becomes a string, because not every engine accepts parts.
fn content(mut parts: Vec<Part>) -> Content {
    match &mut *parts {
        [] => Content::Text(String::new()),
        [Part::Text { text }] => Content::Text(std::mem::take(text)),
        _ => Content::Parts(parts),
    }
}

fn join(to: &mut String, text: &str, between: &str) {
    if !to.is_empty() && !text.is_empty() {
        to.push_str(between);
    }
    to.push_str(text);
}

/// The text of `parts`, if all of them are text.
pub(crate) fn plain<'a>(parts: &'a [Part], between: &str) -> Option<Cow<'a, str>> {
    let texts: Option<Vec<&str>> = parts
        .iter()
        .map(|part| match part {
            Part::Text { text } => Some(text.as_str()),
            _ => None,
        })
        .collect();
    let texts = texts?;
    Some(match &*texts {
        [text] => Cow::Borrowed(*text),
        texts => Cow::Owned(texts.join(between)),
    })
}

#[cfg(test)]
#[path = "conversation_tests.rs"]
mod tests;
