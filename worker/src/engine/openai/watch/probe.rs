//! Asking a server how it is and what it serves.

use bytes::Bytes;
use http::{Response, StatusCode};
use tokenbus_protocol::{Feature, SlotsFrom};

use super::discover::{self, FoundModel, KV_METRICS};
use super::slots::{self, Found, Load};
use crate::engine::openai::limits::{GENERATION_TIMEOUT, MAX_DESCRIBED_MODELS, PROBE_TIMEOUT};
use crate::engine::openai::target::ServerKind;
use crate::engine::openai::wire::client::{Client, Path, SendError, header_text};

/// All that a server tells of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Discovery {
    pub(crate) kind: ServerKind,
    pub(crate) models: Vec<FoundModel>,
    /// Requests at once, where told or seen.
    pub(crate) slots: Option<u32>,
    /// How those were found.
    pub(crate) slots_from: SlotsFrom,
}

/// What a probe has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Finding {
    /// The server is up; what it serves, when that was asked.
    Healthy(Option<Discovery>),
    /// It is up but not ready yet.
    Loading,
    /// It says that it is unwell.
    Unwell(String),
    /// It takes no connection.
    Refused(String),
    /// It did not answer in time.
    Silent,
}

/// Asks for everything.
pub(crate) async fn discover(client: &Client) -> Finding {
    let answer = match client.get(Path::Api("models"), PROBE_TIMEOUT).await {
        Ok(answer) => answer,
        Err(error) => return failed(&error),
    };
    let status = answer.status();
    if is_missing(status) {
        // Some providers list nothing; what they serve is the operator's word.
        return Finding::Healthy(Some(Discovery {
            kind: ServerKind::Unknown,
            models: Vec::new(),
            slots: None,
            slots_from: SlotsFrom::Engine,
        }));
    }
    if !status.is_success() {
        return unwell(status);
    }
    let (kind, models) = match discover::models(answer.body(), header_text(answer.headers(), "server")) {
        Ok(found) => found,
        Err(reason) => return Finding::Unwell(format!("its model list cannot be read: {reason}")),
    };
    let found = Discovery {
        kind,
        models,
        slots: None,
        slots_from: SlotsFrom::Engine,
    };
    match describe(client, found).await {
        Ok(found) => Finding::Healthy(Some(found)),
        Err(finding) => finding,
    }
}

/// Asks only whether it is up.
pub(crate) async fn health(client: &Client, kind: ServerKind) -> Finding {
    let path = match kind {
        ServerKind::LlamaServer | ServerKind::Vllm | ServerKind::Sglang => Path::Root("health"),
        ServerKind::Ollama => Path::Root("api/version"),
        ServerKind::Unknown => Path::Api("models"),
    };
    match client.get(path, PROBE_TIMEOUT).await {
        Ok(answer) if answer.status().is_success() => Finding::Healthy(None),
        // A proxy hands on `/v1` alone: only the model list tells.
        Ok(answer) if is_missing(answer.status()) => match kind {
            ServerKind::Unknown => Finding::Healthy(None),
            _ => listed(client).await,
        },
        Ok(answer) => unwell(answer.status()),
        Err(error) => failed(&error),
    }
}

/// Whether it is up by its model list, for a server whose page for health cannot be reached.
async fn listed(client: &Client) -> Finding {
    match client.get(Path::Api("models"), PROBE_TIMEOUT).await {
        Ok(answer) if answer.status().is_success() => Finding::Healthy(None),
        Ok(answer) => unwell(answer.status()),
        Err(error) => failed(&error),
    }
}

/// Whether a status says that there is no such page.
fn is_missing(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::GONE
    )
}

/// The load, as far as the server tells.
pub(crate) async fn load(client: &Client, kind: ServerKind) -> Load {
    let path = match kind {
        ServerKind::LlamaServer => "slots",
        ServerKind::Vllm | ServerKind::Sglang => "metrics",
        ServerKind::Ollama | ServerKind::Unknown => return Load::default(),
    };
    let Some(page) = page(client, Path::Root(path)).await else {
        return Load::default();
    };
    let text = String::from_utf8_lossy(page.body());
    let load = match kind {
        ServerKind::LlamaServer => Load {
            kv_used: discover::llama_kv_used(page.body()),
            ..Load::default()
        },
        ServerKind::Vllm => discover::vllm_load(&text),
        _ => Load {
            kv_used: discover::metric(&text, &KV_METRICS),
            ..Load::default()
        },
    };
    Load {
        kv_used: load.kv_used.map(|used| used.clamp(0.0, 1.0)),
        ..load
    }
}

