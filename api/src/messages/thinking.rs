//! Whether the model is to think, and whether the client sees its thoughts.

use serde_json::value::RawValue;
use tokenbus_protocol::RawObject;

use crate::request::fields::Integer;
use crate::request::member_reader::{MemberReader, read};
use crate::request::{RequestError, field, missing};
use crate::translation::chat_body::{ChatBody, unwritable};

/// The switch that most chat templates share, and the member in which engines take it.
const SWITCH: &str = "enable_thinking";
const TEMPLATE: &str = "chat_template_kwargs";

/// The path of the switch.
const ADDED_SWITCH: &str = "chat_template_kwargs.enable_thinking";

/// llama.cpp's name for a budget; other engines ignore it. (vLLM has a name of its own, and refuses it unless its
/// server is set up for budgets.)
const BUDGET: &str = "thinking_budget_tokens";

/// What a client sees of the model's thoughts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Thoughts {
    /// The thoughts themselves.
    Shown,
    /// Only that there are some.
    Omitted,
}

/// Translates `thinking`. Without it, the model does what it does by default, unless the client began
/// the answer: see [`off`].
pub(super) fn thinking(members: &mut MemberReader, chat: &mut ChatBody) -> Result<Thoughts, RequestError> {
    let Some(thinking) = template(members, chat)? else {
        return Ok(Thoughts::Shown);
    };
    if let Some(budget) = &thinking.budget {
        chat.set(BUDGET, budget)?;
        chat.note_added(BUDGET);
    }
    Ok(thinking.thoughts)
}

/// Tells the chat template not to let the model think.
pub(super) fn off(chat: &mut ChatBody) -> Result<(), RequestError> {
    let mut template = RawObject::default();
    template.set(SWITCH, &false).map_err(|error| unwritable(&error))?;
    chat.set(TEMPLATE, &template)
}

/// The part of `thinking` that the chat template does not get.
pub(super) struct Thinking {
    budget: Option<Box<RawValue>>,
    thoughts: Thoughts,
}

/// Tells the chat template whether to let the model think.
pub(super) fn template(members: &mut MemberReader, chat: &mut ChatBody) -> Result<Option<Thinking>, RequestError> {
    let Some(mut thinking) = members.object("thinking")? else {
        // The client's own members for the template are passed on with the others.
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
            let budget = thinking.checked::<Integer>("budget_tokens")?;
            Some(budget.ok_or_else(|| missing(at))?)
        }
        _ => None,
    };
    let mut template = match members.raw(TEMPLATE) {
        Some(raw) => read::<RawObject>(TEMPLATE, &raw)?,
        None => RawObject::default(),
    };
    // The client's own switch takes precedence.
    if template.get(SWITCH).is_none() {
        template.set(SWITCH, &think).map_err(|error| unwritable(&error))?;
        chat.note_added(ADDED_SWITCH);
    }
    chat.set(TEMPLATE, &template)?;
    let display: Option<String> = thinking.take("display")?;
    let thoughts = match display.as_deref() {
        Some("omitted") => Thoughts::Omitted,
        _ => Thoughts::Shown,
    };
    Ok(Some(Thinking { budget, thoughts }))
}
