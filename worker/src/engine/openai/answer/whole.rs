//! A completion that the server sent in one piece, as the deltas that a stream of it would have been.

use std::borrow::Cow;

use serde_json::value::{RawValue, to_raw_value};
use tokenbus_http_parts::whole_characters;
use tokenbus_protocol::{Delta, DeltaExtra, EngineError, Finish, RawJson, RawJsonError, RawObject};

use super::content_parts::said;
use super::finish_reason::Calls;
use super::given_up::reason;
use super::streamed::{raw, token_ids, tokens_listed};
use super::usage::Counts;
use crate::engine::openai::error::{self, Secrets};
use crate::engine::openai::limits::WHOLE_PIECE;
use crate::engine::openai::request::engine_request::Call;
use crate::engine::openai::wire::completion_chunk::{Choice, Chunk};

/// The answer `text` to `call` as deltas: what each choice says, then its end; and how it finished.
///
/// # Errors
/// The [`EngineError`] that the text is, or what is wrong with it.
pub(crate) fn deltas(text: &str, call: &Call, secrets: &Secrets) -> Result<(Vec<Delta<'static>>, Finish), EngineError> {
    let text = whole_characters(text);
    let text = text.as_ref();
    let chunk: Chunk<'_> = serde_json::from_str(text)
        .map_err(|_| error::nonsense("the engine sent an answer that is neither a stream nor a completion"))?;
    if chunk.is_error || chunk.error.is_some() || (chunk.choices.is_empty() && error::is_error_object(text)) {
        return Err(error::from_stream(text, secrets));
    }
    if chunk.choices.is_empty() {
        return Err(error::nonsense("the engine sent an answer without a choice"));
    }
    let usage = chunk.usage.filter(|raw| raw.get().starts_with('{'));
    let counts: Counts = usage
        .and_then(|raw| serde_json::from_str(raw.get()).ok())
        .unwrap_or_default();
    let mut deltas = Vec::new();
    for choice in &chunk.choices {
        // The server's count is for all choices together.
        let all = counts.completion_tokens.filter(|_| chunk.choices.len() == 1);
        let begin = deltas.len();
        say(choice, call.choice, all, secrets, &mut deltas)?;
        if begin == 0
            && let (Some(first), Some(fingerprint)) = (deltas.first_mut(), &chunk.fingerprint)
        {
            extra_of(first).fingerprint = Some(fingerprint.to_string());
        }
    }
    let rest = raw(&chunk.rest)?;
    if let (Some(last), Some(rest)) = (deltas.last_mut(), rest) {
        extra_of(last).chunk = Some(rest);
    }
    let finish = Finish {
        prompt_tokens: counts.prompt_tokens.map(|prompt| prompt.saturating_sub(call.delivered)),
        completion_tokens: counts.completion_tokens,
        usage: usage.map(RawJson::from),
        chunk: None,
    };
    Ok((deltas, finish))
}

fn extra_of<'d>(delta: &'d mut Delta<'static>) -> &'d mut DeltaExtra {
    delta.extra.get_or_insert_default()
}

/// What one choice says, in pieces of text, and its end.
fn say(
    choice: &Choice<'_>,
    index: Option<u32>,
    tokens: Option<u64>,
    secrets: &Secrets,
    deltas: &mut Vec<Delta<'static>>,
) -> Result<(), EngineError> {
    let index = index.unwrap_or(choice.index);
    let by_calls = || choice.delta.names().fold(Calls::default(), Calls::and).finish_reason();
    let reason = reason(choice, secrets)?.unwrap_or_else(by_calls);
    let (text, members) = said(choice)?;
    let ids = token_ids(choice);
    let listed = tokens_listed(choice, &text, ids.len());
    let tokens = tokens.map_or(listed, |tokens| u32::try_from(tokens).unwrap_or(u32::MAX));
    let extra = DeltaExtra {
        delta: numbered(members).map_err(|_| error::nonsense("the engine sent calls that are none"))?,
        logprobs: choice.logprobs.map(RawJson::from),
        choice: raw(&choice.rest)?,
        ..DeltaExtra::default()
    };
    let mut first = Delta {
        choice: index,
        tokens,
        token_ids: ids,
        extra: (extra != DeltaExtra::default()).then(|| Box::new(extra)),
        ..Delta::default()
    };
    let mut rest = text.as_ref();
    while !rest.is_empty() {
        let (piece, tail) = rest.split_at(rest.floor_char_boundary(WHOLE_PIECE));
        deltas.push(Delta {
            text: Cow::Owned(piece.to_owned()),
            ..std::mem::replace(
                &mut first,
                Delta {
                    choice: index,
                    ..Delta::default()
                },
            )
        });
        rest = tail;
    }
    if first.extra.is_some() || first.tokens > 0 {
        deltas.push(first);
    }
    deltas.push(Delta {
        choice: index,
        finish_reason: Some(reason.to_owned()),
        ..Delta::default()
    });
    Ok(())
}

