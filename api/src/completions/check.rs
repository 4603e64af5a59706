//! Checking a text completion request. As in `chat/check.rs`, the client's bytes are what travels.

use serde::Deserialize;
use serde::de::IgnoredAny;
use tokenbus_protocol::{Feature, Features};

use crate::Identity;
use crate::answer::form::{Collect, Encoder, Form};
use crate::completions::text_encoder::TextEncoder;
use crate::generation::collector::Collector;
use crate::limits::MAX_TEXT_CHOICES;
use crate::request::fields::{LogitBias, Number, NumberOrBool, ResponseFormat, StreamOptions, Text, Texts, Whole};
use crate::request::prompt::Prompt;
use crate::request::{self, Checked, RequestError, field, missing};

/// What tokenbus itself needs to know of a text completion request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompletionView {
    /// The model.
    pub model: String,
    /// Whether the answer is streamed.
    pub stream: bool,
    /// Whether a streamed answer ends with its usage.
    pub include_usage: bool,
    /// Choices asked for, those of all prompts together: 1 to [`MAX_TEXT_CHOICES`].
    pub choices: u32,
    /// What the engine must be able to do.
    pub needs: Features,
    /// Why the answer cannot be continued by another engine, if so.
    pub not_resumable: Option<&'static str>,
}

impl From<CompletionView> for Checked {
    fn from(view: CompletionView) -> Self {
        Self {
            not_resumable: view.not_resumable,
            needs: view.needs,
            ..Self::new(view.model.clone(), view)
        }
    }
}

impl Form for CompletionView {
    fn is_stream(&self) -> bool {
        self.stream
    }

    fn encoder(&self, identity: Identity) -> Box<dyn Encoder> {
        Box::new(TextEncoder::new(identity, self.include_usage))
    }

    fn collector(&self, identity: Identity) -> Box<dyn Collect> {
        Box::new(Collector::of_texts(identity))
    }
}

/// The members that are looked at. `Option` takes a null as absent, as OpenAI does.
#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct CompletionRequest {
    model: Option<String>,
    prompt: Option<Prompt>,
    // vLLM takes them in place of a prompt.
    prompt_embeds: Option<IgnoredAny>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    n: Option<Whole>,
    best_of: Option<Whole>,
    max_tokens: Option<Whole>,
    echo: Option<bool>,
    suffix: Option<String>,
    logprobs: Option<NumberOrBool>,
    #[serde(rename = "temperature")]
    _temperature: Option<Number>,
    #[serde(rename = "top_p")]
    _top_p: Option<Number>,
    #[serde(rename = "presence_penalty")]
    _presence_penalty: Option<Number>,
    #[serde(rename = "frequency_penalty")]
    _frequency_penalty: Option<Number>,
    #[serde(rename = "repetition_penalty")]
    _repetition_penalty: Option<Number>,
    #[serde(rename = "stop")]
    _stop: Option<Texts>,
    #[serde(rename = "seed")]
    _seed: Option<Whole>,
    #[serde(rename = "logit_bias")]
    _logit_bias: Option<LogitBias>,
    #[serde(rename = "user")]
    _user: Option<Text>,
    response_format: Option<ResponseFormat>,
    guided_json: Option<IgnoredAny>,
    guided_regex: Option<IgnoredAny>,
    guided_choice: Option<IgnoredAny>,
    guided_grammar: Option<IgnoredAny>,
    structured_outputs: Option<IgnoredAny>,
    grammar: Option<IgnoredAny>,
    json_schema: Option<IgnoredAny>,
    regex: Option<IgnoredAny>,
    ebnf: Option<IgnoredAny>,
}

/// Checks `body`.
///
/// # Errors
/// [`RequestError`] says what is wrong and where.
pub fn check(body: &[u8]) -> Result<CompletionView, RequestError> {
    request::parse::<CompletionRequest>(body)?.check()
}

impl CompletionRequest {
    fn check(self) -> Result<CompletionView, RequestError> {
        let not_resumable = self.not_resumable();
        let model = request::model(self.model)?;
        let prompts = match self.prompt {
            None if self.prompt_embeds.is_some() => 1,
            None => return Err(missing("prompt")),
            Some(Prompt { count: 0, .. }) => {
                return Err(field("prompt", "empty_array", "at least one prompt is expected"));
            }
            Some(prompt) => prompt.count,
        };
        // With none and `echo` a client has the prompt itself scored.
        request::at_least("max_tokens", self.max_tokens, 0.0)?;
        request::at_least_one("best_of", self.best_of)?;
        let n = request::choices(self.n)?;
        let choices = u32::try_from(prompts).ok().and_then(|prompts| prompts.checked_mul(n));
        let choices = choices.filter(|choices| *choices <= MAX_TEXT_CHOICES).ok_or_else(|| {
            let what = format!("at most {MAX_TEXT_CHOICES} choices are expected, those of all prompts together");
            field("prompt", "array_above_max_length", &what)
        })?;
        let schema = self.response_format.is_some_and(|format| format.is_schema());
        Ok(CompletionView {
            model,
            stream: self.stream.unwrap_or(false),
            include_usage: self.stream_options.is_some_and(|options| options.include_usage()),
            choices,
            needs: Features::NONE
                .with_if(
                    self.logprobs.is_some_and(|asked| asked != NumberOrBool::False),
                    Feature::Logprobs,
                )
                .with_if(schema, Feature::JsonSchema),
            not_resumable,
        })
    }

    fn not_resumable(&self) -> Option<&'static str> {
        let grammar = [
            &self.guided_json,
            &self.guided_regex,
            &self.guided_choice,
            &self.guided_grammar,
            &self.structured_outputs,
            &self.grammar,
            &self.json_schema,
            &self.regex,
            &self.ebnf,
        ];
        let format = self.response_format.as_ref().is_some_and(|format| !format.is_text());
        if format || grammar.iter().any(|field| field.is_some()) {
            // The engine's grammar would begin anew in the middle of the text.
            Some("a grammar constrains the output")
        } else if !self.prompt.is_some_and(|prompt| prompt.is_text) {
            // What was generated is appended to the prompt, as text.
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
