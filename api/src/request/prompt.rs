//! The forms of a completion's prompt and of the input of embeddings.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};

/// A string, an array of strings, an array of token ids, or an array of such arrays. Only the number of prompts is
/// kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Prompt {
    /// The number of prompts; 0 for an empty array.
    pub(crate) count: usize,
    /// Whether it is a single string.
    pub(crate) is_text: bool,
}

const EXPECTED: &str = "a string, an array of strings, an array of token ids or an array of arrays of token ids";

/// One element of an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Element {
    Text,
    Id,
    Ids,
}

impl<'de> Deserialize<'de> for Prompt {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Prompt;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(EXPECTED)
            }
            fn visit_str<E>(self, _: &str) -> Result<Prompt, E> {
                Ok(Prompt {
                    count: 1,
                    is_text: true,
                })
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Prompt, A::Error> {
                let mut kind = None;
                let mut count = 0;
                while let Some(element) = seq.next_element::<Element>()? {
                    if *kind.get_or_insert(element) != element {
                        return Err(de::Error::custom(format_args!("{EXPECTED} is expected, not a mixture")));
                    }
                    count += 1;
                }
                Ok(Prompt {
                    // The ids of one array are one prompt.
                    count: if kind == Some(Element::Id) { 1 } else { count },
                    is_text: false,
                })
            }
        }
        d.deserialize_any(V)
    }
}

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Element;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a token id or an array of token ids")
            }
            fn visit_str<E>(self, _: &str) -> Result<Element, E> {
                Ok(Element::Text)
            }
            fn visit_u64<E>(self, _: u64) -> Result<Element, E> {
                Ok(Element::Id)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Element, A::Error> {
                let mut ids = 0;
                while seq.next_element::<u64>()?.is_some() {
                    ids += 1;
                }
                if ids == 0 {
                    return Err(de::Error::invalid_length(0, &"at least one token id"));
                }
                Ok(Element::Ids)
            }
        }
        d.deserialize_any(V)
    }
}
