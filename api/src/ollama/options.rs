//! The members that chats and generations share: the options, the format, whether to think.

use serde::Serialize;
use serde_json::value::RawValue;
use tokenbus_protocol::RawObject;

use crate::request::fields::Number;
use crate::request::member_reader::{MemberReader, read, wrong_type};
use crate::request::{RequestError, field};
use crate::translation::chat_body::{ChatBody, unwritable};

/// Options that engines know by the same name.
const SAME: [&str; 10] = [
    "temperature",
    "top_p",
    "min_p",
    "typical_p",
    "presence_penalty",
    "frequency_penalty",
    "mirostat",
    "mirostat_tau",
    "mirostat_eta",
    "repeat_last_n",
];

/// Reads `options`. Options that say how a model is loaded, and unknown ones, have no meaning here: the worker's engine
/// has loaded the model.
pub(super) fn options(members: &mut MemberReader, body: &mut ChatBody) -> Result<(), RequestError> {
    let Some(mut options) = members.object("options")? else {
        return Ok(());
    };
    for name in SAME {
        let number = options.checked::<Number>(name)?;
        body.give(name, number.as_deref())?;
    }
    // A number below 1 means no bound.
    if let Some(tokens) = whole(&mut options, "num_predict")?.filter(|tokens| *tokens >= 1) {
        body.set("max_tokens", &tokens)?;
    }
    for name in ["seed", "top_k"] {
        if let Some(number) = whole(&mut options, name)? {
            body.set(name, &number)?;
        }
    }
    if let Some(penalty) = options.checked::<Number>("repeat_penalty")? {
        // llama.cpp's name and vLLM's; each ignores the other's.
        body.set("repeat_penalty", &penalty)?;
        body.set("repetition_penalty", &penalty)?;
    }
    if let Some(raw) = options.raw("stop") {
        let stops = match serde_json::from_str::<String>(raw.get()) {
            Ok(one) => vec![one],
            Err(_) => read(&options.at("stop"), &raw)?,
        };
        if !stops.is_empty() {
            body.set("stop", &stops)?;
        }
    }
    Ok(())
}

/// Reads an integer. Ollama cuts fractions off.
#[allow(clippy::cast_possible_truncation)]
fn whole(options: &mut MemberReader, name: &str) -> Result<Option<i64>, RequestError> {
    let number: Option<f64> = options.take(name)?;
    Ok(number.map(|number| number as i64))
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ResponseFormat<'a> {
    JsonObject,
    JsonSchema { json_schema: JsonSchema<'a> },
}

#[derive(Serialize)]
struct JsonSchema<'a> {
    name: &'static str,
    schema: &'a RawValue,
    strict: bool,
}

/// Reads `format`: `json`, or a schema.
pub(super) fn format(members: &mut MemberReader, body: &mut ChatBody) -> Result<(), RequestError> {
    let Some(raw) = members.raw("format") else {
        return Ok(());
    };
    let format = match serde_json::from_str::<String>(raw.get()).as_deref() {
        Ok("") => return Ok(()),
        Ok("json") => ResponseFormat::JsonObject,
        Ok(_) => return Err(field("format", "invalid_value", "'json' or a JSON schema is expected")),
        Err(_) if raw.get().starts_with('{') => ResponseFormat::JsonSchema {
            json_schema: JsonSchema {
                name: "output",
                schema: &raw,
                strict: true,
            },
        },
        Err(_) => return Err(wrong_type("format", "'json' or a JSON schema is expected")),
    };
    body.set("response_format", &format)
}

/// Reads `think`: whether to think, or how much.
pub(super) fn think(members: &mut MemberReader, body: &mut ChatBody) -> Result<(), RequestError> {
    let Some(raw) = members.raw("think") else {
        return Ok(());
    };
    let effort = |effort: &str| match effort {
        "low" => Some("low"),
        "medium" => Some("medium"),
        // Engines agree on the efforts only up to "high".
        "high" | "max" => Some("high"),
        _ => None,
    };
    let think = if let Ok(think) = serde_json::from_str::<bool>(raw.get()) {
        think
    } else {
        let told = serde_json::from_str::<String>(raw.get()).ok();
        let Some(effort) = told.as_deref().and_then(effort) else {
            let what = "true, false, 'low', 'medium', 'high' or 'max' is expected";
            return Err(field("think", "invalid_value", what));
        };
        body.set("reasoning_effort", effort)?;
        true
    };
    // The switch that most chat templates share.
    let mut template = RawObject::default();
    let set = template.set("enable_thinking", &think);
    set.map_err(|error| unwritable(&error))?;
    body.set("chat_template_kwargs", &template)
}

/// Reads `logprobs` and `top_logprobs`. Returns whether they are asked for.
pub(super) fn logprobs(members: &mut MemberReader, body: &mut ChatBody) -> Result<bool, RequestError> {
    let top = whole(members, "top_logprobs")?;
    if top.is_some_and(|top| !(0..=20).contains(&top)) {
        return Err(field(
            "top_logprobs",
            "invalid_value",
            "a number from 0 to 20 is expected",
        ));
    }
    let asked = members.take("logprobs")?.unwrap_or(false);
    if asked {
        body.set("logprobs", &true)?;
        if let Some(top) = top {
            body.set("top_logprobs", &top)?;
        }
    }
    Ok(asked)
}
