//! What a request asks of the simulated engine.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use tokenbus_engine::Job;
use tokenbus_protocol::{EngineError, ErrorCode, RawJson, RequestKind, Resume, ResumeChoice};

use super::prompted::Prompted;
use super::said::{self, Said, ScriptedCall, Tool};
use super::whole;
use crate::refusal::refusal;

/// Tokens of an answer whose request has no limit.
const DEFAULT_TOKENS: u64 = 16;

/// Most choices of one request, as in the OpenAI API.
const MAX_CHOICES: u32 = 128;

/// The member `sim` of a request's body: what goes wrong, or is odd. Positions count the tokens of
/// one choice from the beginning of the answer, also over a `resume`. A fault strikes attempts
/// without a `resume` only, so that a request can be continued after it, unless `always` is set.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Script {
    /// The answer is the request's body, byte for byte, as one token with finish reason `stop`.
    pub echo: bool,
    /// Fail after so many tokens; 0 is before the first one.
    pub error_after: Option<u64>,
    /// With this code (`internal` by default).
    pub error_code: Option<ErrorCode>,
    /// With this message.
    pub error_message: Option<String>,
    /// Whether another worker may be tried (not by default).
    pub retryable: bool,
    /// When to try again, milliseconds.
    pub retry_after_ms: Option<u64>,
    /// Say nothing more after so many tokens.
    pub hang_after: Option<u64>,
    /// Drop the stream without a finish after so many tokens.
    pub drop_after: Option<u64>,
    /// Faults strike resumed attempts too.
    pub always: bool,
    /// Time to first token of this request, milliseconds.
    pub ttft_ms: Option<u64>,
    /// Instead of `length`.
    pub finish_reason: Option<String>,
    /// Reasoning text before the first token, sent as `reasoning_content`.
    pub reasoning: Option<String>,
    /// Members of the first token's `delta` beside its text.
    pub delta: Option<RawJson>,
    /// The first token's `logprobs`.
    pub logprobs: Option<RawJson>,
    /// Members of the first token's choice.
    pub choice: Option<RawJson>,
    /// Members of the first token's chunk.
    pub chunk: Option<RawJson>,
    /// `system_fingerprint` of the first token's chunk.
    pub fingerprint: Option<String>,
    /// The `usage` object at the end.
    pub usage: Option<RawJson>,
    /// The answer is calls of tools, these ones, in parallel.
    pub tool_calls: Vec<ScriptedCall>,
}

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
    /// Nothing more comes.
    pub(super) done: bool,
}

/// Reasoning of a request that asks for some.
const REASONING: &str = "r0 r1 r2 ";

/// What is to be generated.
#[derive(Debug)]
pub(super) struct Plan {
    /// Whether the answer is a text completion's.
    pub(super) is_text: bool,
    /// What is said in place of the counted tokens.
    pub(super) said: Option<Said>,
    /// Log probabilities are wanted, and of so many other tokens.
    pub(super) logprobs: Option<usize>,
    /// Texts before the first token of each choice.
    pub(super) echoes: Vec<String>,
    /// The choices.
    pub(super) choices: Vec<Choice>,
    /// Tokens of each.
    pub(super) max: u64,
    /// Words of the prompt.
    pub(super) prompt_tokens: u64,
    /// What goes wrong.
    pub(super) script: Script,
    /// Whether the client has a part of the answer already.
    pub(super) resumed: bool,
    /// The request.
    pub(super) body: Bytes,
}

