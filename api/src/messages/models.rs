//! The list of models in Anthropic's form.

use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

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

/// Models, sorted by name.
#[derive(Debug, Serialize)]
pub struct ModelPage<'a> {
    data: Vec<ModelInfo<'a>>,
    has_more: bool,
    first_id: Option<&'a str>,
    last_id: Option<&'a str>,
}

/// Which models of a list a page has.
#[derive(Debug, Default, Deserialize)]
pub struct PageQuery {
    /// The most models on the page.
    limit: Option<usize>,
    /// The page ends before this model.
    before_id: Option<String>,
    /// The page begins behind this model.
    after_id: Option<String>,
}

impl<'a> ModelPage<'a> {
    /// The page that `query` asks for. Without a limit, a page has all models: clients that do not turn pages see all.
    pub fn new(models: &'a [ListedModel], query: &PageQuery) -> Self {
        let mut data: Vec<ModelInfo<'a>> = models.iter().map(ModelInfo::from).collect();
        data.sort_unstable_by_key(|model| model.id);
        let (before, after) = (query.before_id.as_deref(), query.after_id.as_deref());
        data.retain(|model| before.is_none_or(|id| model.id < id) && after.is_none_or(|id| model.id > id));
        let limit = query.limit.unwrap_or(data.len()).max(1);
        let has_more = data.len() > limit;
        // Backwards, a page has the models next to the one that was named.
        if has_more && before.is_some() && after.is_none() {
            data.drain(..data.len() - limit);
        }
        data.truncate(limit);
        Self {
            has_more,
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
        assert_eq!(
            serde_json::to_string(&ModelPage::new(&models, &PageQuery::default())).unwrap(),
            want
        );
        let none = serde_json::to_string(&ModelPage::new(&[], &PageQuery::default())).unwrap();
        assert_eq!(none, r#"{"data":[],"has_more":false,"first_id":null,"last_id":null}"#);
    }

    #[test]
    fn pages_are_turned_in_both_directions() {
        let models = ["a", "b", "c", "d"].map(|name| ListedModel {
            name: name.to_owned(),
            created: 0,
            context_length: None,
            capabilities: Capabilities::default(),
            live: true,
        });
        let page = |limit: Option<usize>, before: Option<&str>, after: Option<&str>| {
            let query = PageQuery {
                limit,
                before_id: before.map(str::to_owned),
                after_id: after.map(str::to_owned),
            };
            let page = ModelPage::new(&models, &query);
            let ids: String = page.data.iter().map(|model| model.id).collect();
            (
                ids,
                page.has_more,
                page.first_id.unwrap_or("").to_owned() + page.last_id.unwrap_or(""),
            )
        };
        let want = |ids: &str, more: bool, ends: &str| (ids.to_owned(), more, ends.to_owned());
        assert_eq!(page(Some(2), None, None), want("ab", true, "ab"));
        assert_eq!(page(Some(2), None, Some("b")), want("cd", false, "cd"));
        assert_eq!(page(Some(2), Some("d"), None), want("bc", true, "bc"));
        assert_eq!(page(None, Some("b"), None), want("a", false, "aa"));
        assert_eq!(page(None, None, Some("d")), want("", false, ""));
    }
}
