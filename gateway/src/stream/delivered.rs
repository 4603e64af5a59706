//! Books what a client has received, so that another engine can continue from it.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use tokenbus_protocol::{Delta, Finish, RawJson, RawObject, Resume, ResumeChoice};

/// The delivered output of each choice, over all attempts.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct Delivered {
    /// The first choice. Nearly every stream has only this one, and needs no map.
    first: Option<ResumeChoice>,
    /// The choices from 1 on.
    others: BTreeMap<u32, ResumeChoice>,
    keep_text: bool,
    /// Something was delivered that a `resume` cannot express.
    opaque: bool,
    any: bool,
    /// Tokens of the attempts before the current one.
    earlier: u64,
}

impl Delivered {
    /// Nothing delivered yet. Without `keep_text` only counts are kept, and the stream is never resumed.
    pub(crate) fn new(keep_text: bool) -> Self {
        Self {
            keep_text,
            ..Self::default()
        }
    }

    /// Books a delta that goes to the client.
    pub(crate) fn add(&mut self, delta: &Delta<'_>) {
        // An engine that does not count its tokens sends about one per delta with output. Members of the choice or the
        // chunk (progress, a stop reason, a fingerprint) are no output.
        let tokens = match u64::from(delta.tokens) {
            0 => u64::from(!delta.text.is_empty() || has_output(delta)),
            counted => counted,
        };
        if tokens == 0 && delta.finish_reason.is_none() {
            // Nothing of the answer: the next attempt may begin at the start.
            return;
        }
        self.any = true;
        let choice = choice(&mut self.first, &mut self.others, delta.choice);
        choice.tokens += tokens;
        if delta.finish_reason.is_some() {
            choice.finish_reason.clone_from(&delta.finish_reason);
        }
        if self.keep_text {
            choice.text.push_str(&delta.text);
            choice.token_ids.extend_from_slice(&delta.token_ids);
            if let Some(members) = delta.extra.as_ref().and_then(|extra| extra.delta.as_ref()) {
                self.opaque |= !keep_reasoning(members, &mut choice.reasoning);
            }
        }
    }

    /// Books plain text of the first choice.
    pub(crate) fn add_text(&mut self, text: &str, tokens: u64) {
        self.any = true;
        let choice = self.first.get_or_insert_default();
        choice.tokens += tokens;
        if self.keep_text {
            choice.text.push_str(text);
        }
    }

    /// Whether the client has received any output.
    pub(crate) fn any(&self) -> bool {
        self.any
    }

    /// Completion tokens delivered, all choices.
    pub(crate) fn tokens(&self) -> u64 {
        self.choices().map(|choice| choice.tokens).sum()
    }

    /// All choices, in order.
    fn choices(&self) -> impl Iterator<Item = &ResumeChoice> {
        self.first.iter().chain(self.others.values())
    }

    /// The current attempt has ended; what follows belongs to the next.
    pub(crate) fn seam(&mut self) {
        self.earlier = self.tokens();
    }

    /// Whether the current attempt resumes earlier output.
    pub(crate) fn is_resumed(&self) -> bool {
        self.earlier > 0
    }

    /// The point to continue from; `None` if nothing was delivered.
    ///
    /// # Errors
    /// Why the stream cannot be continued.
    pub(crate) fn resume(&self) -> Result<Option<Resume>, &'static str> {
        if !self.any {
            return Ok(None);
        }
        if !self.keep_text || self.opaque {
            return Err("a part of the answer was delivered that an engine cannot continue");
        }
        let mut choices: Vec<ResumeChoice> = self.choices().cloned().collect();
        for choice in &mut choices {
            // Ids help only if they cover all tokens.
            if choice.token_ids.len() as u64 != choice.tokens {
                choice.token_ids.clear();
            }
        }
        Ok(Some(Resume { choices }))
    }

    /// The call's `Finish`: the last attempt's counts plus the completion tokens of the attempts before it.
    pub(crate) fn complete(&self, finish: Finish) -> Finish {
        if self.earlier == 0 {
            return finish;
        }
        let completion_tokens = finish.completion_tokens.map(|tokens| tokens + self.earlier);
        let usage = finish
            .usage
            .as_ref()
            .and_then(|usage| add_usage(usage, finish.prompt_tokens, completion_tokens));
        Finish {
            completion_tokens,
            usage,
            ..finish
        }
    }
}

fn choice<'d>(
    first: &'d mut Option<ResumeChoice>,
    others: &'d mut BTreeMap<u32, ResumeChoice>,
    index: u32,
) -> &'d mut ResumeChoice {
    if index == 0 {
        return first.get_or_insert_default();
    }
    others.entry(index).or_insert_with(|| ResumeChoice {
        index,
        ..ResumeChoice::default()
    })
}

/// Whether the members of a delta say anything.
fn has_output(delta: &Delta<'_>) -> bool {
    let members = delta.extra.as_ref().and_then(|extra| extra.delta.as_ref());
    let says = |object: RawObject| !object.iter().all(|(_, value)| is_empty(value));
    members.is_some_and(|members| members.parse::<RawObject>().map_or(true, says))
}

fn is_empty(value: &RawValue) -> bool {
    matches!(value.get(), "null" | "\"\"" | "[]" | "{}")
}

