//! The members of a chat delta beside its text: reasoning, refusals, pieces of tool calls, the stop string.

use serde::Deserialize;
use serde_json::value::RawValue;
use tokenbus_protocol::RawJson;

/// The members of a delta that the translations read.
#[derive(Deserialize, Default)]
pub(crate) struct DeltaMembers<'a> {
    #[serde(default)]
    pub(crate) reasoning_content: Option<String>,
    #[serde(default)]
    pub(crate) reasoning: Option<String>,
    #[serde(default)]
    pub(crate) refusal: Option<String>,
    #[serde(default, borrow)]
    pub(crate) tool_calls: Option<Vec<CallPiece<'a>>>,
}

#[derive(Deserialize)]
pub(crate) struct CallPiece<'a> {
    #[serde(default)]
    pub(crate) index: Option<u64>,
    #[serde(default)]
    pub(crate) id: Option<String>,
    #[serde(default, borrow)]
    pub(crate) function: Option<FunctionPiece<'a>>,
    #[serde(default)]
    pub(crate) custom: Option<CustomPiece>,
}

#[derive(Deserialize)]
pub(crate) struct FunctionPiece<'a> {
    #[serde(default)]
    pub(crate) name: Option<String>,
    // Some engines send an object instead of a string.
    #[serde(default, borrow)]
    pub(crate) arguments: Option<&'a RawValue>,
}

#[derive(Deserialize)]
pub(crate) struct CustomPiece {
    #[serde(default)]
    pub(crate) name: Option<String>,
    #[serde(default)]
    pub(crate) input: Option<String>,
}

/// Follows JSON as it comes, and finds where the outermost object or array ends.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    depth: u32,
    string: bool,
    escaped: bool,
    /// The outermost object or array has been closed.
    pub(crate) complete: bool,
}

impl Scan {
    pub(crate) fn feed(&mut self, text: &str) {
        for byte in text.bytes() {
            if self.string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    self.complete |= self.depth == 0;
                }
                _ => {}
            }
        }
    }
}

pub(crate) fn read(members: &RawJson) -> DeltaMembers<'_> {
    // A member of an unknown form is ignored.
    serde_json::from_str(members.get()).unwrap_or_default()
}

pub(crate) fn argument_text(raw: &RawValue) -> String {
    match serde_json::from_str::<Option<String>>(raw.get()) {
        Ok(text) => text.unwrap_or_default(),
        Err(_) => raw.get().to_owned(),
    }
}

/// The stop string in a choice: vLLM's `stop_reason` or SGLang's `matched_stop`. Numbers are ignored: they are token
/// ids, for which no client asked.
pub(crate) fn matched_stop(choice: &RawJson) -> Option<String> {
    #[derive(Deserialize)]
    struct Stop<'a> {
        #[serde(default, borrow)]
        stop_reason: Option<&'a RawValue>,
        #[serde(default, borrow)]
        matched_stop: Option<&'a RawValue>,
    }
    let stop: Stop<'_> = serde_json::from_str(choice.get()).ok()?;
    let told = stop.stop_reason.or(stop.matched_stop)?;
    serde_json::from_str(told.get()).ok()
}

/// The elements of `content` in a choice's log probabilities, without brackets.
pub(crate) fn elements(logprobs: &RawJson) -> &str {
    #[derive(Deserialize)]
    struct Logprobs<'a> {
        #[serde(default, borrow)]
        content: Option<&'a RawValue>,
    }
    let content = serde_json::from_str::<Logprobs<'_>>(logprobs.get()).ok();
    content.and_then(|logprobs| logprobs.content).map_or("", |raw| {
        let inner = raw.get().strip_prefix('[').and_then(|text| text.strip_suffix(']'));
        inner.map_or("", str::trim_ascii)
    })
}

/// Appends `elements` of a JSON array to the elements in `to`.
pub(crate) fn push_elements(to: &mut String, elements: &str) {
    if !to.is_empty() && !elements.is_empty() {
        to.push(',');
    }
    to.push_str(elements);
}
