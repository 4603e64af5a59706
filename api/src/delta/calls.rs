//! The pieces of tool calls: which call each belongs to, and its documented form.

use serde_json::value::RawValue;
use tokenbus_http_parts::{Unescape, may_have_halves, whole_characters};
use tokenbus_protocol::{RawJsonError, RawObject};

use super::scan::Scan;
use crate::limits::MAX_TOOL_CALLS;

/// The calls of a choice so far, in the order in which they began. A call's place is the number that clients read.
#[derive(Debug, Default)]
pub(super) struct Calls(Vec<Call>);

#[derive(Debug, Default)]
struct Call {
    /// The engine's number.
    index: Option<u64>,
    id: Option<String>,
    name: Option<String>,
    /// Its arguments so far.
    scan: Scan,
    halves: Unescape,
}

/// What a piece says of the call that it belongs to.
struct Piece<'a> {
    object: &'a RawObject,
    index: Option<u64>,
    id: Option<String>,
    /// The `function`, or `custom` for a tool with free text.
    inner: Option<(&'static str, RawObject)>,
    name: Option<String>,
    /// Its place in the chunk's list, and the length of that list.
    at: (usize, usize),
}

impl Calls {
    /// Whether arguments end with half of a character.
    pub(super) fn wait(&self) -> bool {
        self.0.iter().any(|call| call.halves.waits())
    }

    /// The pieces in `raw` in the documented form; `None` if they are in it already, or are no pieces.
    pub(super) fn tidy(&mut self, raw: &RawValue) -> Result<Option<Vec<RawObject>>, RawJsonError> {
        let is_list = raw.get().starts_with('[');
        let list = if is_list {
            serde_json::from_str::<Vec<RawObject>>(raw.get())
        } else {
            // One piece that should stand in a list.
            serde_json::from_str::<RawObject>(raw.get()).map(|piece| vec![piece])
        };
        let Ok(list) = list else { return Ok(None) };
        let mut changed = !is_list;
        let mut tidied = Vec::with_capacity(list.len());
        let mut previous = None;
        for (n, object) in list.iter().enumerate() {
            let piece = Piece::new(object, (n, list.len()));
            let found = self.place(&piece, previous);
            if found.is_none() && self.0.len() >= MAX_TOOL_CALLS {
                changed = true;
                continue;
            }
            let at = found.unwrap_or(self.0.len());
            previous = Some(at);
            let first = found.is_none();
            if first {
                self.0.push(Call::default());
            }
            let Some(call) = self.0.get_mut(at) else { continue };
            let exact = call.take(piece, at, first)?;
            changed |= exact.is_some();
            tidied.push(exact.unwrap_or_else(|| object.clone()));
        }
        Ok(changed.then_some(tidied))
    }

    /// No piece follows: the pieces in `raw`, and what stands for halves that still wait; `None` if none waits.
    pub(super) fn end(&mut self, raw: Option<&RawValue>) -> Result<Option<Vec<RawObject>>, RawJsonError> {
        if !self.wait() {
            return Ok(None);
        }
        let mut pieces: Vec<RawObject> = raw
            .and_then(|raw| serde_json::from_str(raw.get()).ok())
            .unwrap_or_default();
        for (at, call) in self.0.iter_mut().enumerate() {
            let mut text = String::new();
            call.halves.finish(&mut text);
            if text.is_empty() {
                continue;
            }
            let (mut piece, mut function) = (RawObject::default(), RawObject::default());
            function.set("arguments", &text)?;
            piece.set("index", &at)?;
            piece.set("function", &function)?;
            pieces.push(piece);
        }
        Ok(Some(pieces))
    }

    /// The place of the call to which `piece` belongs; `None` if it begins a call. `previous` is the place of the piece
    /// before it in the same chunk.
    fn place(&self, piece: &Piece<'_>, previous: Option<usize>) -> Option<usize> {
        let same_id = piece
            .id
            .is_some()
            .then(|| self.last(|call| call.id == piece.id))
            .flatten();
        if piece.index.is_some() {
            let at = self.last(|call| call.index == piece.index);
            // A call that began without a number may get one.
            let same_id = same_id.filter(|&at| self.get(at, |call| call.index.is_none() || call.index == piece.index));
            return same_id.or(at.filter(|&at| self.get(at, |call| !piece.is_another(call))));
        }
        if piece.id.is_some() {
            let newest = self.0.len().checked_sub(1);
            return same_id.or(newest.filter(|&at| self.get(at, |call| !piece.is_another(call))));
        }
        let (n, of) = piece.at;
        match (&piece.name, self.0.len().checked_sub(1)?) {
            // One list with a piece for each of several calls.
            (None, newest) if of > 1 => (newest + 1).checked_sub(of).map(|first| first + n).or(Some(newest)),
            (None, newest) => Some(newest),
            (Some(_), newest) if previous == Some(newest) => None,
            (Some(_), newest) => Some(newest).filter(|&at| self.get(at, |call| !piece.is_another(call))),
        }
    }

    fn last(&self, is: impl Fn(&Call) -> bool) -> Option<usize> {
        self.0.iter().rposition(is)
    }

    fn get(&self, at: usize, is: impl Fn(&Call) -> bool) -> bool {
        self.0.get(at).is_some_and(is)
    }
}

