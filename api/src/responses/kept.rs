//! A response that is kept, so that clients can read it again and continue its conversation.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::ids::{id_of, suffix};
use super::kept_items::completed;
use crate::answer::{Identity, json};

/// Responses that were looked up, by their ids.
pub type KnownResponses = HashMap<String, KeptResponse>;

/// The items of a response by their ids.
pub(super) type ItemIndex = HashMap<String, Box<RawValue>>;

/// A response, and all items of its conversation before it. A conversation can continue from it even when the earlier
/// responses are gone.
#[derive(Debug, Serialize, Deserialize)]
pub struct KeptResponse {
    response: Box<RawValue>,
    items: Vec<Box<RawValue>>,
}

/// Why bytes are no kept response.
#[derive(Debug, thiserror::Error)]
#[error("no kept response: {0}")]
pub struct KeptError(#[from] serde_json::Error);

/// Which of the items a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemPage {
    /// Whether the oldest item comes first.
    pub ascending: bool,
    /// The most items on the page.
    pub limit: usize,
    /// The page begins behind the item with this id.
    pub after: Option<String>,
}

/// A page of items as OpenAI lists them.
#[derive(Serialize)]
struct ItemList<'a> {
    object: &'static str,
    data: Vec<&'a RawValue>,
    first_id: String,
    last_id: String,
    has_more: bool,
}

impl KeptResponse {
    /// Keeps the finished `response`, JSON, which answered `items` as `identity`.
    ///
    /// # Errors
    /// [`KeptError`] when `response` is no JSON.
    pub fn new(response: &[u8], items: Vec<Box<RawValue>>, identity: &Identity) -> Result<Self, KeptError> {
        let suffix = suffix(&identity.id);
        let items = items.into_iter().enumerate();
        Ok(Self {
            response: serde_json::from_slice(response)?,
            items: items.map(|(n, raw)| completed(raw, suffix, n)).collect(),
        })
    }

    /// Reads what [`KeptResponse::encode`] wrote.
    ///
    /// # Errors
    /// [`KeptError`] when the bytes are no kept response.
    pub fn decode(bytes: &[u8]) -> Result<Self, KeptError> {
        Ok(serde_json::from_slice(bytes)?)
    }

    /// Writes it as bytes.
    ///
    /// # Errors
    /// [`KeptError`]; never for values that were read from JSON.
    pub fn encode(&self) -> Result<Bytes, KeptError> {
        Ok(serde_json::to_vec(self)?.into())
    }

    /// Its approximate size.
    pub fn bytes(&self) -> usize {
        let items = self.items.iter().map(|item| item.get().len());
        self.response.get().len() + items.sum::<usize>()
    }

    /// The response object, JSON.
    pub fn response(&self) -> &str {
        self.response.get()
    }

    /// All items up to the end of the response, where the next request continues.
    pub(super) fn conversation(&self) -> Vec<Box<RawValue>> {
        self.items.iter().cloned().chain(self.output()).collect()
    }

    /// Its items by their ids; one of the output counts before one of the input.
    pub(super) fn index(&self) -> ItemIndex {
        let all = self.items.iter().rev().cloned().chain(self.output().into_iter().rev());
        all.filter_map(|raw| Some((id_of(&raw)?, raw))).collect()
    }

    fn output(&self) -> Vec<Box<RawValue>> {
        #[derive(Deserialize)]
        struct Response {
            output: Vec<Box<RawValue>>,
        }
        let response = serde_json::from_str::<Response>(self.response.get());
        response.map_or_else(|_| Vec::new(), |response| response.output)
    }

    /// A page of the items that the response answered, as a list object, JSON.
    pub fn page(&self, page: &ItemPage) -> Bytes {
        let mut items: Vec<&RawValue> = self.items.iter().map(AsRef::as_ref).collect();
        if !page.ascending {
            items.reverse();
        }
        if let Some(after) = &page.after {
            let at = items
                .iter()
                .position(|raw| id_of(raw).as_deref() == Some(after.as_str()));
            items = items.split_off(at.map_or(items.len(), |at| at + 1));
        }
        let has_more = items.len() > page.limit;
        items.truncate(page.limit);
        let id = |raw: Option<&&RawValue>| raw.and_then(|raw| id_of(raw)).unwrap_or_default();
        let list = ItemList {
            object: "list",
            first_id: id(items.first()),
            last_id: id(items.last()),
            has_more,
            data: items,
        };
        let mut out = BytesMut::new();
        json::push(&mut out, &list);
        out.freeze()
    }
}
