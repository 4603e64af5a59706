//! Checks rerank and score requests. Engines accept different members beside the query and the documents; those are
//! left to the engine.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::request::fields::{Integer, TextOrObject};
use crate::request::{self, Checked, RequestError, field, missing};

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct RerankRequest {
    model: Option<String>,
    query: Option<TextOrObject>,
    documents: Option<Documents>,
    // The name in other servers' APIs; llama.cpp accepts both.
    texts: Option<Documents>,
    #[serde(rename = "top_n")]
    _top_n: Option<Integer>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct ScoreRequest {
    model: Option<String>,
}

/// The number of documents to sort. They are strings or objects, or one object that holds them.
#[derive(Debug, Clone, Copy)]
struct Documents(usize);

impl<'de> Deserialize<'de> for Documents {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Documents;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of strings or objects")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Documents, A::Error> {
                let mut count = 0;
                while seq.next_element::<TextOrObject>()?.is_some() {
                    count += 1;
                }
                Ok(Documents(count))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Documents, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Documents(1))
            }
        }
        d.deserialize_any(V)
    }
}

/// Checks a rerank request.
///
/// # Errors
/// [`RequestError`] says what is wrong and where.
pub fn check_rerank(body: &[u8]) -> Result<Checked, RequestError> {
    let request: RerankRequest = request::parse(body)?;
    let model = request::model(request.model)?;
    if request.query.is_none() {
        return Err(missing("query"));
    }
    match request.documents.or(request.texts) {
        None => return Err(missing("documents")),
        Some(Documents(0)) => return Err(field("documents", "empty_array", "at least one document is expected")),
        Some(Documents(_)) => {}
    }
    Ok(Checked::verbatim(model))
}

/// Checks a score request.
///
/// # Errors
/// [`RequestError`] says what is wrong and where.
pub fn check_score(body: &[u8]) -> Result<Checked, RequestError> {
    let request: ScoreRequest = request::parse(body)?;
    Ok(Checked::verbatim(request::model(request.model)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blamed(body: &str) -> Option<String> {
        match check_rerank(body.as_bytes()) {
            Err(RequestError::Field { param, .. }) => param,
            _ => None,
        }
    }

    #[test]
    fn the_forms_of_all_engines_pass() {
        for rest in [
            r#""query":"q","documents":["a","b"],"top_n":1,"return_documents":true"#,
            r#""query":"q","documents":[{"text":"a"}]"#,
            r#""query":{"content":[]},"documents":{"content":[]}"#,
            r#""query":"q","texts":["a"]"#,
            r#""query":"q","documents":["a"],"texts":[]"#,
            r#""query":"q","documents":["a"],"top_n":0"#,
        ] {
            let body = format!(r#"{{"model":"m",{rest}}}"#);
            assert!(check_rerank(body.as_bytes()).is_ok(), "{rest}");
        }
        assert!(check_score(br#"{"model":"m","text_1":"a","text_2":["b"]}"#).is_ok());
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        for (body, param) in [
            (r#"{"query":"q","documents":["a"]}"#, "model"),
            (r#"{"model":"m","documents":["a"]}"#, "query"),
            (r#"{"model":"m","query":[1],"documents":["a"]}"#, "query"),
            (r#"{"model":"m","query":"q"}"#, "documents"),
            (r#"{"model":"m","query":"q","documents":[]}"#, "documents"),
            (r#"{"model":"m","query":"q","documents":["a",1]}"#, "documents[1]"),
        ] {
            assert_eq!(blamed(body).as_deref(), Some(param), "{body}");
        }
        assert!(check_score(b"{}").is_err());
    }
}
