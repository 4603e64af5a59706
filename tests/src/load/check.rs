//! The check of one stream, event by event. Pure.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;

/// How a stream failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// No gateway answered: the request may be sent again.
    Refused(String),
    /// A status other than 200.
    Status {
        /// The status.
        status: u16,
        /// `error.code`.
        code: String,
        /// `Retry-After` in seconds.
        retry_after: Option<u64>,
    },
    /// An error event in the stream.
    Told {
        /// `error.code`.
        code: String,
        /// `error.message`.
        message: String,
    },
    /// The connection broke in the middle of the body.
    Broken,
    /// The body ended like a complete one, but is not complete.
    Truncated(String),
    /// Something came that must not come.
    Wrong(String),
    /// Nothing came for too long.
    Hang,
}

impl Failure {
    /// The kind, for counting.
    pub fn kind(&self) -> String {
        match self {
            Self::Refused(_) => "refused".to_owned(),
            Self::Status { status, code, .. } => format!("status {status} {code}"),
            Self::Told { code, .. } => format!("error event {code}"),
            Self::Broken => "broken connection".to_owned(),
            Self::Truncated(_) => "TRUNCATED".to_owned(),
            Self::Wrong(_) => "WRONG".to_owned(),
            Self::Hang => "HANG".to_owned(),
        }
    }

    /// Whether the client was told the truth: a status, an error event, or a connection that visibly broke. Wrong
    /// text, a silent end and a hang are lies.
    pub fn is_honest(&self) -> bool {
        !matches!(self, Self::Truncated(_) | Self::Wrong(_) | Self::Hang)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(why) | Self::Truncated(why) | Self::Wrong(why) => write!(f, "{}: {why}", self.kind()),
            Self::Told { message, .. } => write!(f, "{}: {message}", self.kind()),
            Self::Status { retry_after, .. } => write!(f, "{} (Retry-After {retry_after:?})", self.kind()),
            Self::Broken | Self::Hang => f.write_str(&self.kind()),
        }
    }
}

/// The expected content of a stream.
#[derive(Debug, Clone)]
pub struct Expected {
    text: Arc<str>,
    length: usize,
    /// Completion tokens.
    pub tokens: u64,
    prompt_tokens: u64,
    finish_reason: &'static str,
    /// Whether the temperature is 0.
    pub greedy: bool,
}

impl Expected {
    /// The first `tokens` tokens of `text`, which is a text of the simulated engine.
    ///
    /// # Panics
    /// When `text` is too short.
    pub fn sim(text: &Arc<str>, tokens: u64, prompt_tokens: u64) -> Self {
        let ends = text.match_indices(' ').map(|(at, _)| at + 1);
        let length = ends.take(usize::try_from(tokens).expect("tokens fit")).last();
        Self {
            length: length.unwrap_or(0),
            text: Arc::clone(text),
            tokens,
            prompt_tokens,
            finish_reason: "length",
            greedy: false,
        }
    }

    /// Checks the body of an answer in one piece.
    ///
    /// # Errors
    /// [`Failure::Wrong`] for any other answer.
    pub fn whole(&self, body: &[u8]) -> Result<(), Failure> {
        let answer: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
        let choice = &answer["choices"][0];
        let usage = &answer["usage"];
        let right = choice["message"]["content"].as_str() == self.text.get(..self.length)
            && choice["message"]["role"] == "assistant"
            && choice["finish_reason"] == self.finish_reason
            && answer["choices"].as_array().is_some_and(|all| all.len() == 1)
            && usage["prompt_tokens"] == self.prompt_tokens
            && usage["completion_tokens"] == self.tokens;
        if right {
            return Ok(());
        }
        Err(Failure::Wrong(format!(
            "{} tokens were awaited in one piece, not {}",
            self.tokens,
            String::from_utf8_lossy(body)
        )))
    }
}

#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow, default)]
    id: Cow<'a, str>,
    #[serde(borrow, default)]
    choices: Vec<Choice<'a>>,
    #[serde(default)]
    usage: Option<Usage>,
    #[serde(borrow, default)]
    error: Option<Told<'a>>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    index: u32,
    #[serde(borrow)]
    delta: Delta<'a>,
    #[serde(borrow, default)]
    finish_reason: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow, default)]
    role: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    content: Option<Cow<'a, str>>,
}

