//! The members of a chat delta beside its text: reasoning, refusals, pieces of tool calls, the stop string.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use tokenbus_protocol::RawJson;

/// The members of a delta that the translations read, in the documented form. A member of another type counts as
/// absent.
#[derive(Deserialize, Default)]
pub(crate) struct DeltaMembers {
    #[serde(default, deserialize_with = "lenient")]
    pub(crate) reasoning_content: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    pub(crate) reasoning: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    pub(crate) refusal: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    pub(crate) tool_calls: Option<Vec<CallPiece>>,
}

#[derive(Deserialize)]
pub(crate) struct CallPiece {
    pub(crate) index: Option<usize>,
    #[serde(default, deserialize_with = "lenient")]
    pub(crate) id: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    pub(crate) function: Option<FunctionPiece>,
    #[serde(default, deserialize_with = "lenient")]
    pub(crate) custom: Option<CustomPiece>,
}

#[derive(Deserialize)]
pub(crate) struct FunctionPiece {
    #[serde(default, deserialize_with = "lenient")]
    pub(crate) name: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    pub(crate) arguments: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct CustomPiece {
    #[serde(default, deserialize_with = "lenient")]
    pub(crate) name: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    pub(crate) input: Option<String>,
}

fn lenient<'de, D: Deserializer<'de>, T: DeserializeOwned>(json: D) -> Result<Option<T>, D::Error> {
    let raw = <&RawValue>::deserialize(json)?;
    Ok(serde_json::from_str(raw.get()).unwrap_or_default())
}

pub(crate) fn read(members: &RawJson) -> DeltaMembers {
    serde_json::from_str(members.get()).unwrap_or_default()
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
