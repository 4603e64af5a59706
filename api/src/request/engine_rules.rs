//! What a request may make an engine do beside answering: be steered inside, and fetch media.
//!
//! The rules look at the request as the engine gets it, after every translation, so one list holds for all APIs.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{RequestError, without_position};

/// Members that reach into an engine: into other requests, its cache, its adapters, its scheduling, or its code. A name
/// with `*` at its end stands for all that begin so. Of vLLM, SGLang, llama.cpp's server and TGI.
const STEERING: [&str; 21] = [
    "adapter_id",
    "bootstrap_*",
    "chat_template",
    "custom_logit_processor",
    "custom_params",
    "data_parallel_rank",
    "disagg_*",
    "ec_transfer_params",
    "id_slot",
    "kv_transfer_params",
    "logits_processors",
    "lora*",
    "mm_processor_kwargs",
    "n_discard",
    "priority",
    "request_id",
    "rid",
    "routed_dp_rank",
    "session_params",
    "slot_id",
    "vllm_xargs",
];

/// Members whose value may be the address of media.
const MEDIA: [&str; 10] = [
    "image_url",
    "audio_url",
    "video_url",
    "file_url",
    "image",
    "audio",
    "video",
    "image_data",
    "audio_data",
    "video_data",
];

/// Members of a request in which no engine looks for media.
const WITHOUT_MEDIA: [&str; 9] = [
    "functions",
    "guided_json",
    "logit_bias",
    "metadata",
    "model",
    "response_format",
    "structured_outputs",
    "tool_choice",
    "tools",
];

/// Members that some engines merge into the request.
const MERGED: &str = "extra_body";

/// Media that a request may refer to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum MediaUrls {
    /// None.
    None,
    /// Those in the request itself.
    #[default]
    Data,
    /// These too: `HOST` or `HOST:PORT` over http or https, in small letters.
    Hosts(Vec<String>),
    /// Whatever the engine can fetch.
    Any,
}

/// The text does not say which media are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("media are written as none, data, any, or hosts as in images.example.org,cdn.example.org:8443")]
pub struct NoMediaUrls;

impl FromStr for MediaUrls {
    type Err = NoMediaUrls;

    fn from_str(text: &str) -> Result<Self, NoMediaUrls> {
        let of_a_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
        match text {
            "none" => Ok(Self::None),
            "data" => Ok(Self::Data),
            "any" => Ok(Self::Any),
            hosts => {
                let hosts: Vec<String> = hosts.split(',').map(|host| host.trim().to_ascii_lowercase()).collect();
                let right = |host: &String| !host.is_empty() && host.bytes().all(of_a_host);
                hosts.iter().all(right).then_some(Self::Hosts(hosts)).ok_or(NoMediaUrls)
            }
        }
    }
}

/// What requests may make engines do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EngineRules {
    /// Steering members that are allowed, by name; `*` for all.
    pub members: Vec<String>,
    /// Media that may be referred to.
    pub media: MediaUrls,
}

impl EngineRules {
    /// Checks the body that an engine will get. `trusted` is a client that may steer engines.
    ///
    /// # Errors
    /// [`RequestError`] names the member and the setting that would allow it.
    pub fn check(&self, body: &[u8], trusted: bool) -> Result<(), RequestError> {
        let rules = Rules {
            members: (!trusted && !self.members.iter().any(|name| name == "*")).then_some(&self.members),
            media: &self.media,
        };
        if rules.members.is_none() && self.media == MediaUrls::Any {
            return Ok(());
        }
        let mut refusal = None;
        let mut json = serde_json::Deserializer::from_slice(body);
        let request = Request {
            rules: &rules,
            refusal: &mut refusal,
        };
        let read = request.deserialize(&mut json);
        match (refusal, read) {
            (Some(refusal), _) => Err(refusal),
            (None, Ok(())) => Ok(()),
            // Such as a nesting too deep to look into.
            (None, Err(error)) => Err(RequestError::Syntax {
                message: without_position(&error),
                line: error.line(),
                column: error.column(),
            }),
        }
    }
}

/// The rules for one request.
struct Rules<'a> {
    /// Allowed steering members; `None` if all are.
    members: Option<&'a Vec<String>>,
    media: &'a MediaUrls,
}