impl Plan {
    /// Reads the request.
    ///
    /// # Errors
    /// What an engine would answer to a request that it cannot serve.
    pub(super) fn new(job: &Job, context_length: Option<u64>) -> Result<Self, EngineError> {
        if !job.kind.is_generated() {
            return Self::whole(job, context_length);
        }
        let body: Body = serde_json::from_slice(&job.body)
            .map_err(|e| refusal(ErrorCode::BadRequest, format!("The request cannot be read: {e}"), None))?;
        let count = body.n.unwrap_or(1);
        if !(1..=MAX_CHOICES).contains(&count) {
            let message = format!("n must be between 1 and {MAX_CHOICES}, not {count}");
            return Err(refusal(ErrorCode::BadRequest, message, Some("n")));
        }
        let max = body.max_completion_tokens.or(body.max_tokens).unwrap_or(DEFAULT_TOKENS);
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
        let said = said(&body);
        let prompts = if job.kind == RequestKind::Completion {
            prompts(body.prompt.as_ref())
        } else {
            1
        };
        let limited = body.max_completion_tokens.or(body.max_tokens);
        let pieces = said.as_ref().map(|said| said.pieces.len() as u64);
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
            said,
            prompt_tokens,
            script,
            resumed: resume.is_some_and(|resume| !resume.choices.is_empty()),
            body: job.body.clone(),
        })
    }

    /// An answer in one piece.
    fn whole(job: &Job, context_length: Option<u64>) -> Result<Self, EngineError> {
        let (said, prompt_tokens) = whole::answer(job.kind, &job.body, context_length)?;
        Ok(Self {
            is_text: false,
            logprobs: None,
            echoes: Vec::new(),
            choices: vec![choice(0, None)],
            max: said.pieces.len() as u64,
            said: Some(said),
            prompt_tokens,
            script: Script::default(),
            resumed: false,
            body: job.body.clone(),
        })
    }
}

/// What the request wants in place of the counted tokens.
fn said(body: &Body) -> Option<Said> {
    let scripted = body.sim.as_ref().map(|script| &script.tool_calls);
    if let Some(calls) = scripted.filter(|calls| !calls.is_empty()) {
        return Some(said::calls(calls));
    }
    let (tools, format) = (body.tools.as_deref().unwrap_or_default(), body.response_format.as_ref());
    if tools.is_empty() && format.is_none() {
        return None;
    }
    let role = body.messages.last().and_then(|message| message.role.as_deref());
    let prompted = prompted(&body.messages);
    match said::call(tools, body.tool_choice.as_ref(), role, &prompted) {
        Some(call) => Some(said::calls(&[call])),
        None => said::formatted(format, &prompted),
    }
}

