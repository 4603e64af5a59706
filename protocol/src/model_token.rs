//! A model id as one subject token, and back.
//!
//! Every byte outside `A–Z a–z 0–9 - _` becomes `=` and two upper-case hex digits, so that
//! `qwen2.5:0.5b` is `qwen2=2E5=3A0=2E5b`. The encoding is total and reversible: model ids with
//! slashes, colons, dots, spaces, `*`, `>` or Unicode all make a legal token.

use std::fmt::Write as _;

/// Why a subject token is no model id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelTokenError {
    /// A byte that the encoding never leaves as it is.
    #[error("byte 0x{0:02X} cannot stand in a model token")]
    Byte(u8),
    /// `=` without two upper-case hex digits behind it, or an escape for a byte that needs none.
    #[error("broken escape at byte {0} of a model token")]
    Escape(usize),
    /// The bytes are no UTF-8.
    #[error("a model token does not hold UTF-8")]
    Utf8,
}

fn is_plain(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'-' || b == b'_'
}

/// The subject token of `model`. An empty id gives an empty token, which no subject allows: the
/// API refuses an empty model name before it comes here.
pub fn encode(model: &str) -> String {
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

/// The model id that `token` stands for.
///
/// # Errors
/// [`ModelTokenError`] for anything that [`encode`] does not produce, so that a model has exactly
/// one token.
pub fn decode(token: &str) -> Result<String, ModelTokenError> {
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
        assert_eq!(encode("qwen2.5:0.5b"), "qwen2=2E5=3A0=2E5b");
        assert_eq!(encode("meta-llama/Llama 3>*é"), "meta-llama=2FLlama=203=3E=2A=C3=A9");
    }

    #[test]
    fn only_what_encode_makes_is_decoded() {
        assert_eq!(decode("a.b"), Err(ModelTokenError::Byte(b'.')));
        assert_eq!(decode("a=2"), Err(ModelTokenError::Escape(1)));
        assert_eq!(decode("a=2e"), Err(ModelTokenError::Escape(1)), "lower-case hex");
        assert_eq!(decode("=41"), Err(ModelTokenError::Escape(0)), "an escaped 'A'");
        assert_eq!(decode("=FF"), Err(ModelTokenError::Utf8));
    }

    proptest! {
        #[test]
        fn every_model_id_comes_back(model in "\\PC*") {
            let token = encode(&model);
            prop_assert!(token.bytes().all(|b| is_plain(b) || b == b'='));
            prop_assert_eq!(decode(&token), Ok(model));
        }

        #[test]
        fn any_token_decodes_or_is_refused_and_a_decoded_one_is_canonical(token in "[A-Za-z0-9=_.-]{0,24}") {
            if let Ok(model) = decode(&token) {
                prop_assert_eq!(encode(&model), token);
            }
        }
    }
}