impl Rules<'_> {
    fn forbids(&self, name: &str) -> bool {
        let is = |rule: &&str| {
            rule.strip_suffix('*')
                .map_or(*rule == name, |start| name.starts_with(start))
        };
        self.members
            .is_some_and(|allowed| STEERING.iter().any(is) && !allowed.iter().any(|one| one == name))
    }

    fn allows(&self, url: &str) -> bool {
        let is_data = url.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("data:"));
        // Some engines take bare base64; it has no `.`, and a path of its letters alone begins with `/`.
        let of_base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=-_".contains(&byte);
        let is_inline = is_data || (url.bytes().all(of_base64) && (!url.starts_with('/') || url.len() > MAX_PATH));
        match self.media {
            MediaUrls::None => false,
            MediaUrls::Data => is_inline,
            MediaUrls::Hosts(hosts) => is_inline || authority(url).is_some_and(|host| hosts.contains(&host)),
            MediaUrls::Any => true,
        }
    }
}

/// Longest path of a file, bytes (Linux).
const MAX_PATH: usize = 4096;

/// The host and port of an http(s) URL in small letters. `None` for whatever parsers could read in two ways.
fn authority(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return None;
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let host = rest.get(..end)?;
    let strange = url.bytes().any(|byte| byte <= b' ' || byte == b'\\' || byte >= 0x7f);
    (!strange && !host.contains(['@', '%'])).then(|| host.to_ascii_lowercase())
}

fn steering(name: &str) -> RequestError {
    RequestError::Field {
        param: Some(name.to_owned()),
        code: "engine_member_not_allowed",
        message: format!(
            "'{name}' steers the inside of an engine, which this gateway does not let its clients do. The operator can \
             allow it with --engine-member {name}, or to a key with engine-members = true"
        ),
    }
}

fn media(name: &str) -> RequestError {
    RequestError::Field {
        param: Some(name.to_owned()),
        code: "media_url_not_allowed",
        message: format!(
            "'{name}' refers to media that this gateway lets no engine fetch: send it as a data: URL. The operator \
             decides with --media-urls"
        ),
    }
}

/// Reads a name without copying it where it has no escapes.
struct NameSeed;

impl<'de> DeserializeSeed<'de> for NameSeed {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Cow<'de, str>, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Cow<'de, str>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }
            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Cow<'de, str>, E> {
                Ok(Cow::Borrowed(name))
            }
            fn visit_str<E>(self, name: &str) -> Result<Cow<'de, str>, E> {
                Ok(Cow::Owned(name.to_owned()))
            }
        }
        d.deserialize_str(V)
    }
}

/// The whole request.
struct Request<'a> {
    rules: &'a Rules<'a>,
    refusal: &'a mut Option<RequestError>,
}

impl<'de> DeserializeSeed<'de> for Request<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        d.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Request<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { rules, refusal } = self;
        while let Some(name) = map.next_key_seed(NameSeed)? {
            if rules.forbids(&name) {
                if map.next_value::<Option<IgnoredAny>>()?.is_some() {
                    *refusal = Some(steering(&name));
                    return Err(A::Error::custom("refused"));
                }
            } else if name == MERGED {
                map.next_value_seed(Request { rules, refusal })?;
            } else if WITHOUT_MEDIA.contains(&&*name) || *rules.media == MediaUrls::Any {
                map.next_value::<IgnoredAny>()?;
            } else {
                map.next_value_seed(Value::of(&name, rules, refusal))?;
            }
        }
        Ok(())
    }
}

/// A value in which media may be referred to.
struct Value<'a> {
    /// The member that it is the address of, if it is one.
    address_of: Option<&'a str>,
    rules: &'a Rules<'a>,
    refusal: &'a mut Option<RequestError>,
}

impl<'a> Value<'a> {
    fn of(name: &'a str, rules: &'a Rules<'a>, refusal: &'a mut Option<RequestError>) -> Self {
        Self {
            address_of: MEDIA.contains(&name).then_some(name),
            rules,
            refusal,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        d.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        match self.address_of {
            Some(name) if !self.rules.allows(text) => {
                *self.refusal = Some(media(name));
                Err(E::custom("refused"))
            }
            _ => Ok(()),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Self {
            address_of,
            rules,
            refusal,
        } = self;
        while seq
            .next_element_seed(Value {
                address_of,
                rules,
                refusal: &mut *refusal,
            })?
            .is_some()
        {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self {
            address_of,
            rules,
            refusal,
        } = self;
        while let Some(name) = map.next_key_seed(NameSeed)? {
            let mut value = Value::of(&name, rules, &mut *refusal);
            // {"image_url": {"url": …}}
            if name == "url" {
                value.address_of = address_of;
            }
            map.next_value_seed(value)?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "engine_rules_tests.rs"]
mod tests;
