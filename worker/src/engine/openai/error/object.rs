//! Error objects, in whichever of the forms in use.

use serde::Deserialize;
use serde_json::Value;

/// What an error object says, in whichever of the forms in use.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) message: Option<String>,
    pub(super) kind: Option<String>,
    pub(super) param: Option<String>,
    pub(super) code: Option<String>,
    pub(super) status: Option<u16>,
}

impl Said {
    /// What `json` says; `None` where it is no object.
    pub(super) fn parse(json: &[u8]) -> Option<Self> {
        ErrorObject::parse(json).map(read)
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ErrorObject {
    message: Option<Value>,
    #[serde(rename = "type")]
    kind: Option<Value>,
    param: Option<Value>,
    code: Option<Value>,
    /// Where others than OpenAI put the status.
    status: Option<Value>,
    #[serde(alias = "statusCode", alias = "error_code")]
    status_code: Option<Value>,
    /// FastAPI's own errors.
    detail: Option<Value>,
    error: Option<Value>,
    /// Cloudflare's: a list of objects.
    errors: Option<Value>,
    /// What Baidu, Zhipu and others call the message.
    #[serde(alias = "error_msg", alias = "error_message", alias = "errorMessage")]
    msg: Option<Value>,
}

impl ErrorObject {
    /// Reads an object, or the first of a list (Gemini's streams).
    fn parse(json: &[u8]) -> Option<Self> {
        let value = match serde_json::from_slice(json).ok()? {
            Value::Array(list) => list.into_iter().next()?,
            value => value,
        };
        value.is_object().then(|| serde_json::from_value(value).ok()).flatten()
    }

    /// Whether it tells of an error. `message` alone is a member that any object may have.
    fn is_error(&self) -> bool {
        let is_there = |value: &Option<Value>| value.as_ref().is_some_and(|value| !value.is_null());
        // A list of no errors and a code for success are none.
        let has_some = |value: &Option<Value>| is_there(value) && *value != Some(Value::Array(Vec::new()));
        let fails = |value: &Option<Value>| {
            let good = [Value::from(0), Value::from(200), Value::from("0"), Value::from("200")];
            value
                .as_ref()
                .is_some_and(|value| !value.is_null() && !good.contains(value))
        };
        let says = (is_there(&self.message) || is_there(&self.msg))
            && [&self.kind, &self.code, &self.status, &self.status_code]
                .into_iter()
                .any(fails);
        is_there(&self.error) || has_some(&self.errors) || is_there(&self.detail) || says
    }
}

/// Whether `json`, an event that has neither choices nor a usage, tells of an error.
pub(crate) fn is_error_object(json: &str) -> bool {
    ErrorObject::parse(json.as_bytes()).is_some_and(|object| object.is_error())
}

fn read(object: ErrorObject) -> Said {
    let first = match object.errors {
        Some(Value::Array(list)) => list.into_iter().next(),
        _ => None,
    };
    match object.error.or(first) {
        Some(Value::String(message)) => {
            return Said {
                message: Some(message),
                ..Said::default()
            };
        }
        Some(inner @ Value::Object(_)) => {
            if let Ok(inner) = serde_json::from_value::<ErrorObject>(inner) {
                // Some put the status beside the error.
                return read(ErrorObject {
                    error: None,
                    errors: None,
                    status: inner.status.or(object.status),
                    status_code: inner.status_code.or(object.status_code),
                    code: inner.code.or(object.code),
                    ..inner
                });
            }
        }
        _ => {}
    }
    let text = |value: Option<Value>| match value {
        Some(Value::String(text)) if !text.is_empty() => Some(text),
        _ => None,
    };
    let status = [&object.code, &object.status, &object.status_code]
        .into_iter()
        .find_map(|said| {
            let status = match said.as_ref()? {
                Value::Number(number) => number.as_u64().and_then(|n| u16::try_from(n).ok()),
                Value::String(text) => text.parse().ok(),
                _ => None,
            };
            status.filter(|status| (400..=599).contains(status))
        });
    // Google's: a number as the code, a name as the status.
    let code = [object.code, object.status]
        .into_iter()
        .find_map(|said| text(said).filter(|name| name.parse::<u32>().is_err()));
    let (detail, detail_param) = object.detail.map(read_detail).unwrap_or_default();
    Said {
        message: text(object.message).or(text(object.msg)).or(detail),
        kind: text(object.kind),
        param: text(object.param).or(detail_param),
        code,
        status,
    }
}

/// FastAPI: a text, or `[{"loc": ["body", "messages", 0], "msg": "…"}]`.
fn read_detail(detail: Value) -> (Option<String>, Option<String>) {
    let first = match detail {
        Value::String(text) => return (Some(text), None),
        Value::Array(list) => list.into_iter().next(),
        other => Some(other),
    };
    let first = first.unwrap_or_default();
    let message = first.get("msg").and_then(Value::as_str).map(str::to_owned);
    let path: Vec<String> = first
        .get("loc")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
        .iter()
        .filter(|part| part.as_str() != Some("body"))
        .map(|part| part.as_str().map_or_else(|| part.to_string(), str::to_owned))
        .collect();
    (message, (!path.is_empty()).then(|| path.join(".")))
}
