//! The ids of responses and their items. An item's id contains its response's, so that the item can be found again.

use serde::Deserialize;
use serde_json::value::RawValue;

/// Prefix of the responses' ids.
pub const RESPONSE_ID_PREFIX: &str = "resp_";

/// The type of an item that refers to another.
pub(super) const REFERENCE: &str = "item_reference";

/// Length of a response's id without its prefix: a UUID in hexadecimal digits.
const SUFFIX: usize = 32;

/// The members of an item that say what it is.
#[derive(Deserialize)]
pub(super) struct ItemHead {
    #[serde(default)]
    pub(super) id: Option<String>,
    #[serde(default, rename = "type")]
    pub(super) kind: Option<String>,
    #[serde(default)]
    role: Option<serde::de::IgnoredAny>,
}

impl ItemHead {
    pub(super) fn read(raw: &RawValue) -> Option<Self> {
        serde_json::from_str(raw.get()).ok()
    }
}

/// The part of a response's id behind its prefix.
pub(super) fn suffix(response: &str) -> &str {
    response.strip_prefix(RESPONSE_ID_PREFIX).unwrap_or_default()
}

/// The id of the response that contains the item with the id `item`.
pub(super) fn response_of(item: &str) -> Option<String> {
    let (_, rest) = item.split_once('_')?;
    let suffix = rest.get(..SUFFIX)?;
    let hex = suffix.bytes().all(|byte| byte.is_ascii_hexdigit());
    hex.then(|| format!("{RESPONSE_ID_PREFIX}{suffix}"))
}

pub(super) fn id_of(item: &RawValue) -> Option<String> {
    ItemHead::read(item)?.id
}

/// The id to which `item` refers, if it is a reference. A reference may lack its type.
pub(super) fn reference(item: &RawValue) -> Option<String> {
    let head = ItemHead::read(item)?;
    match head.kind.as_deref() {
        Some(REFERENCE) => head.id,
        None if head.role.is_none() => head.id,
        _ => None,
    }
}
