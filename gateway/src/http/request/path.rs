//! A request's path as the routes have it. Clients join a base URL and a path in many ways; each way that can mean only
//! one resource leads to it, without a redirect: some clients lose the body or the key of a request on a redirect.
//!
//! - Repeated and trailing slashes do not count.
//! - `/v1` may be missing, be there twice, or follow `/api`, `/openai` or `/anthropic`.
//! - Azure's paths name the model: `/openai/deployments/{model}/chat/completions`.

use std::borrow::Cow;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{Request, Uri};
use tokenbus_protocol::RawObject;

/// Prefixes of base URLs that other services have.
const PREFIXES: [&str; 4] = ["/v1", "/api", "/openai", "/anthropic"];

/// The resources below `/v1`, by their first segment. `/api/{one of these}` may be a resource of another API.
const BELOW_V1: [&str; 6] = ["chat", "completions", "embeddings", "messages", "models", "responses"];

/// The resources at the root that clients also look for below `/v1`.
const AT_ROOT: [&str; 2] = ["/tokenize", "/detokenize"];

/// The root of Azure's paths.
const DEPLOYMENTS: &str = "/openai/deployments/";

/// The model that the path names. It counts if the body names none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PathModel(pub(crate) String);

impl PathModel {
    /// `body` with this model, if it is an object that names none.
    pub(crate) fn fill(&self, body: Bytes) -> Bytes {
        let Ok(mut object) = RawObject::parse(&body) else {
            return body;
        };
        if object.get("model").is_some_and(|model| model.get() != "null") || object.set("model", &self.0).is_err() {
            return body;
        }
        let filled = object.to_json().map(|json| Bytes::from(json.get().to_owned()));
        filled.unwrap_or(body)
    }
}

/// Makes the path of `request` the one that the routes have.
pub(crate) fn rewrite<B>(request: &mut Request<B>) {
    if let Some(model) = make_plain(request.uri_mut()) {
        request.extensions_mut().insert(model);
    }
}

/// Makes the path of `uri` the one that the routes have. Returns the model that the path names.
fn make_plain(uri: &mut Uri) -> Option<PathModel> {
    let (plain, model) = plain(uri.path())?;
    let query = uri.query().map_or_else(String::new, |query| format!("?{query}"));
    let path = PathAndQuery::try_from(format!("{plain}{query}")).ok()?;
    let mut parts = std::mem::take(uri).into_parts();
    parts.path_and_query = Some(path);
    // The parts were valid before, and the new path is one.
    *uri = Uri::from_parts(parts).unwrap_or_default();
    model
}

/// The plain form of `path`, and the model in it; `None` if it is plain already.
fn plain(path: &str) -> Option<(String, Option<PathModel>)> {
    if !path.starts_with('/') {
        return None;
    }
    let slashed = one_slash_each(path);
    if let Some((model, rest)) = deployment(&slashed) {
        return Some((format!("/v1/{rest}"), Some(PathModel(model))));
    }
    match (resource(&slashed), slashed) {
        (Some(resource), _) => Some((resource, None)),
        (None, Cow::Owned(slashed)) => Some((slashed, None)),
        (None, Cow::Borrowed(_)) => None,
    }
}

/// `path` without empty segments.
fn one_slash_each(path: &str) -> Cow<'_, str> {
    if path == "/" || !(path.ends_with('/') || path.contains("//")) {
        return path.into();
    }
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    format!("/{}", segments.join("/")).into()
}

/// The resource that `path` means, if its own path is another one.
fn resource(path: &str) -> Option<String> {
    if after(path, "/v1").is_some_and(is_below_v1) {
        return None;
    }
    let mut rest = path;
    // What is before the last prefix does not count; `/api/chat` and its like belong to another API.
    while let Some(below) = PREFIXES.iter().find_map(|prefix| after(rest, prefix)) {
        rest = below;
    }
    let base = path.strip_suffix(rest).unwrap_or_default();
    if AT_ROOT.contains(&rest) {
        return (!base.is_empty()).then(|| rest.to_owned());
    }
    let meant = match base {
        "/v1" | "/api" => false,
        _ => is_below_v1(rest) || base.ends_with("/v1"),
    };
    meant.then(|| format!("/v1{rest}"))
}