/// Members of a message as those of a delta: in a stream, calls are numbered.
fn numbered(members: Option<RawJson>) -> Result<Option<RawJson>, RawJsonError> {
    let Some(members) = members else { return Ok(None) };
    let mut object = RawObject::parse(members.get().as_bytes())?;
    let calls = object
        .get("tool_calls")
        .map(|raw| serde_json::from_str::<Vec<RawObject>>(raw.get()));
    let Some(Ok(mut calls)) = calls else {
        return Ok(Some(members));
    };
    if calls.is_empty() {
        object.remove("tool_calls");
    } else {
        for (number, call) in calls.iter_mut().enumerate() {
            if call.get("index").is_none() {
                call.set("index", &number)?;
            }
        }
        let calls: Box<RawValue> = to_raw_value(&calls)?;
        object.set("tool_calls", &calls)?;
    }
    if object.is_empty() {
        return Ok(None);
    }
    object.to_json().map(Some)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::engine::openai::request::count::Counting;
    use crate::engine::openai::request::engine_request::Asked;
    use crate::engine::openai::request::seam::Seam;
    use tokenbus_protocol::ErrorCode;

    fn call() -> Call {
        Call {
            body: bytes::Bytes::new(),
            choice: None,
            choices: 1,
            each: 1,
            echoes: Vec::new(),
            delivered: 2,
            continues: false,
            otherwise: None,
            again: 0,
            seam: Seam::Open,
            counting: Counting::Chunks,
            asked: Asked::default(),
        }
    }

    fn read(text: &str) -> Result<(Vec<Delta<'static>>, Finish), EngineError> {
        deltas(text, &call(), &Secrets::default())
    }

    fn json(raw: Option<&RawJson>) -> &str {
        raw.map_or("", RawJson::get)
    }

    #[test]
    fn a_whole_answer_is_what_it_says_and_its_end() {
        let (deltas, finish) = read(concat!(
            r#"{"id":"c","object":"chat.completion","created":1,"model":"m","system_fingerprint":"fp","#,
            r#""prompt_logprobs":[null,{"5":{"logprob":-1.5}}],"kv_transfer_params":null,"#,
            r#""choices":[{"index":0,"token_ids":[7,8],"message":{"role":"assistant","content":"hi","reasoning":"hm","#,
            r#""tool_calls":[]},"logprobs":{"content":[]},"finish_reason":"length"}],"#,
            r#""usage":{"prompt_tokens":5,"completion_tokens":2}}"#
        ))
        .unwrap();
        let [said, end] = deltas.as_slice() else {
            panic!("{deltas:?}")
        };
        assert_eq!(
            (said.text.as_ref(), said.tokens, said.finish_reason.as_ref()),
            ("hi", 2, None)
        );
        let extra = said.extra.as_deref().unwrap();
        assert_eq!(json(extra.delta.as_ref()), r#"{"reasoning":"hm"}"#);
        assert_eq!(json(extra.choice.as_ref()), r#"{"token_ids":[7,8]}"#);
        assert_eq!(extra.fingerprint.as_deref(), Some("fp"));
        assert_eq!(end.finish_reason.as_deref(), Some("length"));
        let rest = json(end.extra.as_deref().unwrap().chunk.as_ref());
        assert_eq!(
            rest,
            r#"{"prompt_logprobs":[null,{"5":{"logprob":-1.5}}],"kv_transfer_params":null}"#
        );
        assert_eq!((finish.prompt_tokens, finish.completion_tokens), (Some(3), Some(2)));
    }

    #[test]
    fn calls_are_numbered_and_several_choices_keep_their_own() {
        let (deltas, _) = read(concat!(
            r#"{"choices":[{"index":0,"message":{"content":null,"tool_calls":[{"id":"a"},{"id":"b"}]},"finish_reason":"tool_calls"},"#,
            r#"{"index":1,"text":"x","finish_reason":"stop"}]}"#
        ))
        .unwrap();
        let calls = json(deltas[0].extra.as_deref().unwrap().delta.as_ref());
        assert_eq!(calls, r#"{"tool_calls":[{"id":"a","index":0},{"id":"b","index":1}]}"#);
        assert_eq!(
            deltas.iter().map(|delta| delta.choice).collect::<Vec<_>>(),
            [0, 0, 1, 1]
        );
    }

    #[test]
    fn long_text_comes_in_pieces() {
        let text = "é".repeat(WHOLE_PIECE);
        let (deltas, _) = read(&format!(r#"{{"choices":[{{"message":{{"content":"{text}"}}}}]}}"#)).unwrap();
        assert!(deltas.len() > 2 && deltas.iter().all(|delta| delta.text.len() <= WHOLE_PIECE));
        assert_eq!(deltas.iter().map(|delta| delta.text.as_ref()).collect::<String>(), text);
    }

    #[test]
    fn no_answer_is_a_failure_and_one_given_up_is_lost() {
        let of = |text: &str| {
            let error = read(text).unwrap_err();
            (error.code, error.retryable)
        };
        assert_eq!(of(r#"{"error":{"message":"no","code":400}}"#).0, ErrorCode::BadRequest);
        assert_eq!(of(r#"{"choices":[]}"#), (ErrorCode::Internal, true));
        let aborted = r#"{"choices":[{"message":{"content":"x"},"finish_reason":"abort"}]}"#;
        assert_eq!(of(aborted), (ErrorCode::EngineUnavailable, true));
    }
}
