//! The models, as Ollama lists and shows them.

use std::collections::BTreeMap;

use bytes::{BufMut as _, Bytes, BytesMut};
use serde::Serialize;
use serde_json::Value;
use tokenbus_protocol::Capabilities;

use super::lines::time;
use super::names::tagged;
use crate::answer::json;
use crate::models::ListedModel;
use crate::request::member_reader::MemberReader;
use crate::request::{self, RequestError};

/// What is not known here of a model's file is empty, as Ollama writes it.
#[derive(Debug, Default, Serialize)]
struct Details {
    parent_model: &'static str,
    format: &'static str,
    family: &'static str,
    families: [&'static str; 0],
    parameter_size: &'static str,
    quantization_level: &'static str,
}

#[derive(Debug, Serialize)]
struct Tagged {
    name: String,
    model: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    modified_at: Option<String>,
    size: u64,
    digest: String,
    details: Details,
    #[serde(skip_serializing_if = "Option::is_none")]
    capabilities: Option<Vec<&'static str>>,
    #[serde(flatten)]
    running: Option<Running>,
}

#[derive(Debug, Serialize)]
struct Running {
    expires_at: &'static str,
    size_vram: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    context_length: Option<u64>,
}

/// Workers keep their models, so none expires. Ollama writes a far year for that.
const NEVER: &str = "2318-01-01T00:00:00Z";

/// All models, sorted by name: `GET /api/tags`.
#[derive(Debug, Serialize)]
pub struct TaggedModels {
    models: Vec<Tagged>,
}

impl TaggedModels {
    /// Lists `models`. Clients want 64 hexadecimal digits for each, which `digest` makes of a name.
    pub fn new(models: &[ListedModel], digest: impl Fn(&str) -> String) -> Self {
        let models = models.iter().map(|model| Tagged {
            modified_at: Some(time(model.created)),
            capabilities: Some(capabilities(model.capabilities)),
            ..tagged_model(model, &digest)
        });
        Self { models: sorted(models) }
    }
}

/// The models that a live worker serves: `GET /api/ps`.
#[derive(Debug, Serialize)]
pub struct RunningModels {
    models: Vec<Tagged>,
}

impl RunningModels {
    /// Lists those of `models`.
    pub fn new(models: &[ListedModel], digest: impl Fn(&str) -> String) -> Self {
        let live = models.iter().filter(|model| model.live).map(|model| Tagged {
            running: Some(Running {
                expires_at: NEVER,
                size_vram: 0,
                context_length: model.context_length,
            }),
            ..tagged_model(model, &digest)
        });
        Self { models: sorted(live) }
    }
}

fn sorted(models: impl Iterator<Item = Tagged>) -> Vec<Tagged> {
    let mut models: Vec<Tagged> = models.collect();
    models.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    models
}

fn tagged_model(model: &ListedModel, digest: impl Fn(&str) -> String) -> Tagged {
    let name = tagged(&model.name).into_owned();
    Tagged {
        model: name.clone(),
        name,
        modified_at: None,
        size: 0,
        digest: digest(&model.name),
        details: Details::default(),
        capabilities: None,
        running: None,
    }
}

/// Ollama's words for what a model can do.
fn capabilities(can: Capabilities) -> Vec<&'static str> {
    let known = Capabilities::from(can.known());
    let words = [
        (known.chat || known.completion, "completion"),
        (known.tools, "tools"),
        (known.vision, "vision"),
        (known.audio, "audio"),
        (known.embeddings, "embedding"),
    ];
    words.iter().filter(|(can, _)| *can).map(|(_, word)| *word).collect()
}

/// One model: `POST /api/show`.
#[derive(Debug, Serialize)]
pub struct ShownModel {
    modelfile: &'static str,
    parameters: &'static str,
    template: &'static str,
    details: Details,
    model_info: BTreeMap<&'static str, Value>,
    capabilities: Vec<&'static str>,
    modified_at: String,
}

impl ShownModel {
    /// Shows `model`.
    pub fn new(model: &ListedModel) -> Self {
        // Clients look for the length of the context under the name of the architecture.
        let mut model_info = BTreeMap::from([
            ("general.architecture", Value::from("tokenbus")),
            ("general.basename", Value::from(model.name.as_str())),
        ]);
        if let Some(length) = model.context_length {
            model_info.insert("tokenbus.context_length", length.into());
        }
        Self {
            modelfile: "",
            parameters: "",
            template: "",
            details: Details::default(),
            model_info,
            capabilities: capabilities(model.capabilities),
            modified_at: time(model.created),
        }
    }
}

/// The model in the body of a request about a model: `model`, or `name` as older clients send it.
///
/// # Errors
/// [`RequestError`] says what is wrong and where.
pub fn model_in(body: &[u8]) -> Result<(String, bool), RequestError> {
    let mut members = MemberReader::body(body)?;
    let filled = |name: Option<String>| name.filter(|name| !name.is_empty());
    let (model, name) = (filled(members.take("model")?), filled(members.take("name")?));
    let stream = members.take("stream")?.unwrap_or(true);
    Ok((request::model(model.or(name))?, stream))
}

/// The answer to `POST /api/pull` of a model that is there: lines, or one object.
pub fn pull_answer(stream: bool) -> Bytes {
    #[derive(Serialize)]
    struct Progress {
        status: &'static str,
    }
    let mut out = BytesMut::new();
    if stream {
        json::push(
            &mut out,
            &Progress {
                status: "pulling manifest",
            },
        );
        out.put_u8(b'\n');
    }
    json::push(&mut out, &Progress { status: "success" });
    if stream {
        out.put_u8(b'\n');
    }
    out.freeze()
}