/// What the last message of the user's gives a document.
fn prompted(messages: &[Message]) -> Prompted {
    let last = messages.iter().rfind(|message| message.role.as_deref() == Some("user"));
    match last.and_then(|message| message.content.as_ref()) {
        None => Prompted::default(),
        Some(Content::Text(text)) => Prompted::read(text),
        Some(Content::Parts(parts)) => {
            let texts: Vec<&str> = parts.iter().filter_map(|part| part.text.as_deref()).collect();
            Prompted::read(&texts.join("\n"))
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
        _ => Vec::new(),
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

/// The number behind the last one that was delivered. The text says it exactly; the count may be
/// an estimate.
fn next_token(had: &ResumeChoice) -> u64 {
    let last = had.text.split_ascii_whitespace().next_back();
    let number = last
        .and_then(|word| word.strip_prefix('t'))
        .and_then(|n| n.parse::<u64>().ok());
    // Its reasoning is one token, before the first.
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
pub(super) mod tests {
    use super::*;

    pub(in crate::engine) fn job(body: &str, resume: Option<Resume>) -> Job {
        Job {
            id: uuid::Uuid::nil(),
            kind: RequestKind::Chat,
            model: "m".to_owned(),
            body: Bytes::copy_from_slice(body.as_bytes()),
            deadline: std::time::Instant::now(),
            resume,
            traceparent: None,
        }
    }

    fn plan(body: &str) -> Plan {
        Plan::new(&job(body, None), None).unwrap()
    }

    #[test]
    fn the_newer_limit_wins_and_the_default_is_16() {
        assert_eq!(plan(r#"{"messages":[]}"#).max, 16);
        assert_eq!(plan(r#"{"max_tokens":3}"#).max, 3);
        assert_eq!(plan(r#"{"max_tokens":3,"max_completion_tokens":5}"#).max, 5);
        assert_eq!(plan(r#"{"max_tokens":null}"#).max, 16);
    }

    #[test]
    fn words_of_texts_and_parts_are_prompt_tokens() {
        let body = r#"{"messages":[{"role":"system","content":"you are  kind"},
            {"role":"user","content":[{"type":"text","text":"a b"},{"type":"image_url","image_url":{"url":"x y"}}]},
            {"role":"assistant","content":null}]}"#;
        assert_eq!(plan(body).prompt_tokens, 5);
        assert_eq!(plan(r#"{"prompt":"a b c"}"#).prompt_tokens, 3);
        assert_eq!(plan(r#"{"prompt":["a","b c"]}"#).prompt_tokens, 3);
        assert_eq!(plan(r#"{"prompt":[1,2]}"#).prompt_tokens, 2);
    }

    #[test]
    fn sampling_and_unknown_fields_are_accepted() {
        let body = r#"{"temperature":0.5,"top_p":1,"seed":7,"stop":["x"],"logit_bias":{"1":2},"whatever":{"a":[]}}"#;
        assert_eq!(plan(body).choices.len(), 1);
    }

    #[test]
    fn what_cannot_be_served_is_a_bad_request() {
        for (body, param) in [
            ("nope", None),
            (r#"{"n":0}"#, Some("n")),
            (r#"{"n":129}"#, Some("n")),
            (r#"{"sim":{"eror_after":1}}"#, None),
        ] {
            let error = Plan::new(&job(body, None), None).unwrap_err();
            assert_eq!((error.code, error.retryable), (ErrorCode::BadRequest, false), "{body}");
            assert_eq!(error.param.as_deref(), param, "{body}");
        }
        let unknown = Job {
            kind: RequestKind::Other,
            ..job("[]", None)
        };
        assert!(Plan::new(&unknown, None).is_err());
    }

    #[test]
    fn each_prompt_of_a_completion_has_its_choices_and_its_echo() {
        let completion = Job {
            kind: RequestKind::Completion,
            ..job(r#"{"prompt":["a b","c"],"n":2,"echo":true,"logprobs":3}"#, None)
        };
        let plan = Plan::new(&completion, None).unwrap();
        assert_eq!((plan.choices.len(), plan.logprobs, plan.is_text), (4, Some(3), true));
        assert_eq!(plan.echoes, ["a b", "a b", "c", "c"]);
    }

    #[test]
    fn reasoning_tools_and_formats_are_given_where_they_are_asked_for() {
        let said = |body: &str| plan(body).said.map(|said| said.finish_reason);
        let tools = r#""tools":[{"type":"function","function":{"name":"f"}}],"messages":[{"role":"user"}]"#;
        assert_eq!(said(&format!("{{{tools}}}")), Some(Some("tool_calls")));
        assert_eq!(said(&format!(r#"{{{tools},"tool_choice":"none"}}"#)), None);
        assert_eq!(
            said(r#"{"response_format":{"type":"json_object"}}"#),
            Some(Some("stop"))
        );
        let scripted = plan(r#"{"sim":{"tool_calls":[{"name":"f"},{"name":"g","arguments":{"a":1}}]},"max_tokens":1}"#);
        assert_eq!(scripted.max, 1, "a limit cuts it");
        assert!(scripted.said.unwrap().pieces.len() > 3);
        assert_eq!(
            plan(r#"{"reasoning_effort":"low"}"#).script.reasoning.as_deref(),
            Some(REASONING)
        );
        assert_eq!(plan(r#"{"reasoning_effort":"none"}"#).script.reasoning, None);
    }

    #[test]
    fn the_context_is_checked_when_there_is_a_limit() {
        let body = r#"{"messages":[{"content":"a b c"}],"max_tokens":8}"#;
        assert!(Plan::new(&job(body, None), Some(11)).is_ok());
        let error = Plan::new(&job(body, None), Some(10)).unwrap_err();
        assert_eq!(error.code, ErrorCode::ContextLengthExceeded);
    }

    #[test]
    fn a_resume_continues_by_its_text_and_otherwise_by_its_count() {
        let had = |index, text: &str, tokens, finish: Option<&str>| ResumeChoice {
            index,
            text: text.to_owned(),
            tokens,
            finish_reason: finish.map(str::to_owned),
            ..ResumeChoice::default()
        };
        let resume = Resume {
            choices: vec![
                had(0, "t0 t1 t2 ", 99, None),
                had(1, "", 4, None),
                had(2, "t0 ", 1, Some("length")),
                ResumeChoice {
                    reasoning: "r0 ".to_owned(),
                    ..had(4, "", 1, None)
                },
            ],
        };
        let plan = Plan::new(&job(r#"{"n":5}"#, Some(resume)), None).unwrap();
        let state: Vec<(u64, bool)> = plan.choices.iter().map(|c| (c.next, c.done)).collect();
        assert_eq!(state, [(3, false), (4, false), (1, true), (0, false), (0, false)]);
        assert!(plan.resumed);
    }
}
