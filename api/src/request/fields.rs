//! Field types of requests. They check a value's type and keep little or nothing of it.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A string that is checked and not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Text;

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
pub(crate) struct Number;

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

/// An integer, possibly written with a fraction of zero. An `f64` is precise enough to compare it with a bound.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Integer(pub(crate) f64);

impl<'de> Deserialize<'de> for Integer {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = Integer;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an integer")
            }
            #[allow(clippy::cast_precision_loss)]
            fn visit_u64<E>(self, value: u64) -> Result<Integer, E> {
                Ok(Integer(value as f64))
            }
            #[allow(clippy::cast_precision_loss)]
            fn visit_i64<E>(self, value: i64) -> Result<Integer, E> {
                Ok(Integer(value as f64))
            }
            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Integer, E> {
                if value.fract() == 0.0 {
                    Ok(Integer(value))
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
pub(crate) struct Texts;

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
pub(crate) enum TextOrObject {
    /// The string `none`, which forbids tools where it stands for the choice among them.
    None,
    /// Another string.
    Text,
    /// An object.
    Object,
}

impl<'de> Deserialize<'de> for TextOrObject {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = TextOrObject;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an object")
            }
            fn visit_str<E>(self, text: &str) -> Result<TextOrObject, E> {
                Ok(if text == "none" {
                    TextOrObject::None
                } else {
                    TextOrObject::Text
                })
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TextOrObject, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(TextOrObject::Object)
            }
        }
        d.deserialize_any(V)
    }
}

/// `logit_bias`: an object, or the array of pairs that llama.cpp also accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogitBias;

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

/// A number or a boolean, which asks for log probabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NumberOrBool {
    /// `false`.
    False,
    /// `true`, or any number.
    Asked,
}

impl<'de> Deserialize<'de> for NumberOrBool {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = NumberOrBool;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an integer")
            }
            fn visit_bool<E>(self, asked: bool) -> Result<NumberOrBool, E> {
                Ok(if asked {
                    NumberOrBool::Asked
                } else {
                    NumberOrBool::False
                })
            }
            fn visit_u64<E>(self, _: u64) -> Result<NumberOrBool, E> {
                Ok(NumberOrBool::Asked)
            }
            // vLLM takes -1 for all tokens that there are.
            fn visit_i64<E>(self, _: i64) -> Result<NumberOrBool, E> {
                Ok(NumberOrBool::Asked)
            }
        }
        d.deserialize_any(V)
    }
}

/// `stream_options`.
#[derive(serde::Deserialize)]
#[serde(expecting = "an object")]
pub(crate) struct StreamOptions {
    include_usage: Option<bool>,
}

impl StreamOptions {
    pub(crate) fn include_usage(&self) -> bool {
        self.include_usage.unwrap_or(false)
    }
}

/// `response_format`.
#[derive(serde::Deserialize)]
#[serde(expecting = "an object with a type")]
pub(crate) struct ResponseFormat {
    r#type: String,
}

impl ResponseFormat {
    pub(crate) fn is_text(&self) -> bool {
        self.r#type == "text"
    }

    pub(crate) fn is_schema(&self) -> bool {
        self.r#type == "json_schema"
    }
}

/// The length of an array like `tools`, whose elements are objects with a string `type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TypedObjects(pub(crate) usize);

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