/// Keeps reasoning text; false if `members` holds anything else.
fn keep_reasoning(members: &RawJson, reasoning: &mut String) -> bool {
    let Ok(object) = members.parse::<RawObject>() else {
        return false;
    };
    for (name, value) in object.iter() {
        match (
            name,
            serde_json::from_str::<Option<std::borrow::Cow<'_, str>>>(value.get()),
        ) {
            ("reasoning_content" | "reasoning", Ok(text)) => reasoning.push_str(&text.unwrap_or_default()),
            _ if is_empty(value) => {}
            _ => return false,
        }
    }
    true
}

fn add_usage(usage: &RawJson, prompt: Option<u64>, completion: Option<u64>) -> Option<RawJson> {
    let mut object = usage.parse::<RawObject>().ok()?;
    let (prompt, completion) = (prompt?, completion?);
    object.set("prompt_tokens", &prompt).ok()?;
    object.set("completion_tokens", &completion).ok()?;
    object.set("total_tokens", &(prompt + completion)).ok()?;
    object.to_json().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use tokenbus_protocol::DeltaExtra;

    use super::*;

    fn text(choice: u32, text: &'static str, tokens: u32) -> Delta<'static> {
        Delta {
            choice,
            text: text.into(),
            tokens,
            ..Delta::default()
        }
    }

    fn members(json: &str) -> Delta<'static> {
        let delta = Some(RawJson::new(json).unwrap());
        Delta {
            extra: Some(Box::new(DeltaExtra {
                delta,
                ..DeltaExtra::default()
            })),
            ..Delta::default()
        }
    }

    #[test]
    fn each_choice_has_its_own_seam() {
        let mut delivered = Delivered::new(true);
        delivered.add(&text(0, "a ", 1));
        delivered.add(&text(1, "x y ", 2));
        delivered.add(&Delta {
            finish_reason: Some("stop".into()),
            ..text(0, "b", 1)
        });
        let resume = delivered.resume().unwrap().unwrap();
        assert_eq!(resume.choices[0].text, "a b");
        assert_eq!(resume.choices[0].finish_reason.as_deref(), Some("stop"));
        assert_eq!((resume.choices[1].text.as_str(), resume.choices[1].tokens), ("x y ", 2));
        assert_eq!(delivered.tokens(), 4);
    }

    #[test]
    fn reasoning_is_kept_and_other_members_make_it_opaque() {
        let mut delivered = Delivered::new(true);
        delivered.add(&members(r#"{"reasoning_content":"hm","refusal":null}"#));
        assert_eq!(delivered.resume().unwrap().unwrap().choices[0].reasoning, "hm");
        delivered.add(&members(r#"{"tool_calls":[{"index":0}]}"#));
        assert!(delivered.resume().is_err());
    }

    #[test]
    fn nothing_delivered_is_nothing_to_resume() {
        assert_eq!(Delivered::new(false).resume(), Ok(None));
        let mut counted = Delivered::new(false);
        counted.add(&text(0, "a", 0));
        assert!(counted.resume().is_err());
        assert_eq!(counted.tokens(), 1, "an uncounted delta is one token");
    }

    #[test]
    fn what_says_nothing_of_the_answer_is_no_token() {
        let mut delivered = Delivered::new(true);
        for extra in [
            DeltaExtra {
                chunk: Some(RawJson::new(r#"{"prompt_progress":{"processed":9}}"#).unwrap()),
                ..DeltaExtra::default()
            },
            DeltaExtra {
                choice: Some(RawJson::new(r#"{"matched_stop":7}"#).unwrap()),
                fingerprint: Some("f".into()),
                ..DeltaExtra::default()
            },
        ] {
            delivered.add(&Delta {
                extra: Some(Box::new(extra)),
                ..Delta::default()
            });
        }
        delivered.add(&members(r#"{"reasoning":"","tool_calls":[],"x":null}"#));
        assert_eq!((delivered.tokens(), delivered.any()), (0, false));
        delivered.add(&members(r#"{"tool_calls":[{"index":0}]}"#));
        assert_eq!(delivered.tokens(), 1);
    }

    #[test]
    fn ids_are_dropped_unless_complete() {
        let mut delivered = Delivered::new(true);
        delivered.add(&Delta {
            token_ids: vec![7],
            ..text(0, "a", 1)
        });
        assert_eq!(delivered.resume().unwrap().unwrap().choices[0].token_ids, [7]);
        delivered.add(&text(0, "b", 1));
        assert!(delivered.resume().unwrap().unwrap().choices[0].token_ids.is_empty());
    }

    #[test]
    fn usage_counts_once() {
        let usage = RawJson::new(r#"{"prompt_tokens":9,"completion_tokens":5,"total_tokens":14,"x":1}"#).unwrap();
        let finish = Finish {
            prompt_tokens: Some(9),
            completion_tokens: Some(5),
            usage: Some(usage),
            chunk: None,
        };
        let mut delivered = Delivered::new(true);
        delivered.add(&text(0, "a", 7));
        assert_eq!(delivered.complete(finish.clone()), finish, "one attempt");
        delivered.seam();
        let whole = delivered.complete(finish);
        assert_eq!(whole.completion_tokens, Some(12));
        let usage = whole.usage.unwrap();
        assert_eq!(
            usage.get(),
            r#"{"prompt_tokens":9,"completion_tokens":12,"total_tokens":21,"x":1}"#
        );
    }
}
