//! The messages of a chat request, put together from the items or blocks of another API.
//!
//! Chat templates are strict: a call and its results stand in messages of their own, in that order,
//! and many templates take a system message in the first place only. What other APIs allow beyond
//! that is brought into this shape here.

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
        /// Where it is.
        image_url: ImageUrl,
    },
    /// A file.
    File {
        /// What is in it.
        file: File,
    },
    /// Sound; the object as it came.
    InputAudio {
        /// `data` and `format`.
        input_audio: Box<RawValue>,
    },
}

/// Where an image is.
#[derive(Debug, Serialize)]
pub(crate) struct ImageUrl {
    /// An address, or the image itself as a data URL.
    pub(crate) url: String,
    /// How closely to look.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) detail: Option<String>,
}

/// A file in a request.
#[derive(Debug, Serialize)]
pub(crate) struct File {
    /// The file itself, base64 or a data URL.
    pub(crate) file_data: String,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) filename: Option<String>,
}

/// A call that the model asked for.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum ToolCall {
    /// Of a function.
    Function {
        /// Its id.
        id: String,
        /// What was to be called.
        function: Function,
    },
    /// Of a custom tool.
    Custom {
        /// Its id.
        id: String,
        /// What was to be called.
        custom: Custom,
    },
}

/// A function and its arguments.
#[derive(Debug, Serialize)]
pub(crate) struct Function {
    /// Its name.
    pub(crate) name: String,
    /// JSON, as a text.
    pub(crate) arguments: String,
}

/// A custom tool and its input.
#[derive(Debug, Serialize)]
pub(crate) struct Custom {
    /// Its name.
    pub(crate) name: String,
    /// Free text.
    pub(crate) input: String,
}

/// What the assistant said in one turn.
#[derive(Debug, Default)]
struct Turn {
    reasoning: String,
    text: Option<String>,
    calls: Vec<ToolCall>,
}

/// Puts messages together.
#[derive(Debug, Default)]
pub(crate) struct Conversation {
    messages: Vec<Message>,
    turn: Option<Turn>,
    /// What results brought beside text: engines take text alone in a tool's message.
    from_tools: Vec<Part>,
    /// The first messages, all of them the system's, are one.
    system: bool,
}

impl Conversation {
    /// What the model is told of its task. At the head, all of it becomes one message.
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

    /// What the user said.
    pub(crate) fn user(&mut self, parts: Vec<Part>) {
        self.end_turn();
        let mut all = std::mem::take(&mut self.from_tools);
        all.extend(parts);
        self.push("user", Some(content(all)));
    }

    /// What came of a call.
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

    /// A message of the assistant's as a whole: what comes next from it is in another.
    pub(crate) fn begin_assistant(&mut self) {
        self.settle();
        self.turn = Some(Turn::default());
    }

    /// What the assistant thought. After calls, it is of the same turn still.
    pub(crate) fn reasoning(&mut self, text: &str) {
        let turn = self.turn(|turn| turn.text.is_some());
        join(&mut turn.reasoning, text, "\n");
    }

    /// A message of the assistant's, among items: calls around it are of the same turn, another
    /// message is not.
    pub(crate) fn said(&mut self, text: &str) {
        let turn = self.turn(|turn| turn.text.is_some());
        match &mut turn.text {
            Some(told) => join(told, text, "\n"),
            None => turn.text = Some(text.to_owned()),
        }
    }

    /// A piece of the assistant's message that was begun last.
    pub(crate) fn text_block(&mut self, text: &str) {
        let turn = self.turn(|_| false);
        turn.text.get_or_insert_default().push_str(text);
    }

    /// A call that the assistant asked for.
    pub(crate) fn call(&mut self, call: ToolCall) {
        self.turn(|_| false).calls.push(call);
    }

    /// The messages.
    pub(crate) fn finish(mut self) -> Vec<Message> {
        self.settle();
        self.messages
    }

    /// The assistant's turn: a new one where there is none, or where the present one has no calls
    /// and `over` says that it is over.
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
        // Reasoning alone led to nothing that could be gone on from.
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

/// One text is told as such, because not every engine takes parts.
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

/// All the text of `parts`, where they are text and nothing else.
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
