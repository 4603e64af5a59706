//! Tools with free text as input, which go to engines as functions with one string.
//!
//! The arguments of a call are then an object with that string, in pieces. [`FreeText`] reads the string out of them as
//! it comes.

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use tokenbus_http_parts::Unescape;
use tokenbus_protocol::RawObject;

use crate::request::RequestError;
use crate::request::field;
use crate::request::member_reader::MemberReader;
use crate::translation::chat_body::unwritable;

/// The member with the text.
const INPUT: &str = "input";

/// What the function's schema says.
const SCHEMA: &str = r#"{"type":"object","properties":{"input":{"type":"string","description":"The whole input, as plain text."}},"required":["input"],"additionalProperties":false}"#;

/// How far into the arguments the member is looked for as they come. Behind that, the text comes at their end.
const NEAR: usize = 4096;

/// The schema of the arguments.
///
/// # Errors
/// [`RequestError`]; never, because the schema is JSON.
pub(super) fn parameters() -> Result<Box<RawValue>, RequestError> {
    RawValue::from_string(SCHEMA.to_owned()).map_err(|error| unwritable(&error.into()))
}

/// What a model is told of `tool`: its description, and the grammar of its input, which no engine enforces for a
/// function.
///
/// # Errors
/// [`RequestError`] for a malformed description or format.
pub(super) fn description(tool: &mut MemberReader) -> Result<String, RequestError> {
    let own: Option<String> = tool.take("description")?;
    let mut told = own.unwrap_or_default();
    let Some(mut format) = tool.object("format")? else {
        return Ok(told);
    };
    let kind: String = format.need("type")?;
    match kind.as_str() {
        "text" => {}
        "grammar" => {
            let syntax: Option<String> = format.take("syntax")?;
            let definition: Option<String> = format.take("definition")?;
            if let Some(definition) = definition {
                let syntax = syntax.unwrap_or_default();
                told.push_str(&format!("\n\n'{INPUT}' follows this {syntax} grammar:\n{definition}"));
            }
        }
        _ => {
            let what = "'text' or 'grammar' is expected";
            return Err(field(format.at("type"), "invalid_value", what));
        }
    }
    Ok(told.trim_start().to_owned())
}

/// The arguments that a function has for `text`.
///
/// # Errors
/// [`RequestError`]; never for a string.
pub(super) fn arguments(text: &str) -> Result<String, RequestError> {
    #[derive(Serialize)]
    struct Arguments<'a> {
        input: &'a str,
    }
    let raw = to_raw_value(&Arguments { input: text }).map_err(|error| unwritable(&error.into()))?;
    Ok(raw.get().to_owned())
}

/// Reads the text out of a function's arguments, piece by piece.
///
/// Models do not always keep to the schema. What is no object is the text itself, or a JSON string with it. An object
/// without the member is told at its end: its only string if it has one, else the object.
#[derive(Debug, Default)]
pub(super) struct FreeText {
    state: State,
    /// The arguments so far, until the text has begun.
    held: String,
    unescape: Unescape,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    /// Nothing but white space has come.
    #[default]
    Blank,
    /// Within the object, before the member.
    Object,
    /// Within the text.
    Text,
    /// The arguments are the text.
    Raw,
    /// The text has ended.
    Over,
}

impl FreeText {
    /// Takes the next piece and returns the text in it.
    pub(super) fn feed(&mut self, piece: &str) -> String {
        match self.state {
            State::Over => String::new(),
            State::Raw => piece.to_owned(),
            State::Text => self.text(piece),
            State::Object if self.held.len() > NEAR => {
                self.held.push_str(piece);
                String::new()
            }
            State::Blank | State::Object => {
                self.held.push_str(piece);
                self.begin()
            }
        }
    }

    /// The text that is left when no more pieces come.
    pub(super) fn finish(&mut self) -> String {
        let left = match self.state {
            State::Text => {
                let mut rest = String::new();
                self.unescape.finish(&mut rest);
                rest
            }
            State::Object => whole(&self.held),
            State::Blank | State::Raw | State::Over => String::new(),
        };
        self.state = State::Over;
        left
    }

    fn begin(&mut self) -> String {
        if self.state == State::Blank {
            self.state = match self.held.trim_start().as_bytes().first() {
                None => return String::new(),
                Some(b'{') => State::Object,
                Some(b'"') => {
                    let held = std::mem::take(&mut self.held);
                    self.state = State::Text;
                    let start = held.find('"').map_or(0, |at| at + 1);
                    return self.text(held.get(start..).unwrap_or_default());
                }
                Some(_) => {
                    self.state = State::Raw;
                    return std::mem::take(&mut self.held);
                }
            };
        }
        match text_at(&self.held) {
            Some(at) => {
                let held = std::mem::take(&mut self.held);
                self.state = State::Text;
                self.text(held.get(at..).unwrap_or_default())
            }
            None => String::new(),
        }
    }

    fn text(&mut self, piece: &str) -> String {
        let mut out = String::with_capacity(piece.len());
        if self.unescape.feed(piece, &mut out) {
            self.state = State::Over;
        }
        out
    }
}

/// Where the text begins in the arguments so far, which are the beginning of an object.
fn text_at(arguments: &str) -> Option<usize> {
    let mut depth = 0u32;
    let mut chars = arguments.char_indices();
    // A string in the outermost object, and whether it is followed by a colon.
    let mut key: Option<&str> = None;
    let mut value = false;
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => {
                if depth == 1 && value && key == Some(INPUT) {
                    return Some(at + 1);
                }
                let start = at + 1;
                let mut escaped = false;
                let end = chars.find_map(|(at, c)| {
                    let over = c == '"' && !escaped;
                    escaped = c == '\\' && !escaped;
                    over.then_some(at)
                })?;
                if depth == 1 && !value {
                    key = arguments.get(start..end);
                }
            }
            ':' if depth == 1 => value = true,
            ',' if depth == 1 => (key, value) = (None, false),
            '{' | '[' => depth += 1,
            '}' | ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    None
}

/// The text of arguments that have no string with the member's name.
fn whole(arguments: &str) -> String {
    let Ok(object) = RawObject::parse(arguments.as_bytes()) else {
        return arguments.to_owned();
    };
    if let Some(input) = object.get(INPUT) {
        return serde_json::from_str(input.get()).unwrap_or_else(|_| input.get().to_owned());
    }
    let mut members = object.iter();
    match (members.next(), members.next()) {
        (Some((_, only)), None) => serde_json::from_str(only.get()).unwrap_or_else(|_| arguments.to_owned()),
        _ => arguments.to_owned(),
    }
}

#[cfg(test)]
#[path = "free_text_tests.rs"]
mod tests;
