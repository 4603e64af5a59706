//! Checks a message's content, and notes the media in it.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use tokenbus_protocol::{Feature, Features};

/// A message's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// A string.
    Text,
    /// An array of parts.
    Parts {
        /// What is wrong with the first wrong part.
        problem: Option<PartProblem>,
        /// What the engine must be able to do.
        needs: Features,
    },
    /// null.
    Null,
}

impl Content {
    /// What the engine must be able to do.
    pub(crate) fn needs(&self) -> Features {
        match self {
            Self::Parts { needs, .. } => *needs,
            Self::Text | Self::Null => Features::NONE,
        }
    }
}

/// What is wrong with a content part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PartProblem {
    /// The part's index.
    pub(crate) part: usize,
    /// The part's member.
    pub(crate) member: &'static str,
    /// What the member must be.
    pub(crate) expected: &'static str,
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Content;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, an array of content parts or null")
            }
            fn visit_str<E>(self, _: &str) -> Result<Content, E> {
                Ok(Content::Text)
            }
            fn visit_unit<E>(self) -> Result<Content, E> {
                Ok(Content::Null)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Content, A::Error> {
                let mut problem = None;
                let mut needs = Features::NONE;
                let mut part = 0;
                while let Some(found) = seq.next_element::<Part>()? {
                    needs = needs.or(found.needs());
                    problem = problem.or_else(|| {
                        found
                            .problem()
                            .map(|(member, expected)| PartProblem { part, member, expected })
                    });
                    part += 1;
                }
                Ok(Content::Parts { problem, needs })
            }
        }
        d.deserialize_any(V)
    }
}

/// A content part. Types that not every engine knows are left to the engine.
#[derive(serde::Deserialize)]
#[serde(expecting = "a content part, which is an object with a type")]
struct Part {
    #[serde(rename = "type", default)]
    kind: Option<PartKind>,
    #[serde(default)]
    text: ValueType,
    #[serde(default)]
    image_url: ValueType,
}

impl Part {
    fn needs(&self) -> Features {
        match self.kind {
            Some(PartKind::ImageUrl | PartKind::Image) => Feature::Vision.into(),
            Some(PartKind::Audio) => Feature::Audio.into(),
            Some(PartKind::Text | PartKind::Other) | None => Features::NONE,
        }
    }

    fn problem(&self) -> Option<(&'static str, &'static str)> {
        match self.kind {
            None => Some(("type", "a string")),
            Some(PartKind::Text) if self.text != ValueType::Text => Some(("text", "a string")),
            // vLLM also accepts the URL without an object around it.
            Some(PartKind::ImageUrl) => match self.image_url {
                ValueType::Text | ValueType::ObjectWithUrl => None,
                ValueType::Object => Some(("image_url.url", "a string")),
                ValueType::Absent | ValueType::Other => Some(("image_url", "an object with a string 'url'")),
            },
            Some(PartKind::Text | PartKind::Image | PartKind::Audio | PartKind::Other) => None,
        }
    }
}

enum PartKind {
    Text,
    ImageUrl,
    /// An image in a form that only some engines accept.
    Image,
    /// Audio, in OpenAI's form or in vLLM's.
    Audio,
    Other,
}

impl<'de> Deserialize<'de> for PartKind {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = PartKind;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_str<E>(self, kind: &str) -> Result<PartKind, E> {
                Ok(match kind {
                    "text" => PartKind::Text,
                    "image_url" => PartKind::ImageUrl,
                    "image" | "input_image" | "image_pil" | "image_embeds" => PartKind::Image,
                    "input_audio" | "audio_url" | "audio" => PartKind::Audio,
                    _ => PartKind::Other,
                })
            }
        }
        d.deserialize_str(V)
    }
}

/// The type of a member's value; every value is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum ValueType {
    #[default]
    Absent,
    Text,
    Object,
    ObjectWithUrl,
    Other,
}

impl<'de> Deserialize<'de> for ValueType {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = ValueType;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }
            fn visit_bool<E>(self, _: bool) -> Result<ValueType, E> {
                Ok(ValueType::Other)
            }
            fn visit_u64<E>(self, _: u64) -> Result<ValueType, E> {
                Ok(ValueType::Other)
            }
            fn visit_i64<E>(self, _: i64) -> Result<ValueType, E> {
                Ok(ValueType::Other)
            }
            fn visit_f64<E>(self, _: f64) -> Result<ValueType, E> {
                Ok(ValueType::Other)
            }
            fn visit_unit<E>(self) -> Result<ValueType, E> {
                Ok(ValueType::Other)
            }
            fn visit_str<E>(self, _: &str) -> Result<ValueType, E> {
                Ok(ValueType::Text)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<ValueType, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(ValueType::Other)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ValueType, A::Error> {
                let mut shape = ValueType::Object;
                while let Some(key) = map.next_key::<String>()? {
                    if key == "url" && map.next_value::<ValueType>()? == ValueType::Text {
                        shape = ValueType::ObjectWithUrl;
                    } else if key != "url" {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(shape)
            }
        }
        d.deserialize_any(V)
    }
}
