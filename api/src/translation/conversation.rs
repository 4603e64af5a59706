//! Makes the messages of a chat request from the items or blocks of another API.
//!
//! Chat templates are strict: a call and its results are messages of their own, in that order, and many templates
//! accept a system message only at the beginning. Other APIs allow more, which is brought into this order here.

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

/// A tool call of the model.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum ToolCall {
    /// A call of a function.
    Function {
        /// The call's id.
        id: String,
        /// The function and its arguments.
        function: Function,
    },
    /// A call of a custom tool.
    Custom {
        /// The call's id.
        id: String,
        /// The tool and its input.
        custom: Custom,
    },
}

/// A function and its arguments.
#[derive(Debug, Serialize)]
pub(crate) struct Function {
    /// The function's name.
    pub(crate) name: String,
    /// A string of JSON.
    pub(crate) arguments: String,
}

/// A custom tool and its input.
#[derive(Debug, Serialize)]
pub(crate) struct Custom {
    /// The tool's name.
    pub(crate) name: String,
    /// Free text.
    pub(crate) input: String,
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
    /// Whether the only message so far is the system's.
    system: bool,
}

impl Conversation {
    /// Adds instructions of the system. Several at the beginning become one message.
    pub(crate) fn system(&mut self, text: &str) {
        self.settle();
        if let (true, [message]) = (self.system, &mut *self.messages) {
            if let Some(Content::Text(told)) = &mut message.content {
                join(told, text, "\n\n");
            }
            return;
        }
        self.system = self.messages.is_empty();
        self.push("system", Some(Content::Text(text.to_owned())));
    }

    /// Adds a message of the user.
    pub(crate) fn user(&mut self, parts: Vec<Part>) {
        self.end_turn();
        let mut all = std::mem::take(&mut self.from_tools);
        all.extend(parts);
        self.push("user", Some(content(all)));
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

    fn settle(&mut self) {
        self.end_turn();
        if !self.from_tools.is_empty() {
            self.user(Vec::new());
        }
    }

    fn end_turn(&mut self) {
        let Some(turn) = self.turn.take() else { return };
        // Reasoning alone is nothing that the conversation could continue from.
        if turn.text.is_none() && turn.calls.is_empty() {
            return;
        }
        self.push("assistant", turn.text.map(Content::Text));
        if let Some(message) = self.messages.last_mut() {
            message.reasoning_content = turn.reasoning;
            message.tool_calls = turn.calls;
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
