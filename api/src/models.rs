//! The model list and its entries.

use serde::Serialize;
use tokenbus_protocol::Capabilities;

/// A model as `/v1/models` lists it.
#[derive(Debug, Clone, PartialEq)]
pub struct ListedModel {
    /// The name that clients use.
    pub name: String,
    /// When the cluster first saw the model, Unix time in seconds.
    pub created: u64,
    /// Tokens of context per request, if known.
    pub context_length: Option<u64>,
    /// What the model's engines can do.
    pub capabilities: Capabilities,
    /// Whether a live worker serves the model.
    pub live: bool,
}

/// One model in OpenAI's form, with further members of tokenbus.
#[derive(Debug, Serialize)]
pub struct ModelObject<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    context_length: Option<u64>,
    capabilities: Capabilities,
    live: bool,
}

impl<'a> From<&'a ListedModel> for ModelObject<'a> {
    fn from(model: &'a ListedModel) -> Self {
        Self {
            id: &model.name,
            object: "model",
            created: model.created,
            owned_by: "tokenbus",
            context_length: model.context_length,
            capabilities: model.capabilities.known().into(),
            live: model.live,
        }
    }
}

/// All models, sorted by name.
#[derive(Debug, Serialize)]
pub struct ModelList<'a> {
    object: &'static str,
    data: Vec<ModelObject<'a>>,
}

impl<'a> ModelList<'a> {
    /// Lists `models`.
    pub fn new(models: &'a [ListedModel]) -> Self {
        let mut data: Vec<ModelObject<'a>> = models.iter().map(ModelObject::from).collect();
        data.sort_unstable_by_key(|model| model.id);
        Self { object: "list", data }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_list_has_openais_shape_and_is_sorted() {
        let model = |name: &str, live: bool| ListedModel {
            name: name.to_owned(),
            created: 1_700_000_000,
            context_length: live.then_some(8192),
            capabilities: Capabilities {
                chat: true,
                ..Capabilities::default()
            },
            live,
        };
        let models = [model("b/c:d", true), model("a", false)];
        let capabilities = concat!(
            r#"{"chat":true,"completion":false,"embeddings":false,"rerank":false,"score":false,"#,
            r#""tokenize":false,"tools":false,"json_schema":false,"vision":false,"audio":false,"#,
            r#""logprobs":false,"continuation":false}"#
        );
        assert_eq!(
            serde_json::to_string(&ModelList::new(&models)).unwrap(),
            [
                r#"{"object":"list","data":[{"id":"a","object":"model","created":1700000000,"owned_by":"tokenbus","#,
                r#""capabilities":"#,
                capabilities,
                r#","live":false},{"id":"b/c:d","object":"model","created":1700000000,"owned_by":"tokenbus","#,
                r#""context_length":8192,"capabilities":"#,
                capabilities,
                r#","live":true}]}"#
            ]
            .concat()
        );
    }
}
