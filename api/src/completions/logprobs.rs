//! Log probabilities of text completions, in OpenAI's older form. Some engines (llama.cpp) send them in the form of
//! chats.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokenbus_protocol::RawJson;

#[derive(Deserialize)]
struct ChatLogprobs<'a> {
    #[serde(borrow)]
    content: Option<Vec<Token<'a>>>,
}

#[derive(Deserialize)]
struct Token<'a> {
    #[serde(borrow)]
    token: Cow<'a, str>,
    #[serde(borrow)]
    logprob: &'a RawValue,
    #[serde(borrow, default)]
    top_logprobs: Option<Vec<Top<'a>>>,
}

#[derive(Deserialize)]
struct Top<'a> {
    #[serde(borrow)]
    token: Cow<'a, str>,
    #[serde(borrow)]
    logprob: &'a RawValue,
}

#[derive(Default, Serialize)]
struct TextLogprobs<'a> {
    tokens: Vec<&'a str>,
    token_logprobs: Vec<&'a RawValue>,
    top_logprobs: Vec<Option<BTreeMap<&'a str, &'a RawValue>>>,
    text_offset: Vec<usize>,
}

/// `logprobs` in the form of text completions; `characters` of the text come before them. They pass unchanged where
/// they have that form already, or an unknown one.
pub(crate) fn in_text_form(logprobs: Option<&RawJson>, characters: usize) -> Option<Cow<'_, RawJson>> {
    let logprobs = logprobs?;
    Some(converted(logprobs, characters).map_or(Cow::Borrowed(logprobs), Cow::Owned))
}

fn converted(logprobs: &RawJson, characters: usize) -> Option<RawJson> {
    let tokens = logprobs.parse::<ChatLogprobs<'_>>().ok()?.content?;
    let mut of_text = TextLogprobs::default();
    let mut offset = characters;
    for token in &tokens {
        let top = token.top_logprobs.as_ref().filter(|top| !top.is_empty());
        of_text.tokens.push(&token.token);
        of_text.token_logprobs.push(token.logprob);
        of_text
            .top_logprobs
            .push(top.map(|top| top.iter().map(|top| (top.token.as_ref(), top.logprob)).collect()));
        of_text.text_offset.push(offset);
        offset += token.token.chars().count();
    }
    RawJson::from_serialize(&of_text).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn turned(json: &str, characters: usize) -> String {
        let json = RawJson::new(json).unwrap();
        in_text_form(Some(&json), characters).unwrap().get().to_owned()
    }

    #[test]
    fn the_form_of_chats_is_turned_and_numbers_keep_their_digits() {
        let chat = r#"{"content":[{"id":5,"token":"a","logprob":-0.10,"top_logprobs":[]},
            {"token":"\"","logprob":-1e-2,"top_logprobs":[{"token":"x","logprob":-3},{"token":"b","logprob":-2.50}]}]}"#;
        assert_eq!(
            turned(chat, 3),
            concat!(
                r#"{"tokens":["a","\""],"token_logprobs":[-0.10,-1e-2],"#,
                r#""top_logprobs":[null,{"b":-2.50,"x":-3}],"text_offset":[3,4]}"#
            )
        );
    }

    #[test]
    fn other_forms_are_handed_on() {
        for json in [
            r#"{"tokens":["a"],"token_logprobs":[-0.10],"text_offset":[0]}"#,
            r#"{"content":null}"#,
            r#"{"content":[{"x":1}]}"#,
            "[1]",
        ] {
            assert_eq!(turned(json, 0), json);
        }
        assert!(in_text_form(None, 0).is_none());
    }
}