#[derive(Deserialize, Debug, PartialEq)]
struct Usage {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
}

#[derive(Deserialize)]
struct Told<'a> {
    #[serde(borrow)]
    message: Cow<'a, str>,
    #[serde(borrow, default)]
    code: Option<Cow<'a, str>>,
}

/// The check of one stream.
#[derive(Debug)]
pub struct Check<'e> {
    expected: &'e Expected,
    /// Bytes of text so far.
    at: usize,
    id: String,
    role: bool,
    finished: bool,
    usage: bool,
    done: bool,
}

impl<'e> Check<'e> {
    /// A check at the start of a stream.
    pub fn new(expected: &'e Expected) -> Self {
        Self {
            expected,
            at: 0,
            id: String::new(),
            role: false,
            finished: false,
            usage: false,
            done: false,
        }
    }

    /// Takes the data of one event. Returns whether it brought text.
    ///
    /// # Errors
    /// The failure that it is or reveals. The check is then over.
    pub fn event(&mut self, data: &str) -> Result<bool, Failure> {
        if self.done {
            return Err(self.wrong("something follows [DONE]", data));
        }
        if data == "[DONE]" {
            self.done = true;
            return if self.finished && self.usage {
                Ok(false)
            } else {
                Err(self.wrong("[DONE] before the finish and the usage", data))
            };
        }
        let chunk: Chunk<'_> = serde_json::from_str(data).map_err(|error| self.wrong(&error.to_string(), data))?;
        if let Some(told) = chunk.error {
            return Err(Failure::Told {
                code: told.code.unwrap_or_default().into_owned(),
                message: told.message.into_owned(),
            });
        }
        if self.id.is_empty() {
            self.id = chunk.id.into_owned();
        } else if self.id != chunk.id {
            return Err(self.wrong("the id changed within the stream", data));
        }
        let mut text = false;
        for choice in &chunk.choices {
            text |= self.choice(choice, data)?;
        }
        if let Some(usage) = chunk.usage {
            self.usage(&usage, data)?;
        }
        Ok(text)
    }

    fn choice(&mut self, choice: &Choice<'_>, data: &str) -> Result<bool, Failure> {
        if choice.index != 0 || self.finished {
            return Err(self.wrong("a choice that was not asked for, or that had finished", data));
        }
        let role = choice.delta.role.is_some();
        if role == self.role {
            return Err(self.wrong("the role comes once, and first", data));
        }
        self.role = true;
        let content = choice.delta.content.as_deref().unwrap_or_default();
        let rest = self
            .expected
            .text
            .get(self.at..self.expected.length)
            .unwrap_or_default();
        if !rest.starts_with(content) {
            return Err(self.wrong("the text is not what comes next", data));
        }
        self.at += content.len();
        if let Some(reason) = &choice.finish_reason {
            self.finished = true;
            if self.at != self.expected.length || *reason != self.expected.finish_reason {
                return Err(self.wrong("it finished too early, or for a wrong reason", data));
            }
        }
        Ok(!content.is_empty())
    }

    fn usage(&mut self, usage: &Usage, data: &str) -> Result<(), Failure> {
        let right = Usage {
            prompt_tokens: self.expected.prompt_tokens,
            completion_tokens: self.expected.tokens,
            total_tokens: self.expected.prompt_tokens + self.expected.tokens,
        };
        if std::mem::replace(&mut self.usage, true) || *usage != right {
            return Err(self.wrong("the usage is counted twice or wrongly", data));
        }
        Ok(())
    }

    /// Takes the end of the body.
    ///
    /// # Errors
    /// [`Failure::Truncated`] when the stream is incomplete.
    pub fn end(&self) -> Result<(), Failure> {
        if self.done {
            return Ok(());
        }
        Err(Failure::Truncated(format!("after {} bytes of text", self.at)))
    }