fn is_below_v1(rest: &str) -> bool {
    rest.split('/').nth(1).is_some_and(|first| BELOW_V1.contains(&first))
}

fn after<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    path.strip_prefix(prefix).filter(|rest| rest.starts_with('/'))
}

/// The model of one of Azure's paths, and what is behind it.
fn deployment(path: &str) -> Option<(String, &str)> {
    let (model, rest) = path.strip_prefix(DEPLOYMENTS)?.split_once('/')?;
    Some((percent_decoded(model)?, rest))
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, more)) = rest.split_first() {
        let digits = (first == b'%').then(|| more.split_at_checked(2)).flatten();
        let digits = digits.and_then(|(digits, more)| Some((std::str::from_utf8(digits).ok()?, more)));
        match digits.and_then(|(digits, more)| Some((u8::from_str_radix(digits, 16).ok()?, more))) {
            Some((byte, more)) => {
                bytes.push(byte);
                rest = more;
            }
            None => {
                bytes.push(first);
                rest = more;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn each_way_to_write_a_path_leads_to_its_resource() {
        for (written, meant) in [
            ("//v1/models", "/v1/models"),
            ("/v1//models", "/v1/models"),
            ("/v1/models/", "/v1/models"),
            ("/v1/models///", "/v1/models"),
            ("/v1/models/org/name/", "/v1/models/org/name"),
            ("/healthz/", "/healthz"),
            ("/v1//chat//completions/", "/v1/chat/completions"),
            ("/v1/v1/chat/completions", "/v1/chat/completions"),
            ("/v1/v1/v1/messages", "/v1/messages"),
            ("/v1/v1/rerank", "/v1/rerank"),
            ("/api/v1/rerank", "/v1/rerank"),
            ("/chat/completions", "/v1/chat/completions"),
            ("/models", "/v1/models"),
            ("/models/org/name", "/v1/models/org/name"),
            ("/messages/count_tokens", "/v1/messages/count_tokens"),
            ("/responses", "/v1/responses"),
            ("/api/v1/models", "/v1/models"),
            ("/openai/v1/chat/completions", "/v1/chat/completions"),
            ("/openai/responses", "/v1/responses"),
            ("/anthropic/v1/messages", "/v1/messages"),
            ("/v1/tokenize", "/tokenize"),
            ("///", "/"),
        ] {
            assert_eq!(plain(written).unwrap(), (meant.to_owned(), None), "{written}");
        }
    }

    #[test]
    fn a_plain_path_and_one_that_means_nothing_stay() {
        for path in [
            "/",
            "*",
            "",
            "/v1/chat/completions",
            "/v1/models/v1/models",
            "/v1/models/api/v1/x",
            "/v1/rerank",
            "/rerank",
            "/tokenize",
            "/v1",
            "/v2/chat/completions",
            "/api/chat",
            "/api/embeddings",
            "/chats",
            "/openai/deployments/m",
        ] {
            assert_eq!(plain(path), None, "{path}");
        }
    }

    #[test]
    fn azures_paths_name_the_model() {
        let mut uri: Uri = "http://host/openai/deployments/org%2Fm:7b/chat/completions?api-version=1"
            .parse()
            .unwrap();
        assert_eq!(make_plain(&mut uri), Some(PathModel("org/m:7b".to_owned())));
        assert_eq!(uri, "http://host/v1/chat/completions?api-version=1");
        let model = PathModel("a".to_owned());
        for (body, filled) in [
            (r#"{"x":1}"#, r#"{"x":1,"model":"a"}"#),
            (r#"{"model":null}"#, r#"{"model":"a"}"#),
            (r#"{"model":"b"}"#, r#"{"model":"b"}"#),
            ("[]", "[]"),
            ("", ""),
        ] {
            assert_eq!(model.fill(Bytes::from(body)), filled);
        }
        assert_eq!(percent_decoded("a%zz%2").as_deref(), Some("a%zz%2"));
        assert_eq!(percent_decoded("%ff"), None);
    }
}