impl<'a> Piece<'a> {
    fn new(object: &'a RawObject, at: (usize, usize)) -> Self {
        let inner = ["function", "custom"].into_iter().find_map(|name| {
            let raw = object.get(name)?;
            Some((name, RawObject::parse(raw.get().as_bytes()).ok()?))
        });
        let name = inner.as_ref().and_then(|(_, inner)| inner.get("name"));
        Self {
            object,
            index: object.get("index").and_then(number),
            id: object.get("id").and_then(word),
            name: name.and_then(word),
            inner,
            at,
        }
    }

    fn input(&self) -> Option<&RawValue> {
        let (kind, inner) = self.inner.as_ref()?;
        inner.get(input_of(kind))
    }

    /// Whether this piece does not continue `call`, although it has the number of `call` or none.
    fn is_another(&self, call: &Call) -> bool {
        let names = self.name.is_some() && call.name.is_some();
        if self.id.is_some() && call.id.is_some() && self.id != call.id {
            // Some engines make up an id for every piece. Such a piece has no name, and goes on with open arguments.
            return names || call.scan.complete;
        }
        if self.id.is_some() && call.id.is_some() {
            return false;
        }
        // Without ids: another whole call behind a whole call.
        names && call.scan.complete && (self.input().is_some_and(opens) || self.name != call.name)
    }
}

impl Call {
    /// Adds `piece` to this call, whose place is `at`. Returns the piece in the documented form, or `None` if it has it.
    fn take(&mut self, piece: Piece<'_>, at: usize, first: bool) -> Result<Option<RawObject>, RawJsonError> {
        let mut exact = RawObject::default();
        exact.set("index", &at)?;
        let mut changed = piece.object.get("index").is_none_or(|raw| raw.get() != at.to_string());
        let had_id = self.id.is_some();
        for (name, raw) in piece.object.iter() {
            match name {
                "index" => {}
                // OpenAI sends an id once. Clients join what comes again to the first.
                "id" if piece.id.is_some() && had_id => changed = true,
                "id" if piece.id.is_some() && !raw.get().starts_with('"') => {
                    changed = true;
                    exact.set(name, &piece.id)?;
                }
                "type" if first && raw.get() == "null" => changed = true,
                _ => match piece.inner.as_ref().filter(|(kind, _)| *kind == name) {
                    Some((kind, inner)) => {
                        let (inner, differs) = self.function(kind, inner, first)?;
                        changed |= differs;
                        exact.set(name, &inner)?;
                    }
                    None => exact.set(name, raw)?,
                },
            }
        }
        if first && piece.name.is_some() && exact.get("function").is_some() && exact.get("type").is_none() {
            changed = true;
            exact.set("type", "function")?;
        }
        self.index = self.index.or(piece.index);
        self.id = self.id.take().or(piece.id);
        self.name = self.name.take().or(piece.name);
        Ok(changed.then_some(exact))
    }

    /// The piece's `function` or `custom` in the documented form, and whether that differs.
    fn function(&mut self, kind: &str, inner: &RawObject, first: bool) -> Result<(RawObject, bool), RawJsonError> {
        let input = input_of(kind);
        let mut exact = RawObject::default();
        let mut changed = false;
        for (name, raw) in inner.iter() {
            if name == "name" && self.name.is_some() && word(raw).is_some() {
                changed = true;
            } else if name == input {
                let is_exact = raw.get().starts_with('"') && !may_have_halves(raw.get()) && !self.halves.waits();
                let text = self.input(raw);
                self.scan.feed(&text);
                if is_exact {
                    exact.set(name, raw)?;
                } else {
                    changed = true;
                    exact.set(name, &text)?;
                }
            } else {
                exact.set(name, raw)?;
            }
        }
        if first && exact.get(input).is_none() {
            changed = true;
            exact.set(input, "")?;
        }
        Ok((exact, changed))
    }

    /// The text of a piece's arguments. Some engines send the object instead of its text.
    fn input(&mut self, raw: &RawValue) -> String {
        match raw.get() {
            "null" => String::new(),
            json if json.starts_with('"') => {
                let mut text = String::with_capacity(json.len());
                self.halves.feed_string(json, &mut text);
                text
            }
            json => json.to_owned(),
        }
    }
}

/// The member that grows in a `function` or a `custom`.
fn input_of(kind: &str) -> &'static str {
    if kind == "custom" { "input" } else { "arguments" }
}

/// Whether arguments in `raw` begin an object.
fn opens(raw: &RawValue) -> bool {
    let text = raw.get().trim_start_matches('"').trim_start();
    text.starts_with('{')
}

/// A number, which some engines write as a string.
fn number(raw: &RawValue) -> Option<u64> {
    raw.get().trim_matches('"').trim().parse().ok()
}

/// A word that is not empty. Some engines number their calls instead of giving them ids.
fn word(raw: &RawValue) -> Option<String> {
    match raw.get() {
        json if json.starts_with('"') => serde_json::from_str(&whole_characters(json))
            .ok()
            .filter(|word: &String| !word.is_empty()),
        json if json.starts_with(|c: char| c.is_ascii_digit()) => Some(json.to_owned()),
        _ => None,
    }
}
