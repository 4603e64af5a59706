//! What the simulated engine generates for a request. Pure.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use tokenbus_engine::Job;
use tokenbus_protocol::{EngineError, ErrorCode, RequestKind, Resume, ResumeChoice};

use super::fixed_answer::{self, FixedAnswer, Tool};
use super::prompt_words::PromptWords;
use super::script::Script;
use super::unary;
use crate::refusal::refusal;

/// Length of an answer whose request has no limit, tokens. It then ends by itself, with `stop`.
const NATURAL_LENGTH: u64 = 16;

/// Most choices of one request, as in the OpenAI API.
const MAX_CHOICES: u32 = 128;

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    messages: Vec<Message>,
    #[serde(default)]
    prompt: Option<Prompt>,
    #[serde(default)]
    max_tokens: Option<u64>,
    #[serde(default)]
    max_completion_tokens: Option<u64>,
    #[serde(default)]
    n: Option<u32>,
    #[serde(default)]
    echo: Option<bool>,
    #[serde(default)]
    logprobs: Option<Value>,
    #[serde(default)]
    top_logprobs: Option<usize>,
    #[serde(default)]
    reasoning_effort: Option<String>,
    #[serde(default)]
    tools: Option<Vec<Tool>>,
    #[serde(default)]
    tool_choice: Option<Value>,
    #[serde(default)]
    response_format: Option<Value>,
    #[serde(default)]
    sim: Option<Script>,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    role: Option<String>,
    #[serde(default)]
    content: Option<Content>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<ContentPart>),
}

#[derive(Deserialize)]
struct ContentPart {
    #[serde(default)]
    text: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Prompt {
    One(String),
    Many(Vec<String>),
    Ids(Vec<u64>),
    ManyIds(Vec<Vec<u64>>),
}

/// One choice to generate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Choice {
    /// Its index.
    pub(super) index: u32,
    /// The number of its next token.
    pub(super) next: u64,
    /// Bytes of text that the client has of it.
    pub(super) delivered: usize,
    /// Whether it has ended.
    pub(super) done: bool,
}

/// The reasoning text of a request that asks for reasoning.
const REASONING: &str = "r0 r1 r2 ";

/// The answer to generate.
#[derive(Debug)]
pub(super) struct Plan {
    /// Whether the answer is a text completion's.
    pub(super) is_text: bool,
    /// The answer in place of counted tokens: tool calls or a document.
    pub(super) fixed: Option<FixedAnswer>,
    /// With log probabilities, the number of other tokens that each has beside it.
    pub(super) logprobs: Option<usize>,
    /// The prompt of each choice that echoes it.
    pub(super) echoes: Vec<String>,
    /// The choices.
    pub(super) choices: Vec<Choice>,
    /// Tokens of each choice.
    pub(super) max: u64,
    /// Finish reason of a choice that has all its counted tokens.
    pub(super) at_end: &'static str,
    /// Prompt tokens: words.
    pub(super) prompt_tokens: u64,
    /// The scripted faults and oddities.
    pub(super) script: Script,
    /// Whether an earlier attempt delivered a part of the answer.
    pub(super) resumed: bool,
    /// The request's body.
    pub(super) body: Bytes,
}

impl Plan {
    /// Reads the request.
    ///
    /// # Errors
    /// The error with which an engine refuses a request that it cannot serve.
    pub(super) fn new(job: &Job, context_length: Option<u64>) -> Result<Self, EngineError> {
        if !job.kind.is_generated() {
            return Self::unary(job, context_length);
        }
        let body: Body = serde_json::from_slice(&job.body)
            .map_err(|e| refusal(ErrorCode::BadRequest, format!("The request cannot be read: {e}"), None))?;
        let count = body.n.unwrap_or(1);
        if !(1..=MAX_CHOICES).contains(&count) {
            let message = format!("n must be between 1 and {MAX_CHOICES}, not {count}");
            return Err(refusal(ErrorCode::BadRequest, message, Some("n")));
        }
        let limited = body.max_completion_tokens.or(body.max_tokens);
        let max = limited.unwrap_or(NATURAL_LENGTH);
        let prompt_tokens = words(&body);
        if let Some(limit) = context_length
            && prompt_tokens.saturating_add(max) > limit
        {
            let message = format!(
                "This model's maximum context length is {limit} tokens. However, you requested {prompt_tokens} in the messages and {max} in the completion"
            );
            return Err(refusal(ErrorCode::ContextLengthExceeded, message, Some("messages")));
        }
        let resume = job.resume.as_ref();
        let fixed = fixed(&body);
        let prompts = if job.kind == RequestKind::Completion {
            prompts(body.prompt.as_ref())
        } else {
            1
        };
        let pieces = fixed.as_ref().map(|fixed| fixed.pieces.len() as u64);
        let mut script = body.sim.unwrap_or_default();
        if body.reasoning_effort.is_some_and(|effort| effort != "none") && script.reasoning.is_none() {
            script.reasoning = Some(REASONING.to_owned());
        }
        Ok(Self {
            is_text: job.kind == RequestKind::Completion,
            logprobs: logprobs(body.logprobs.as_ref(), body.top_logprobs),
            echoes: echoes(body.echo, body.prompt.as_ref(), count),
            choices: (0..count * prompts).map(|index| choice(index, resume)).collect(),
            max: pieces.map_or(max, |pieces| limited.unwrap_or(pieces).min(pieces)),
            at_end: if limited.is_some() { "length" } else { "stop" },
            fixed,
            prompt_tokens,
            script,
            resumed: resume.is_some_and(|resume| !resume.choices.is_empty()),
            body: job.body.clone(),
        })
    }

