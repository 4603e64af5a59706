//! The usage of one answer, from the `usage` objects of its chunks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokenbus_protocol::{Finish, RawJson, RawJsonError, RawObject};

use crate::engine::openai::request::engine_request::Call;
use crate::engine::openai::target::UsageRule;

/// Numbers of a `usage` object.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Counts {
    pub(crate) prompt_tokens: Option<u64>,
    pub(crate) completion_tokens: Option<u64>,
}

/// What the usages of one answer add up to.
#[derive(Debug)]
pub(crate) struct Usages {
    rule: UsageRule,
    /// Tokens that the engine counts as prompt but that were answer.
    delivered: u64,
    /// Choices of each prompt.
    each: u32,
    /// Prompt tokens by prompt, where each choice has a usage of its own.
    prompts: BTreeMap<u32, u64>,
    counts: Counts,
    seen: u32,
    /// The engine's object: the last one, or the first where each choice has its own.
    object: Option<RawJson>,
}

impl Usages {
    pub(crate) fn new(call: &Call, rule: UsageRule) -> Self {
        Self {
            rule,
            delivered: call.delivered,
            each: call.each.max(1),
            prompts: BTreeMap::new(),
            counts: Counts::default(),
            seen: 0,
            object: None,
        }
    }

    /// Takes one object, which came in a chunk of `choice`.
    pub(crate) fn add(&mut self, usage: &RawValue, choice: u32) {
        let Ok(counts) = serde_json::from_str::<Counts>(usage.get()) else {
            return;
        };
        self.seen += 1;
        if let Some(prompt) = counts.prompt_tokens {
            let known = self.prompts.entry(choice / self.each).or_default();
            *known = prompt.max(*known);
        }
        if self.rule == UsageRule::Last || self.seen == 1 {
            self.counts = counts;
            self.object = Some(RawJson::from(usage));
            return;
        }
        let completion = &mut self.counts.completion_tokens;
        *completion = match (*completion, counts.completion_tokens) {
            (Some(before), Some(more)) => Some(before.saturating_add(more)),
            (before, more) => before.or(more),
        };
        self.counts.prompt_tokens = (!self.prompts.is_empty()).then(|| self.prompts.values().sum());
    }

    /// `rest` with the usage so far, as an answer that was never handed over would tell it.
    pub(crate) fn beside(&self, rest: Option<RawJson>, usage: &RawValue) -> Option<RawJson> {
        let Ok(mut object) = RawObject::parse(usage.get().as_bytes()) else {
            return rest;
        };
        let counts: Counts = serde_json::from_str(usage.get()).unwrap_or_default();
        if self.delivered > 0
            && let (Some(prompt), Some(completion)) = (counts.prompt_tokens, counts.completion_tokens)
        {
            let (prompt, completion) = (prompt.saturating_sub(self.delivered), completion + self.delivered);
            if set_counts(&mut object, prompt, completion).is_err() {
                return rest;
            }
        }
        with_member(rest, "usage", &object)
    }

    /// The sums, and the engine's own object where it says them.
    pub(crate) fn finish(self) -> Finish {
        Finish {
            prompt_tokens: self
                .counts
                .prompt_tokens
                .map(|prompt| prompt.saturating_sub(self.delivered)),
            completion_tokens: self.counts.completion_tokens,
            usage: self.whole(),
            chunk: None,
        }
    }

    /// The engine's object. Where each choice had its own, one of them with the sums: its details of the prompt are
    /// those of all choices, so long as there is one prompt.
    fn whole(&self) -> Option<RawJson> {
        let object = self.object.as_ref()?;
        if self.rule == UsageRule::Last || self.seen == 1 {
            return Some(object.clone());
        }
        let (prompt, completion) = self.counts.prompt_tokens.zip(self.counts.completion_tokens)?;
        let mut object = RawObject::parse(object.get().as_bytes()).ok()?;
        if self.prompts.len() > 1 {
            object.remove("prompt_tokens_details");
        }
        object.remove("completion_tokens_details");
        set_counts(&mut object, prompt, completion).ok()?;
        object.to_json().ok()
    }
}

fn set_counts(object: &mut RawObject, prompt: u64, completion: u64) -> Result<(), RawJsonError> {
    object.set("prompt_tokens", &prompt)?;
    object.set("completion_tokens", &completion)?;
    object.set("total_tokens", &prompt.saturating_add(completion))
}

/// `object` with one more member; unchanged where that cannot be written.
pub(crate) fn with_member<T: Serialize + ?Sized>(object: Option<RawJson>, name: &str, value: &T) -> Option<RawJson> {
    let parsed = object.as_ref().map(|json| RawObject::parse(json.get().as_bytes()));
    let mut members = parsed.and_then(Result::ok).unwrap_or_default();
    if members.set(name, value).is_err() {
        return object;
    }
    members.to_json().ok().or(object)
}
