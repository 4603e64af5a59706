//! Counts a prompt's tokens: an engine tokenizes a chat, and the answer is the number of its tokens.

use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use tokenbus_protocol::{Delta, Finish};

use crate::answer::verbatim::Verbatim;
use crate::answer::{AnswerError, Collect, Encoder, Failure, Form, Identity};
use crate::request::estimated_tokens;

/// The form of an API's answer with the number of tokens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Count {
    /// The estimated number, for models whose engines cannot tokenize.
    pub(crate) estimate: u64,
    /// The JSON answer for a number of tokens.
    pub(crate) answer: fn(u64) -> Bytes,
    /// The body of an error.
    pub(crate) error: fn(&Failure<'_>) -> Bytes,
}

impl Count {
    /// The form for the translated request `body`.
    pub(crate) fn of(self, body: &[u8]) -> Self {
        Self {
            estimate: estimated_tokens(body).max(1),
            ..self
        }
    }
}

impl Form for Count {
    fn is_stream(&self) -> bool {
        false
    }

    /// Never called, because the form is never streamed.
    fn encoder(&self, identity: Identity) -> Box<dyn Encoder> {
        Verbatim.encoder(identity)
    }

    fn collector(&self, identity: Identity) -> Box<dyn Collect> {
        Box::new(Counting {
            answer: Verbatim.collector(identity),
            form: *self,
        })
    }

    fn estimate(&self) -> Option<Bytes> {
        Some((self.answer)(self.estimate))
    }

    fn error(&self, failure: &Failure<'_>) -> Bytes {
        (self.error)(failure)
    }
}

struct Counting {
    answer: Box<dyn Collect>,
    form: Count,
}

impl Collect for Counting {
    fn delta(&mut self, delta: &Delta<'_>) -> Result<(), AnswerError> {
        self.answer.delta(delta)
    }

    fn finish(self: Box<Self>, finish: &Finish) -> Result<Bytes, AnswerError> {
        let tokens = count(&self.answer.finish(finish)?).ok_or(AnswerError::NoAnswer)?;
        Ok((self.form.answer)(tokens))
    }
}

/// The number of tokens in an engine's answer. Some engines send the number; all send the list.
fn count(answer: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct Tokenized<'a> {
        #[serde(default)]
        count: Option<u64>,
        #[serde(default, borrow)]
        tokens: Option<&'a RawValue>,
    }
    let answer: Tokenized<'_> = serde_json::from_slice(answer).ok()?;
    if answer.count.is_some() {
        return answer.count;
    }
    let tokens: Vec<IgnoredAny> = serde_json::from_str(answer.tokens?.get()).ok()?;
    u64::try_from(tokens.len()).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{messages, responses};

    fn told(form: Count, answer: &str) -> Result<Bytes, AnswerError> {
        let mut collector = form.collector(Identity::new("tok-", uuid::Uuid::nil(), 1, "m"));
        let (a, b) = answer.split_at(answer.len() / 2);
        for text in [a, b] {
            let text = text.to_owned().into();
            collector
                .delta(&Delta {
                    text,
                    ..Delta::default()
                })
                .unwrap();
        }
        collector.finish(&Finish::default())
    }

    #[test]
    fn the_number_is_told_in_each_apis_form() {
        let vllm = r#"{"count":3,"max_model_len":99,"tokens":[5,6,7],"token_strs":null}"#;
        assert_eq!(told(messages::COUNT, vllm).unwrap(), r#"{"input_tokens":3}"#);
        let want = r#"{"object":"response.input_tokens","input_tokens":2}"#;
        assert_eq!(told(responses::COUNT, r#"{"tokens":[5,{"id":6}]}"#).unwrap(), want);
    }

    #[test]
    fn an_estimate_stands_in_where_no_engine_counts() {
        let body = "x".repeat(400);
        let told = |form: Count| form.of(body.as_bytes()).estimate().unwrap();
        assert_eq!(told(messages::COUNT), r#"{"input_tokens":100}"#);
        let want = r#"{"object":"response.input_tokens","input_tokens":100}"#;
        assert_eq!(told(responses::COUNT), want);
    }

    #[test]
    fn what_has_no_number_is_no_answer() {
        for answer in ["{}", "[]", r#"{"tokens":7}"#, "nope"] {
            assert_eq!(told(messages::COUNT, answer), Err(AnswerError::NoAnswer), "{answer}");
        }
    }
}