/// Adds what the pages of this kind of server tell. A page that is missing costs only what it
/// would have told, except for llama-server's while it loads.
async fn describe(client: &Client, mut found: Discovery) -> Result<Discovery, Finding> {
    match found.kind {
        ServerKind::LlamaServer => describe_llama(client, &mut found).await?,
        ServerKind::Vllm => {
            if let Some(page) = page(client, Path::Root("server_info?config_format=json")).await {
                found.slots = discover::vllm_max_num_seqs(page.body());
            }
            if found.slots.is_none()
                && let Some(page) = page(client, Path::Root("metrics")).await
            {
                let concurrency = discover::vllm_concurrency(&String::from_utf8_lossy(page.body()));
                found.slots = concurrency.and_then(slots::of_cache);
                found.slots_from = SlotsFrom::Cache;
            }
            describe_routes(client, &mut found).await;
        }
        ServerKind::Sglang => {
            let info = match page(client, Path::Root("get_server_info")).await {
                Some(info) => Some(info),
                None => page(client, Path::Root("server_info")).await,
            };
            if let Some(info) = info {
                let (slots, context) = discover::sglang_info(info.body());
                found.slots = slots;
                for model in &mut found.models {
                    model.context = model.context.or(context);
                }
            }
            let model = match page(client, Path::Root("model_info")).await {
                Some(model) => Some(model),
                None => page(client, Path::Root("get_model_info")).await,
            };
            if let Some(told) = model {
                for model in &mut found.models {
                    discover::sglang_model(told.body(), &mut model.traits);
                }
            }
            describe_routes(client, &mut found).await;
        }
        ServerKind::Ollama => describe_ollama(client, &mut found).await,
        ServerKind::Unknown => {}
    }
    Ok(found)
}

async fn describe_llama(client: &Client, found: &mut Discovery) -> Result<(), Finding> {
    let props = match client.get(Path::Root("props"), PROBE_TIMEOUT).await {
        Ok(answer) if answer.status() == StatusCode::SERVICE_UNAVAILABLE => return Err(Finding::Loading),
        Ok(answer) if answer.status().is_success() => discover::llama_props(answer.body()).unwrap_or_default(),
        Ok(_) => return Ok(()),
        Err(error) => return Err(failed(&error)),
    };
    found.slots = props.slots;
    for model in &mut found.models {
        model.context = props.context.or(model.context);
        model.traits.tell(Feature::Tools, props.tools);
        model.traits.tell(Feature::Vision, props.vision);
        model.traits.tell(Feature::Audio, props.audio);
    }
    // What it was started for stands on none of its pages, but it refuses the rest before it reads on.
    for (path, features) in [
        ("chat/completions", &[Feature::Chat, Feature::Completion][..]),
        ("embeddings", &[Feature::Embeddings]),
        ("rerank", &[Feature::Rerank]),
    ] {
        let told = serves(client, path).await;
        for model in &mut found.models {
            features.iter().for_each(|feature| model.traits.tell(*feature, told));
        }
    }
    Ok(())
}

/// Whether llama-server was started for the API at `path`: to a request with nothing in it it says
/// either what is missing, or that it cannot.
async fn serves(client: &Client, path: &str) -> Option<bool> {
    let nothing = Bytes::from_static(b"{}");
    let answer = client.ask(Path::Api(path), nothing, PROBE_TIMEOUT).await.ok()?;
    match answer.status() {
        StatusCode::NOT_IMPLEMENTED => Some(false),
        // It would only ever say this of a model that pools nothing.
        StatusCode::BAD_REQUEST => Some(!String::from_utf8_lossy(answer.body()).contains("Pooling type 'none'")),
        _ => None,
    }
}

async fn describe_routes(client: &Client, found: &mut Discovery) {
    if let Some(page) = page(client, Path::Root("openapi.json")).await {
        for model in &mut found.models {
            discover::routes(page.body(), &mut model.traits);
        }
    }
}

async fn describe_ollama(client: &Client, found: &mut Discovery) {
    for model in found.models.iter_mut().take(MAX_DESCRIBED_MODELS) {
        let question = serde_json::json!({ "model": model.id }).to_string();
        let Ok(answer) = client
            .ask(Path::Root("api/show"), Bytes::from(question), PROBE_TIMEOUT)
            .await
        else {
            continue;
        };
        if let (true, Ok(described)) = (answer.status().is_success(), discover::ollama_model(answer.body())) {
            model.context = described.context.or(model.context);
            model.traits = described.traits;
        }
    }
}

async fn page(client: &Client, path: Path<'_>) -> Option<Response<Bytes>> {
    client
        .get(path, PROBE_TIMEOUT)
        .await
        .ok()
        .filter(|answer| answer.status().is_success())
}

fn failed(error: &SendError) -> Finding {
    match error {
        SendError::Timeout => Finding::Silent,
        SendError::Connect(_) | SendError::Broken(_) => Finding::Refused(error.to_string()),
        SendError::TooLarge | SendError::Invalid(_) => Finding::Unwell(error.to_string()),
    }
}

fn unwell(status: StatusCode) -> Finding {
    match status {
        StatusCode::SERVICE_UNAVAILABLE => Finding::Loading,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Finding::Unwell(format!("it refuses the worker's API key (status {})", status.as_u16()))
        }
        other => Finding::Unwell(format!("it answers with status {}", other.as_u16())),
    }
}