    /// The plan for an answer of one piece.
    fn unary(job: &Job, context_length: Option<u64>) -> Result<Self, EngineError> {
        let (fixed, prompt_tokens) = unary::answer(job.kind, &job.body, context_length)?;
        Ok(Self {
            is_text: false,
            logprobs: None,
            echoes: Vec::new(),
            choices: vec![choice(0, None)],
            max: fixed.pieces.len() as u64,
            at_end: "stop",
            fixed: Some(fixed),
            prompt_tokens,
            script: Script::default(),
            resumed: false,
            body: job.body.clone(),
        })
    }
}

/// The answer that the request wants in place of counted tokens.
fn fixed(body: &Body) -> Option<FixedAnswer> {
    let scripted = body.sim.as_ref().map(|script| &script.tool_calls);
    if let Some(calls) = scripted.filter(|calls| !calls.is_empty()) {
        return Some(fixed_answer::calls(calls));
    }
    let (tools, format) = (body.tools.as_deref().unwrap_or_default(), body.response_format.as_ref());
    if tools.is_empty() && format.is_none() {
        return None;
    }
    let role = body.messages.last().and_then(|message| message.role.as_deref());
    let words = prompt_words(&body.messages);
    match fixed_answer::call(tools, body.tool_choice.as_ref(), role, &words) {
        Some(call) => Some(fixed_answer::calls(&[call])),
        None => fixed_answer::formatted(format, &words),
    }
}

/// The texts and numbers of the last user message, for a document.
fn prompt_words(messages: &[Message]) -> PromptWords {
    let last = messages.iter().rfind(|message| message.role.as_deref() == Some("user"));
    match last.and_then(|message| message.content.as_ref()) {
        None => PromptWords::default(),
        Some(Content::Text(text)) => PromptWords::read(text),
        Some(Content::Parts(parts)) => {
            let texts: Vec<&str> = parts.iter().filter_map(|part| part.text.as_deref()).collect();
            PromptWords::read(&texts.join("\n"))
        }
    }
}

fn logprobs(asked: Option<&Value>, top: Option<usize>) -> Option<usize> {
    match asked {
        Some(Value::Bool(true)) => Some(top.unwrap_or(0)),
        Some(Value::Number(number)) => number.as_u64().and_then(|top| usize::try_from(top).ok()),
        _ => None,
    }
}

fn prompts(prompt: Option<&Prompt>) -> u32 {
    let count = match prompt {
        None | Some(Prompt::One(_) | Prompt::Ids(_)) => 1,
        Some(Prompt::Many(texts)) => texts.len(),
        Some(Prompt::ManyIds(lists)) => lists.len(),
    };
    u32::try_from(count).unwrap_or(1).clamp(1, 2048)
}

fn echoes(echo: Option<bool>, prompt: Option<&Prompt>, each: u32) -> Vec<String> {
    let texts = match prompt.filter(|_| echo == Some(true)) {
        Some(Prompt::One(text)) => vec![text.clone()],
        Some(Prompt::Many(texts)) => texts.clone(),
        Some(Prompt::Ids(ids)) => vec![unary::text_of_ids(ids)],
        Some(Prompt::ManyIds(lists)) => lists.iter().map(|ids| unary::text_of_ids(ids)).collect(),
        None => Vec::new(),
    };
    let each = usize::try_from(each).unwrap_or(1);
    texts
        .into_iter()
        .flat_map(|text| std::iter::repeat_n(text, each))
        .collect()
}

fn choice(index: u32, resume: Option<&Resume>) -> Choice {
    match resume.and_then(|resume| resume.choices.iter().find(|choice| choice.index == index)) {
        None => Choice {
            index,
            next: 0,
            delivered: 0,
            done: false,
        },
        Some(had) => Choice {
            index,
            next: next_token(had),
            delivered: had.text.len(),
            done: had.finish_reason.is_some(),
        },
    }
}

/// The number after the last one that was delivered. The text tells it exactly; the count may be an estimate.
fn next_token(had: &ResumeChoice) -> u64 {
    let last = had.text.split_ascii_whitespace().next_back();
    let number = last
        .and_then(|word| word.strip_prefix('t'))
        .and_then(|n| n.parse::<u64>().ok());
    // The reasoning counts as one token before the first.
    let counted = had.tokens.saturating_sub(u64::from(!had.reasoning.is_empty()));
    number.map_or(counted, |number| number.saturating_add(1))
}

fn words(body: &Body) -> u64 {
    let count = |text: &str| text.split_whitespace().count() as u64;
    let messages = body.messages.iter().filter_map(|message| message.content.as_ref());
    let in_messages: u64 = messages
        .map(|content| match content {
            Content::Text(text) => count(text),
            Content::Parts(parts) => parts.iter().filter_map(|part| part.text.as_deref()).map(count).sum(),
        })
        .sum();
    let in_prompt = match &body.prompt {
        None => 0,
        Some(Prompt::One(text)) => count(text),
        Some(Prompt::Many(texts)) => texts.iter().map(|text| count(text)).sum(),
        Some(Prompt::Ids(ids)) => ids.len() as u64,
        Some(Prompt::ManyIds(lists)) => lists.iter().map(|ids| ids.len() as u64).sum(),
    };
    in_messages + in_prompt
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#[path = "plan_tests.rs"]
pub(super) mod tests;
