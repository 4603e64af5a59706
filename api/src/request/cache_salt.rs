//! Keeps the prompts of tenants apart in an engine's prefix cache.

use bytes::Bytes;
use tokenbus_protocol::{ADDED_MEMBERS, RawJsonError, RawObject};

use super::RequestError;

/// The member by which engines keep cached prefixes apart.
const MEMBER: &str = "cache_salt";

/// `body`, the object that an engine will get, with `salt` in place of the client's. It is marked as added: an engine that
/// does not know the member is asked without.
///
/// # Errors
/// [`RequestError`] when `body` is no object, although it was checked to be one.
pub fn with_cache_salt(body: &[u8], salt: &str) -> Result<Bytes, RequestError> {
    let unwritable = |error: RawJsonError| RequestError::Field {
        param: None,
        code: "invalid_value",
        message: format!("Your request cannot be passed on: {error}"),
    };
    let mut object = RawObject::parse(body).map_err(unwritable)?;
    let listed = object.get(ADDED_MEMBERS).map(|raw| serde_json::from_str(raw.get()));
    let mut added: Vec<String> = listed.and_then(Result::ok).unwrap_or_default();
    added.push(MEMBER.to_owned());
    object.set(MEMBER, salt).map_err(unwritable)?;
    object.set(ADDED_MEMBERS, &added).map_err(unwritable)?;
    let json = object.to_json().map_err(unwritable)?;
    Ok(Bytes::from(json.get().to_owned()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_salt_takes_the_place_of_the_clients_and_is_marked_as_added() {
        for (body, salted) in [
            (
                r#"{"model":"m","n":1.0}"#,
                r#"{"model":"m","n":1.0,"cache_salt":"s","tokenbus_added":["cache_salt"]}"#,
            ),
            (
                r#"{"cache_salt":"mine","tokenbus_added":["reasoning_effort"]}"#,
                r#"{"cache_salt":"s","tokenbus_added":["reasoning_effort","cache_salt"]}"#,
            ),
            (
                r#"{"tokenbus_added":7}"#,
                r#"{"tokenbus_added":["cache_salt"],"cache_salt":"s"}"#,
            ),
        ] {
            assert_eq!(with_cache_salt(body.as_bytes(), "s").unwrap(), salted);
        }
        assert!(with_cache_salt(b"[]", "s").is_err());
    }
}
