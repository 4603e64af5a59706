//! What the wire types share. The macros define enums that accept variants of a newer peer.

/// Whether a field has its default value and need not be sent.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Defines a fieldless enum that is encoded as the given text. Any other text decodes as `$other`.
macro_rules! wire_enum {
    ($(#[$meta:meta])* $name:ident, other = $other:ident, { $($(#[$vmeta:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vmeta])* $variant),+ }

        impl $name {
            /// Its text on the wire, in logs and in metrics.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// Every value.
            pub const ALL: &[Self] = &[$(Self::$variant),+];
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
                Ok(match text.as_ref() { $($text => Self::$variant,)+ _ => Self::$other })
            }
        }
    };
}

pub(crate) use wire_enum;

/// Defines an enum of newtype variants that is encoded as a map of one entry, `{tag: value}`. A tag that this
/// version does not know decodes as `Unknown`, so that the rest of a newer peer's message stays readable.
macro_rules! wire_union {
    ($(#[$meta:meta])* $name:ident $(<$lt:lifetime>)?, { $($(#[$vmeta:meta])* $variant:ident($inner:ty) = $tag:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        pub enum $name $(<$lt>)? {
            $($(#[$vmeta])* $variant($inner),)+
            /// A variant that only a newer version knows. Never sent.
            Unknown,
        }

        impl $(<$lt>)? serde::Serialize for $name $(<$lt>)? {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                use serde::ser::SerializeMap as _;
                let mut map = s.serialize_map(Some(1))?;
                match self {
                    $(Self::$variant(value) => map.serialize_entry($tag, value)?,)+
                    Self::Unknown => return Err(serde::ser::Error::custom("an unknown variant is never sent")),
                }
                map.end()
            }
        }

        impl<'de $(: $lt, $lt)?> serde::Deserialize<'de> for $name $(<$lt>)? {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                struct Tagged<T>(std::marker::PhantomData<T>);
                impl<'de $(: $lt, $lt)?> serde::de::Visitor<'de> for Tagged<$name $(<$lt>)?> {
                    type Value = $name $(<$lt>)?;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str(concat!("a map of one entry for ", stringify!($name)))
                    }
                    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                        let value = match map.next_key::<&str>()? {
                            $(Some($tag) => $name::$variant(map.next_value()?),)+
                            Some(_) => {
                                map.next_value::<serde::de::IgnoredAny>()?;
                                $name::Unknown
                            }
                            None => $name::Unknown,
                        };
                        while map.next_entry::<serde::de::IgnoredAny, serde::de::IgnoredAny>()?.is_some() {}
                        Ok(value)
                    }
                }
                d.deserialize_map(Tagged(std::marker::PhantomData))
            }
        }
    };
}

pub(crate) use wire_union;
