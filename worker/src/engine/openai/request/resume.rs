//! Going on from what the client has: the body of a request that continues a partial answer.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use tokenbus_protocol::{EngineError, RawJsonError, RawObject, RequestKind, Resume, ResumeChoice, is_repeatable};

use super::count::Counting;
use super::engine_request::{Asked, Call, Plan};
use super::members::{demands_a_tool, encode, number, parsed, unwritable};
use super::seam::Seam;
use crate::engine::openai::error::not_continuable;
use crate::engine::openai::limits::MAX_RESUMED_CHOICES;
use crate::engine::openai::target::{Continuation, Target};

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
        let (object, repeatable) = alone(object, target, n, index).map_err(unwritable)?;
        let begun = resume.choices.iter().find(|choice| choice.index == index);
        let one = One {
            kind,
            object,
            target,
            counting,
            repeatable,
        };
        let call = |way: Way| {
            let joint = way.joint;
            Call {
                body: way.body,
                choice: (n > 1).then_some(index),
                choices: 1,
                each: 1,
                echoes: Vec::new(),
                delivered: joint.delivered,
                again: joint.again,
                continues: joint.continues,
                seam: joint.seam,
                counting,
                asked,
                otherwise: None,
            }
        };
        let ways = match begun {
            Some(choice) if choice.finish_reason.is_some() => continue,
            Some(choice) if has_output(choice) => one.ways(choice)?,
            // Nothing of it has reached the client: it begins afresh.
            _ => Some((way(&one.object, Joint::default())?, None)),
        };
        let Some((first, second)) = ways else {
            plan.exhausted.push(index);
            continue;
        };
        plan.calls.push(Call {
            otherwise: second.map(|second| Box::new(call(second))),
            ..call(first)
        });
    }
    Ok(plan)
}

/// The request for choice `index` of `n` alone, and whether its answer is the same each time.
fn alone(object: &RawObject, target: &Target, n: u32, index: u32) -> Result<(RawObject, bool), RawJsonError> {
    // Of the client's own request: its number of choices counts.
    let mut repeatable = is_repeatable(object);
    let mut object = object.clone();
    if n > 1 {
        object.set("n", &1)?;
        let seed = number(&object, "seed").and_then(|seed| target.kind.seed_of_choice(seed, index));
        if let Some(seed) = seed {
            object.set("seed", &seed)?;
            repeatable = is_repeatable(&object);
        }
    }
    Ok((object, repeatable))
}

/// How a call joins what the client has: see [`Call`].
#[derive(Default)]
struct Joint {
    delivered: u64,
    again: u64,
    continues: bool,
    seam: Seam,
}

/// A body, and how its answer joins what the client has.
struct Way {
    body: Bytes,
    joint: Joint,
}

fn way(object: &RawObject, joint: Joint) -> Result<Way, EngineError> {
    Ok(Way {
        body: encode(object).map_err(unwritable)?,
        joint,
    })
}

/// One choice of the client's request.
struct One<'o> {
    kind: RequestKind,
    object: RawObject,
    target: &'o Target,
    counting: Counting,
    /// Whether the client's request gives the same answer each time.
    repeatable: bool,
}

impl One<'_> {
    /// How the answer can go on behind `choice`, the better way first. The second is for an engine
    /// that refuses the first, or whose answer comes out otherwise. `None` when the token limit
    /// leaves nothing to generate.
    fn ways(&self, choice: &ResumeChoice) -> Result<Option<(Way, Option<Way>)>, EngineError> {
        let continued = self.continued(choice);
        let comparable = !choice.text.is_empty() || !choice.reasoning.is_empty();
        if !(self.repeatable && comparable) {
            return continued.map(|continued| continued.map(|way| (way, None)));
        }
        let again = |retryable| {
            let joint = Joint {
                again: choice.tokens,
                seam: Seam::skip(choice, retryable),
                ..Joint::default()
            };
            way(&self.object, joint)
        };
        match continued {
            Err(refused) => Ok(Some((again(refused.retryable)?, None))),
            Ok(None) if self.is_exact(choice) => Ok(None),
            Ok(None) => Ok(Some((again(true)?, None))),
            Ok(Some(way)) if self.is_exact(choice) => Ok(Some((way, Some(again(true)?)))),
            Ok(Some(way)) => Ok(Some((again(true)?, Some(way)))),
        }
    }

    /// Whether a continued answer is the one that nothing happened to, to the token.
    fn is_exact(&self, choice: &ResumeChoice) -> bool {
        // A sampled answer goes on with other random draws.
        let greedy = parsed::<f64>(&self.object, "temperature").is_some_and(|temperature| temperature <= 0.0);
        // The engine holds back what may begin a stop string: the client's text ends inside a token.
        let held_back = stop_strings(&self.object).iter().any(|stop| !stop.is_empty());
        // Templates trim it, and then it is generated twice.
        let blank = self.kind == RequestKind::Chat && choice.text.ends_with(char::is_whitespace);
        // What the limit leaves is not known.
        let estimated = self.counting == Counting::Chunks
            && choice.token_ids.is_empty()
            && TOKEN_LIMITS.iter().any(|name| number(&self.object, name).is_some());
        greedy && !held_back && !blank && !estimated
    }

    /// A request that goes on from `choice`. `None` when its token limit leaves nothing to generate.
    fn continued(&self, choice: &ResumeChoice) -> Result<Option<Way>, EngineError> {
        check(self.kind, &self.object, self.target, choice)?;
        let (text, blank) = match self.kind {
            // Many templates trim a message. What is taken off comes again, and is compared.
            RequestKind::Chat => choice.text.split_at(choice.text.trim_end().len()),
            _ => (choice.text.as_str(), ""),
        };
        let included = ["include_stop_str_in_output", "no_stop_trim"]
            .iter()
            .any(|name| parsed::<bool>(&self.object, name) == Some(true));
        if text.is_empty() {
            // An empty message is no beginning.
            let joint = Joint {
                again: choice.tokens,
                seam: Seam::Open.behind_blank(blank),
                ..Joint::default()
            };
            return way(&self.object, joint).map(Some);
        }
        let mut object = self.object.clone();
        if !lower_limits(&mut object, choice.tokens).map_err(unwritable)? {
            return Ok(None);
        }
        append(self.kind, &mut object, self.target, text)?;
        let joint = Joint {
            delivered: choice.tokens,
            again: 0,
            continues: true,
            seam: Seam::stops(text, stop_strings(&object), included).behind_blank(blank),
        };
        way(&object, joint).map(Some)
    }
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
    if may_call(object) {
        return Err(not_continuable(
            "an answer that may be a tool call cannot be continued",
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

/// Whether tools or functions are offered. Half a call cannot be handed over as text.
fn may_call(object: &RawObject) -> bool {
    [("tools", "tool_choice"), ("functions", "function_call")]
        .iter()
        .any(|(offered, choice)| {
            let offered = object
                .get(offered)
                .is_some_and(|raw| !matches!(raw.get(), "null" | "[]"));
            offered && object.get(choice).is_none_or(|raw| raw.get() != "\"none\"")
        })
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
