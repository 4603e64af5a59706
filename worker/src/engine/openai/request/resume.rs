//! Going on from what the client has: the body of a request that continues a partial answer.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use tokenbus_protocol::{EngineError, RawJsonError, RawObject, RequestKind, Resume, ResumeChoice};

use super::count::Counting;
use super::engine_request::{Asked, Call, Plan};
use super::members::{demands_a_tool, encode, number, parsed, unwritable};
use super::seam::Seam;
use crate::engine::openai::error::not_continuable;
use crate::engine::openai::limits::MAX_RESUMED_CHOICES;
use crate::engine::openai::target::{Continuation, Target};
use crate::engine::repeat::is_repeatable;

/// Members that bind the output to a grammar. A continued answer would be held to that grammar
/// from its beginning again, and `{"a":` would be followed by `{`.
const CONSTRAINTS: [&str; 12] = [
    "ebnf",
    "format",
    "grammar",
    "guided_choice",
    "guided_decoding",
    "guided_grammar",
    "guided_json",
    "guided_regex",
    "json_schema",
    "regex",
    "structural_tag",
    "structured_outputs",
];

/// Token limits; each is lowered by what was delivered.
const TOKEN_LIMITS: [&str; 3] = ["max_completion_tokens", "max_tokens", "n_predict"];

#[derive(Serialize)]
struct Message<'a> {
    role: &'a str,
    content: &'a str,
}

/// One request per choice that is not complete; `object` is prepared for the server already.
pub(crate) fn plan(
    kind: RequestKind,
    object: &RawObject,
    target: &Target,
    resume: &Resume,
    (counting, asked): (Counting, Asked),
) -> Result<Plan, EngineError> {
    let n = number(object, "n").unwrap_or(1).max(1);
    if n > u64::from(MAX_RESUMED_CHOICES) {
        return Err(not_continuable(
            "an answer with so many choices cannot be continued",
            false,
        ));
    }
    let n = u32::try_from(n).unwrap_or(MAX_RESUMED_CHOICES);
    let mut plan = Plan::default();
    for index in 0..n {
        let mut object = object.clone();
        if n > 1 {
            object.set("n", &1).map_err(unwritable)?;
        }
        let begun = resume.choices.iter().find(|choice| choice.index == index);
        let joint = match begun {
            Some(choice) if choice.finish_reason.is_some() => continue,
            Some(choice) if has_output(choice) => join(kind, &mut object, target, choice, n)?,
            // Nothing of it has reached the client: it begins afresh.
            _ => Some(Joint::default()),
        };
        let Some(joint) = joint else {
            plan.exhausted.push(index);
            continue;
        };
        plan.calls.push(Call {
            body: encode(&object).map_err(unwritable)?,
            choice: (n > 1).then_some(index),
            choices: 1,
            each: 1,
            echoes: Vec::new(),
            delivered: joint.delivered,
            again: joint.again,
            seam: joint.seam,
            counting,
            asked,
        });
    }
    Ok(plan)
}

/// How a call joins what the client has: see [`Call`].
#[derive(Default)]
struct Joint {
    delivered: u64,
    again: u64,
    seam: Seam,
}

/// Writes `object` so that it goes on from `choice`, or leaves it as it is where it is to be
/// generated again. `None` when its token limit leaves nothing to generate.
fn join(
    kind: RequestKind,
    object: &mut RawObject,
    target: &Target,
    choice: &ResumeChoice,
    n: u32,
) -> Result<Option<Joint>, EngineError> {
    if let Err(refused) = check(kind, object, target, choice) {
        if !can_be_repeated(object, choice, n) {
            return Err(refused);
        }
        return Ok(Some(Joint {
            delivered: 0,
            again: choice.tokens,
            seam: Seam::skip(choice, refused.retryable),
        }));
    }
    if !lower_limits(object, choice.tokens).map_err(unwritable)? {
        return Ok(None);
    }
    append(kind, object, target, &choice.text)?;
    let included = ["include_stop_str_in_output", "no_stop_trim"]
        .iter()
        .any(|name| parsed::<bool>(object, name) == Some(true));
    Ok(Some(Joint {
        delivered: choice.tokens,
        again: 0,
        seam: Seam::stops(&choice.text, stop_strings(object), included),
    }))
}

/// Whether the same request gives the same answer, and there is something to compare it with.
fn can_be_repeated(object: &RawObject, choice: &ResumeChoice, n: u32) -> bool {
    let known = !choice.text.is_empty() || !choice.reasoning.is_empty();
    known && is_repeatable(object, n.into())
}

fn stop_strings(object: &RawObject) -> Vec<String> {
    parsed::<String>(object, "stop").map_or_else(|| parsed(object, "stop").unwrap_or_default(), |stop| vec![stop])
}

fn has_output(choice: &ResumeChoice) -> bool {
    !choice.text.is_empty() || !choice.reasoning.is_empty() || choice.tokens > 0
}