    fn wrong(&self, what: &str, data: &str) -> Failure {
        let before = self
            .expected
            .text
            .get(self.at.saturating_sub(24)..self.at)
            .unwrap_or_default();
        Failure::Wrong(format!("{what}; text so far ends with {before:?}; event: {data}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ask::sim_text;

    fn expected(tokens: u64) -> Expected {
        Expected::sim(&sim_text(20).into(), tokens, 7)
    }

    fn delta(text: &str) -> String {
        format!(r#"{{"id":"c","choices":[{{"index":0,"delta":{{"content":"{text}"}},"finish_reason":null}}]}}"#)
    }

    const ROLE: &str = r#"{"id":"c","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}"#;
    const FINISH: &str = r#"{"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"length"}]}"#;
    const USAGE: &str = r#"{"id":"c","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2,"total_tokens":9}}"#;

    fn run(events: &[&str]) -> Result<(), Failure> {
        let expected = expected(2);
        let mut check = Check::new(&expected);
        for event in events {
            check.event(event)?;
        }
        check.end()
    }

    #[test]
    fn a_whole_stream_passes_in_pieces_of_any_size() {
        let (one, two, both) = (delta("t0 "), delta("t1 "), delta("t0 t1 "));
        assert_eq!(run(&[ROLE, &one, &two, FINISH, USAGE, "[DONE]"]), Ok(()));
        assert_eq!(run(&[ROLE, &both, FINISH, USAGE, "[DONE]"]), Ok(()));
        assert_eq!(
            run(&[ROLE, &delta("t0 t"), &delta("1 "), FINISH, USAGE, "[DONE]"]),
            Ok(())
        );
    }

    #[test]
    fn an_answer_in_one_piece_is_compared_whole() {
        let answer = |text: &str, tokens: u64| {
            serde_json::json!({
                "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "length"}],
                "usage": {"prompt_tokens": 7, "completion_tokens": tokens},
            })
            .to_string()
        };
        assert_eq!(expected(2).whole(answer("t0 t1 ", 2).as_bytes()), Ok(()));
        for wrong in [
            answer("t0 t1 t1 ", 2),
            answer("t0 ", 2),
            answer("t0 t1 ", 3),
            "{}".to_owned(),
        ] {
            assert!(
                matches!(expected(2).whole(wrong.as_bytes()), Err(Failure::Wrong(_))),
                "{wrong}"
            );
        }
    }

    #[test]
    fn everything_else_is_a_failure() {
        let (one, two) = (delta("t0 "), delta("t1 "));
        let double = USAGE.replace(":2,", ":3,").replace(":9", ":10");
        let other = one.replace("\"c\"", "\"d\"");
        let cases: [&[&str]; 11] = [
            &[ROLE, &one, &one, FINISH, USAGE, "[DONE]"],
            &[ROLE, &two, FINISH, USAGE, "[DONE]"],
            &[ROLE, &one, FINISH, USAGE, "[DONE]"],
            &[ROLE, &one, ROLE, &two, FINISH, USAGE, "[DONE]"],
            &[&one, &two, FINISH, USAGE, "[DONE]"],
            &[ROLE, &one, &two, FINISH, FINISH, USAGE, "[DONE]"],
            &[ROLE, &one, &two, FINISH, &double, "[DONE]"],
            &[ROLE, &one, &two, FINISH, USAGE, USAGE, "[DONE]"],
            &[ROLE, &one, &two, FINISH, "[DONE]"],
            &[ROLE, &one, &two, FINISH, USAGE, "[DONE]", USAGE],
            &[ROLE, &other, &two, FINISH, USAGE, "[DONE]"],
        ];
        for case in cases {
            assert!(matches!(run(case), Err(Failure::Wrong(_))), "{case:?}");
        }
        assert!(matches!(
            run(&[ROLE, &one, &two, FINISH, USAGE]),
            Err(Failure::Truncated(_))
        ));
        let told = r#"{"error":{"message":"gone","type":"server_error","param":null,"code":"worker_lost"}}"#;
        let failure = run(&[ROLE, &one, told]).unwrap_err();
        assert!(failure.is_honest() && failure.kind() == "error event worker_lost");
    }
}
