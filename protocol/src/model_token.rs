//! A model id as one subject token, and back.
//!
//! Every byte outside `A–Z a–z 0–9 - _` becomes `=` and two upper-case hex digits: `qwen2.5:0.5b` becomes
//! `qwen2=2E5=3A0=2E5b`. Every model id has a legal token, also with slashes, colons, dots, spaces, `*`, `>` or
//! Unicode, and the token decodes to the same id.

use std::fmt::Write as _;

/// Why a subject token is not a model id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ModelTokenError {
    /// A byte that should have been escaped.
    #[error("byte 0x{0:02X} cannot stand in a model token")]
    Byte(u8),
    /// `=` without two upper-case hex digits, or an escape for a byte that needs none.
    #[error("broken escape at byte {0} of a model token")]
    Escape(usize),
    /// The bytes are not UTF-8.
    #[error("a model token does not hold UTF-8")]
    Utf8,
}

fn is_plain(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'-' || b == b'_'
}

/// The subject token of `model`. An empty id gives an empty token, which is illegal in a subject: the API refuses
/// empty model names before.
pub fn encode_model(model: &str) -> String {
    let mut token = String::with_capacity(model.len() + 8);
    for b in model.bytes() {
        if is_plain(b) {
            token.push(char::from(b));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(token, "={b:02X}");
        }
    }
    token
}

/// The model id of `token`.
///
/// # Errors
/// [`ModelTokenError`] for any token that [`encode_model`] does not produce, so that each model has exactly one
/// token.
pub(crate) fn decode_model(token: &str) -> Result<String, ModelTokenError> {
    let mut bytes = Vec::with_capacity(token.len());
    let mut rest = token.as_bytes();
    let mut at = 0;
    while let Some((&b, tail)) = rest.split_first() {
        if is_plain(b) {
            bytes.push(b);
            rest = tail;
            at += 1;
            continue;
        }
        if b != b'=' {
            return Err(ModelTokenError::Byte(b));
        }
        let (value, tail) = escape(tail).ok_or(ModelTokenError::Escape(at))?;
        bytes.push(value);
        rest = tail;
        at += 3;
    }
    String::from_utf8(bytes).map_err(|_| ModelTokenError::Utf8)
}

fn escape(tail: &[u8]) -> Option<(u8, &[u8])> {
    let (&[high, low], tail) = tail.split_first_chunk::<2>()?;
    let digit = |d: u8| match d {
        b'0'..=b'9' => Some(d - b'0'),
        b'A'..=b'F' => Some(d - b'A' + 10),
        _ => None,
    };
    let value = digit(high)? * 16 + digit(low)?;
    (!is_plain(value)).then_some((value, tail))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_example_of_the_design() {
        assert_eq!(encode_model("qwen2.5:0.5b"), "qwen2=2E5=3A0=2E5b");
        assert_eq!(
            encode_model("meta-llama/Llama 3>*é"),
            "meta-llama=2FLlama=203=3E=2A=C3=A9"
        );
    }

    #[test]
    fn only_what_encode_makes_is_decoded() {
        assert_eq!(decode_model("a.b"), Err(ModelTokenError::Byte(b'.')));
        assert_eq!(decode_model("a=2"), Err(ModelTokenError::Escape(1)));
        assert_eq!(decode_model("a=2e"), Err(ModelTokenError::Escape(1)), "lower-case hex");
        assert_eq!(decode_model("=41"), Err(ModelTokenError::Escape(0)), "an escaped 'A'");
        assert_eq!(decode_model("=FF"), Err(ModelTokenError::Utf8));
    }

    proptest! {
        #[test]
        fn every_model_id_comes_back(model in "\\PC*") {
            let token = encode_model(&model);
            prop_assert!(token.bytes().all(|b| is_plain(b) || b == b'='));
            prop_assert_eq!(decode_model(&token), Ok(model));
        }

        #[test]
        fn any_token_decodes_or_is_refused_and_a_decoded_one_is_canonical(token in "[A-Za-z0-9=_.-]{0,24}") {
            if let Ok(model) = decode_model(&token) {
                prop_assert_eq!(encode_model(&model), token);
            }
        }
    }
}
