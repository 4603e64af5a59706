//! Checks a text completion request, as `chat/check.rs` checks a chat.

use serde::de::IgnoredAny;
use tokenbus_protocol::{Feature, Features};

use super::style::TextStyle;
use crate::generation::members::generation_request;
use crate::generation::view::GenerationView;
use crate::limits::MAX_TEXT_CHOICES;
use crate::request::fields::{Integer, NumberOrBool, Text};
use crate::request::prompt::Prompt;
use crate::request::{self, Checked, RequestError, field, missing};

generation_request! {
    struct CompletionRequest {
        prompt: Option<Prompt>,
        // vLLM takes them in place of a prompt.
        prompt_embeds: Option<IgnoredAny>,
        best_of: Option<Integer>,
        echo: Option<bool>,
        suffix: Option<String>,
        logprobs: Option<NumberOrBool>,
        #[serde(rename = "user")]
        _user: Option<Text>,
    }
}

/// Checks a text completion request.
///
/// # Errors
/// [`RequestError`] says what is wrong and where.
pub fn check_completion(body: &[u8]) -> Result<Checked, RequestError> {
    Ok(completion_view(body)?.into_checked::<TextStyle>())
}

pub(crate) fn completion_view(body: &[u8]) -> Result<GenerationView, RequestError> {
    request::parse::<CompletionRequest>(body)?.check()
}

impl CompletionRequest {
    fn check(self) -> Result<GenerationView, RequestError> {
        let (needs, not_resumable) = (self.needs(), self.not_resumable());
        let include_usage = self.include_usage();
        let model = request::model(self.model)?;
        let prompts = match self.prompt {
            None if self.prompt_embeds.is_some() => 1,
            None => return Err(missing("prompt")),
            Some(Prompt { count: 0, .. }) => {
                return Err(field("prompt", "empty_array", "at least one prompt is expected"));
            }
            Some(prompt) => prompt.count,
        };
        let n = request::choices(self.n)?;
        let choices = u32::try_from(prompts).ok().and_then(|prompts| prompts.checked_mul(n));
        let choices = choices.filter(|choices| *choices <= MAX_TEXT_CHOICES).ok_or_else(|| {
            let what = format!("at most {MAX_TEXT_CHOICES} choices are expected, those of all prompts together");
            field("prompt", "array_above_max_length", &what)
        })?;
        Ok(GenerationView {
            model,
            stream: self.stream.unwrap_or(false),
            include_usage,
            choices,
            needs,
            not_resumable,
        })
    }

    fn needs(&self) -> Features {
        let logprobs = self.logprobs.is_some_and(|asked| asked != NumberOrBool::False);
        Features::NONE
            .with_if(logprobs, Feature::Logprobs)
            .with_if(self.has_schema(), Feature::JsonSchema)
    }

    fn not_resumable(&self) -> Option<&'static str> {
        if self.has_format() || self.has_grammar() {
            // The engine's grammar would start again in the middle of the text.
            Some("a grammar constrains the output")
        } else if !self.prompt.is_some_and(|prompt| prompt.is_text) {
            // To continue an answer, its text is appended to the prompt.
            Some("its prompt is not one text")
        } else if self.suffix.as_ref().is_some_and(|suffix| !suffix.is_empty()) {
            Some("the answer is fitted before a suffix")
        } else if self.echo == Some(true) || self.best_of.is_some_and(|best| best.0 > 1.0) {
            Some("the answer has echo or best_of")
        } else {
            None
        }
    }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
