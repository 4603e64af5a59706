//! Whether the model is to think, and whether its client is to see it.

use serde_json::value::RawValue;
use tokenbus_protocol::RawObject;

use super::message::Thoughts;
use crate::request::fields::Whole;
use crate::request::member_reader::{Taken, read};
use crate::request::{RequestError, field, missing};
use crate::translation::chat_body::{ChatBody, unwritable};

/// The switch that most chat templates share, and where engines take it.
const SWITCH: &str = "enable_thinking";
const TEMPLATE: &str = "chat_template_kwargs";

/// Under what name llama.cpp takes a budget; the others pass it over. (vLLM has a name of its own
/// for it, and refuses it where its server was not set up for that.)
const BUDGET: &str = "thinking_budget_tokens";

/// Passes on what is said of thinking. A client that says nothing gets what the model does by
/// itself.
pub(super) fn thinking(members: &mut Taken, chat: &mut ChatBody) -> Result<Thoughts, RequestError> {
    let Some(asked) = template(members, chat)? else {
        return Ok(Thoughts::Shown);
    };
    if let Some(budget) = &asked.budget {
        chat.set(BUDGET, budget)?;
    }
    Ok(asked.thoughts)
}

/// What a client says of thinking, beyond what the chat template is told of it.
pub(super) struct Asked {
    budget: Option<Box<RawValue>>,
    thoughts: Thoughts,
}

/// Tells the chat template whether to let the model think.
pub(super) fn template(members: &mut Taken, chat: &mut ChatBody) -> Result<Option<Asked>, RequestError> {
    let Some(mut thinking) = members.object("thinking")? else {
        // What the client itself tells the template stays among the members that are passed on.
        return Ok(None);
    };
    let kind: String = thinking.need("type")?;
    let think = match kind.as_str() {
        "enabled" | "adaptive" | "between_tools" => true,
        "disabled" => false,
        _ => {
            let what = "'enabled', 'adaptive' or 'disabled' is expected";
            return Err(field(thinking.at("type"), "invalid_value", what));
        }
    };
    let budget = match kind.as_str() {
        "enabled" => {
            let at = thinking.at("budget_tokens");
            let budget = thinking.checked::<Whole>("budget_tokens")?;
            Some(budget.ok_or_else(|| missing(at))?)
        }
        _ => None,
    };
    let mut template = match members.raw(TEMPLATE) {
        Some(raw) => read::<RawObject>(TEMPLATE, &raw)?,
        None => RawObject::default(),
    };
    // What the client itself tells the template is meant.
    if template.get(SWITCH).is_none() {
        template.set(SWITCH, &think).map_err(|error| unwritable(&error))?;
    }
    chat.set(TEMPLATE, &template)?;
    let display: Option<String> = thinking.take("display")?;
    let thoughts = match display.as_deref() {
        Some("omitted") => Thoughts::Omitted,
        _ => Thoughts::Shown,
    };
    Ok(Some(Asked { budget, thoughts }))
}