/// Refuses what would come out wrong: a wrong continuation is worse than none.
fn check(kind: RequestKind, object: &RawObject, target: &Target, choice: &ResumeChoice) -> Result<(), EngineError> {
    if kind == RequestKind::Chat && target.continuation == Continuation::None {
        return Err(not_continuable("this engine cannot continue a partial answer", true));
    }
    if !choice.reasoning.is_empty() {
        return Err(not_continuable("an answer with reasoning cannot be continued", false));
    }
    if choice.text.is_empty() {
        // Tokens but no text: tool calls, of which `resume` does not tell.
        return Err(not_continuable("an answer that is no text cannot be continued", false));
    }
    if is_constrained(object) {
        return Err(not_continuable(
            "an answer that is bound to a grammar cannot be continued",
            false,
        ));
    }
    if parsed::<bool>(object, "echo") == Some(true) || number(object, "best_of").is_some_and(|best| best > 1) {
        return Err(not_continuable(
            "an answer with echo or best_of cannot be continued",
            false,
        ));
    }
    Ok(())
}

fn is_constrained(object: &RawObject) -> bool {
    #[derive(serde::Deserialize)]
    struct Format<'a> {
        #[serde(rename = "type", borrow)]
        kind: Cow<'a, str>,
    }
    let set = |name: &str| {
        object
            .get(name)
            .is_some_and(|raw| !matches!(raw.get(), "null" | "false" | "\"\"" | "[]"))
    };
    let format = set("response_format")
        && parsed::<Format<'_>>(object, "response_format").is_none_or(|format| format.kind != "text");
    format || CONSTRAINTS.iter().any(|name| set(name)) || demands_a_tool(object)
}

/// Lowers every token limit by `delivered`; false when one of them leaves nothing to generate.
fn lower_limits(object: &mut RawObject, delivered: u64) -> Result<bool, RawJsonError> {
    for name in TOKEN_LIMITS {
        if let Some(limit) = number(object, name) {
            if limit <= delivered {
                return Ok(false);
            }
            object.set(name, &(limit - delivered))?;
        }
    }
    if let Some(least) = number(object, "min_tokens") {
        object.set("min_tokens", &least.saturating_sub(delivered))?;
    }
    Ok(true)
}

fn append(kind: RequestKind, object: &mut RawObject, target: &Target, text: &str) -> Result<(), EngineError> {
    if kind == RequestKind::Completion {
        return append_to_prompt(object, text);
    }
    let mut messages: Vec<Box<RawValue>> = parsed(object, "messages")
        .ok_or_else(|| not_continuable("a request without messages cannot be continued", false))?;
    let by_flag = target.continuation == Continuation::ContinueFinalMessage;
    let continues = !by_flag || parsed::<bool>(object, "continue_final_message") == Some(true);
    let last_is_assistant = messages.last().is_some_and(|message| role(message) == "assistant");
    if continues && last_is_assistant {
        // The client itself began the answer: what was generated belongs to the same message.
        if let Some(last) = messages.last_mut() {
            *last = extended(last, text)?;
        }
    } else {
        let message = Message {
            role: "assistant",
            content: text,
        };
        messages.push(to_raw_value(&message).map_err(|reason| unwritable(reason.into()))?);
    }
    let mut write = || {
        object.set("messages", &messages)?;
        if by_flag {
            object.set("continue_final_message", &true)?;
            object.set("add_generation_prompt", &false)?;
        }
        Ok(())
    };
    write().map_err(unwritable)
}

fn role(message: &RawValue) -> String {
    RawObject::parse(message.get().as_bytes())
        .ok()
        .and_then(|message| parsed::<String>(&message, "role"))
        .unwrap_or_default()
}

/// An assistant message with `text` at the end of its content.
fn extended(message: &RawValue, text: &str) -> Result<Box<RawValue>, EngineError> {
    let mut message = RawObject::parse(message.get().as_bytes()).map_err(unwritable)?;
    let content = parsed::<String>(&message, "content").ok_or_else(|| {
        not_continuable(
            "an answer to a last message whose content is no text cannot be continued",
            false,
        )
    })?;
    message
        .set("content", &format!("{content}{text}"))
        .map_err(unwritable)?;
    to_raw_value(&message).map_err(|reason| unwritable(reason.into()))
}

fn append_to_prompt(object: &mut RawObject, text: &str) -> Result<(), EngineError> {
    let one = parsed::<String>(object, "prompt").or_else(|| {
        let list: Vec<String> = parsed(object, "prompt")?;
        <[String; 1]>::try_from(list).ok().map(|[prompt]| prompt)
    });
    let suffix = parsed::<String>(object, "suffix").is_some_and(|suffix| !suffix.is_empty());
    match one {
        Some(prompt) if !suffix => object.set("prompt", &format!("{prompt}{text}")).map_err(unwritable),
        _ => Err(not_continuable(
            "only a prompt of one text and no suffix can be continued",
            false,
        )),
    }
}

#[cfg(test)]
#[path = "resume_tests.rs"]
mod tests;
