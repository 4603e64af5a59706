//! Field types of a chat request: they check a shape and keep little or nothing of the value.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A text that is checked and not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Text;

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = Text;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_str<E>(self, _: &str) -> Result<Text, E> {
                Ok(Text)
            }
        }
        d.deserialize_str(V)
    }
}

/// A number that is checked and not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Number;

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = Number;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number")
            }
            fn visit_u64<E>(self, _: u64) -> Result<Number, E> {
                Ok(Number)
            }
            fn visit_i64<E>(self, _: i64) -> Result<Number, E> {
                Ok(Number)
            }
            fn visit_f64<E>(self, _: f64) -> Result<Number, E> {
                Ok(Number)
            }
        }
        d.deserialize_any(V)
    }
}

/// A whole number, written with or without a fraction of zero. Kept to the precision of an `f64`,
/// which is enough for comparing it with a bound.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Whole(pub(super) f64);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = Whole;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an integer")
            }
            #[allow(clippy::cast_precision_loss)]
            fn visit_u64<E>(self, value: u64) -> Result<Whole, E> {
                Ok(Whole(value as f64))
            }
            #[allow(clippy::cast_precision_loss)]
            fn visit_i64<E>(self, value: i64) -> Result<Whole, E> {
                Ok(Whole(value as f64))
            }
            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Whole, E> {
                if value.fract() == 0.0 {
                    Ok(Whole(value))
                } else {
                    Err(E::invalid_type(de::Unexpected::Float(value), &self))
                }
            }
        }
        d.deserialize_any(V)
    }
}

/// A string or an array of strings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Texts;

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Texts;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array of strings")
            }
            fn visit_str<E>(self, _: &str) -> Result<Texts, E> {
                Ok(Texts)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Texts, A::Error> {
                while seq.next_element::<Text>()?.is_some() {}
                Ok(Texts)
            }
        }
        d.deserialize_any(V)
    }
}

/// A string or an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TextOrObject;

impl<'de> Deserialize<'de> for TextOrObject {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = TextOrObject;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an object")
            }
            fn visit_str<E>(self, _: &str) -> Result<TextOrObject, E> {
                Ok(TextOrObject)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TextOrObject, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(TextOrObject)
            }
        }
        d.deserialize_any(V)
    }
}

/// `logit_bias`: an object, or the array of pairs that llama.cpp takes as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LogitBias;

impl<'de> Deserialize<'de> for LogitBias {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = LogitBias;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<LogitBias, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(LogitBias)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<LogitBias, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(LogitBias)
            }
        }
        d.deserialize_any(V)
    }
}

/// A message's role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Role {
    /// Its content may be null or absent: the message may consist of tool calls or a refusal.
    Assistant,
    /// The old form of `Tool`; its content may be null.
    Function,
    /// `system`, `developer`, `user` or `tool`.
    Other,
    /// None that the API has.
    Unknown(String),
}

impl<'de> Deserialize<'de> for Role {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = Role;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_str<E>(self, role: &str) -> Result<Role, E> {
                Ok(match role {
                    "assistant" => Role::Assistant,
                    "function" => Role::Function,
                    "system" | "developer" | "user" | "tool" => Role::Other,
                    other => Role::Unknown(other.chars().take(64).collect()),
                })
            }
        }
        d.deserialize_str(V)
    }
}

/// A message's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// A string, or an array of parts.
    Some(Option<PartProblem>),
    /// null.
    Null,
}

/// What is wrong with the first wrong part of a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PartProblem {
    /// The part's index.
    pub(super) part: usize,
    /// The member below it.
    pub(super) member: &'static str,
    /// What it must be.
    pub(super) expected: &'static str,
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
                Ok(Content::Some(None))
            }
            fn visit_unit<E>(self) -> Result<Content, E> {
                Ok(Content::Null)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Content, A::Error> {
                let mut problem = None;
                let mut part = 0;
                while let Some(found) = seq.next_element::<Part>()? {
                    problem = problem.or_else(|| {
                        found
                            .problem()
                            .map(|(member, expected)| PartProblem { part, member, expected })
                    });
                    part += 1;
                }
                Ok(Content::Some(problem))
            }
        }
        d.deserialize_any(V)
    }
}

/// A content part. Only types that every engine knows are looked into; others are the engine's
/// business.
#[derive(serde::Deserialize)]
#[serde(expecting = "a content part, which is an object with a type")]
struct Part {
    #[serde(rename = "type", default)]
    kind: Option<PartKind>,
    #[serde(default)]
    text: Shape,
    #[serde(default)]
    image_url: Shape,
}

impl Part {
    fn problem(&self) -> Option<(&'static str, &'static str)> {
        match self.kind {
            None => Some(("type", "a string")),
            Some(PartKind::Text) if self.text != Shape::Text => Some(("text", "a string")),
            // vLLM takes the URL without an object around it as well.
            Some(PartKind::ImageUrl) => match self.image_url {
                Shape::Text | Shape::ObjectWithUrl => None,
                Shape::Object => Some(("image_url.url", "a string")),
                Shape::Absent | Shape::Other => Some(("image_url", "an object with a string 'url'")),
            },
            Some(PartKind::Text | PartKind::Other) => None,
        }
    }
}

enum PartKind {
    Text,
    ImageUrl,
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
                    _ => PartKind::Other,
                })
            }
        }
        d.deserialize_str(V)
    }
}

/// What kind of value a member has; anything is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Shape {
    #[default]
    Absent,
    Text,
    Object,
    ObjectWithUrl,
    Other,
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Shape;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }
            fn visit_bool<E>(self, _: bool) -> Result<Shape, E> {
                Ok(Shape::Other)
            }
            fn visit_u64<E>(self, _: u64) -> Result<Shape, E> {
                Ok(Shape::Other)
            }
            fn visit_i64<E>(self, _: i64) -> Result<Shape, E> {
                Ok(Shape::Other)
            }
            fn visit_f64<E>(self, _: f64) -> Result<Shape, E> {
                Ok(Shape::Other)
            }
            fn visit_unit<E>(self) -> Result<Shape, E> {
                Ok(Shape::Other)
            }
            fn visit_str<E>(self, _: &str) -> Result<Shape, E> {
                Ok(Shape::Text)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Shape, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Shape::Other)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Shape, A::Error> {
                let mut shape = Shape::Object;
                while let Some(key) = map.next_key::<String>()? {
                    if key == "url" && map.next_value::<Shape>()? == Shape::Text {
                        shape = Shape::ObjectWithUrl;
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

/// An array that is counted and whose elements are checked to be objects with a string `type`, as
/// `tools` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TypedObjects(pub(super) usize);

#[derive(serde::Deserialize)]
#[serde(expecting = "an object with a type")]
struct TypedObject {
    #[serde(rename = "type")]
    _kind: Text,
}

impl<'de> Deserialize<'de> for TypedObjects {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = TypedObjects;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of objects")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<TypedObjects, A::Error> {
                let mut count = 0;
                while seq.next_element::<TypedObject>()?.is_some() {
                    count += 1;
                }
                Ok(TypedObjects(count))
            }
        }
        d.deserialize_seq(V)
    }
}
