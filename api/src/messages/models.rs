//! The list of models in Anthropic's form.

use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;

use crate::models::ListedModel;

/// One model.
#[derive(Debug, Serialize)]
pub struct ModelInfo<'a> {
    r#type: &'static str,
    id: &'a str,
    display_name: &'a str,
    created_at: String,
    lifecycle: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_input_tokens: Option<u64>,
}

impl<'a> From<&'a ListedModel> for ModelInfo<'a> {
    fn from(model: &'a ListedModel) -> Self {
        let created = UNIX_EPOCH.checked_add(Duration::from_secs(model.created));
        Self {
            r#type: "model",
            id: &model.name,
            display_name: &model.name,
            created_at: humantime::format_rfc3339_seconds(created.unwrap_or(UNIX_EPOCH)).to_string(),
            lifecycle: "active",
            max_input_tokens: model.context_length,
        }
    }
}

/// All models, sorted by name, on one page.
#[derive(Debug, Serialize)]
pub struct ModelPage<'a> {
    data: Vec<ModelInfo<'a>>,
    has_more: bool,
    first_id: Option<&'a str>,
    last_id: Option<&'a str>,
}

impl<'a> ModelPage<'a> {
    /// Lists `models`.
    pub fn new(models: &'a [ListedModel]) -> Self {
        let mut data: Vec<ModelInfo<'a>> = models.iter().map(ModelInfo::from).collect();
        data.sort_unstable_by_key(|model| model.id);
        Self {
            has_more: false,
            first_id: data.first().map(|model| model.id),
            last_id: data.last().map(|model| model.id),
            data,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokenbus_protocol::Capabilities;

    use super::*;

    #[test]
    fn the_page_has_anthropics_shape_and_is_sorted() {
        let model = |name: &str, context_length| ListedModel {
            name: name.to_owned(),
            created: 1_700_000_000,
            context_length,
            capabilities: Capabilities::default(),
            live: true,
        };
        let models = [model("b", Some(8192)), model("a", None)];
        let want = concat!(
            r#"{"data":[{"type":"model","id":"a","display_name":"a","created_at":"2023-11-14T22:13:20Z","lifecycle":"active"},"#,
            r#"{"type":"model","id":"b","display_name":"b","created_at":"2023-11-14T22:13:20Z","lifecycle":"active","#,
            r#""max_input_tokens":8192}],"has_more":false,"first_id":"a","last_id":"b"}"#
        );
        assert_eq!(serde_json::to_string(&ModelPage::new(&models)).unwrap(), want);
        let none = serde_json::to_string(&ModelPage::new(&[])).unwrap();
        assert_eq!(none, r#"{"data":[],"has_more":false,"first_id":null,"last_id":null}"#);
    }
}
