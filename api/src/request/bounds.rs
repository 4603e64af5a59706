//! Bounds what a check has to hold: the members and elements of a body, counted before any of them is kept.

use memchr::{memchr2, memchr3};

use super::RequestError;
use crate::limits::MAX_VALUES;

/// How many members and elements a JSON text has, about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Count {
    /// Colons outside of texts.
    members: usize,
    /// Commas outside of texts.
    commas: usize,
}

fn count(json: &[u8]) -> Count {
    let mut count = Count::default();
    let mut rest = json;
    while let Some(at) = memchr3(b'"', b',', b':', rest) {
        let (found, behind) = rest.split_at(at).1.split_first().unwrap_or((&0, &[]));
        rest = behind;
        match found {
            b',' => count.commas += 1,
            b':' => count.members += 1,
            _ => rest = behind_text(rest),
        }
    }
    count
}

/// What stands behind the text that has begun.
fn behind_text(mut rest: &[u8]) -> &[u8] {
    while let Some(at) = memchr2(b'"', b'\\', rest) {
        let is_end = rest.get(at) == Some(&b'"');
        // An escaped byte is skipped.
        rest = rest.get(at + if is_end { 1 } else { 2 }..).unwrap_or_default();
        if is_end {
            return rest;
        }
    }
    &[]
}

fn too_many(what: &str) -> RequestError {
    RequestError::Field {
        param: None,
        code: "request_too_complex",
        message: format!("The body of your request has more than {MAX_VALUES} {what}"),
    }
}

/// Refuses a body with too many members. Elements are free: a prompt may be a million token ids, of which no check keeps
/// any.
///
/// # Errors
/// [`RequestError`] says so.
pub(super) fn bound_members(json: &[u8]) -> Result<(), RequestError> {
    if count(json).members > MAX_VALUES {
        return Err(too_many("members"));
    }
    Ok(())
}

/// Refuses a body with too many members and elements, for a check that keeps them all.
///
/// # Errors
/// [`RequestError`] says so.
pub(crate) fn bound_values(json: &[u8]) -> Result<(), RequestError> {
    let count = count(json);
    if count.members + count.commas > MAX_VALUES {
        return Err(too_many("members and elements"));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_texts_does_not_count() {
        let counted = |json: &str| {
            let count = count(json.as_bytes());
            (count.members, count.commas)
        };
        assert_eq!(counted(""), (0, 0));
        assert_eq!(counted(r#"{"a":[1,2,{"b":null}],"c:,":"x,:\",:\\"}"#), (3, 3));
        // What is no JSON is counted somehow, and refused later.
        assert_eq!(counted(r#"{"a":"x,:\"#), (1, 0));
        assert_eq!(counted(r#"":,"#), (0, 0));
    }

    #[test]
    fn bodies_are_bounded() {
        let elements = format!("[{}0]", "0,".repeat(MAX_VALUES + 1));
        assert!(bound_members(elements.as_bytes()).is_ok() && bound_values(elements.as_bytes()).is_err());
        let members = format!("{{{}\"z\":0}}", "\"a\":0,".repeat(MAX_VALUES + 1));
        assert!(bound_members(members.as_bytes()).is_err() && bound_values(b"{}").is_ok());
    }
}
