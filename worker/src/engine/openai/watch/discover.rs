//! What a server's own pages say of it: its kind, models, slots, context, and load. Pure parsing.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::value::RawValue;
use tokenbus_protocol::Feature;

use super::hang::Work;
use super::slots::Load;
use super::traits::Traits;
use crate::engine::openai::target::{Continuation, ServerKind};

/// One model as the server lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FoundModel {
    /// Its name at the server.
    pub(crate) id: String,
    /// Tokens of context per request, where told.
    pub(crate) context: Option<u64>,
    /// Other names of it.
    pub(crate) aliases: Vec<String>,
    /// What it can do, as far as it is known.
    pub(crate) traits: Traits,
}

#[derive(Deserialize)]
struct ModelList<'a> {
    #[serde(borrow)]
    data: Vec<ListedModel<'a>>,
}

#[derive(Deserialize)]
struct ListedModel<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(default)]
    owned_by: Option<Cow<'a, str>>,
    #[serde(default)]
    max_model_len: Option<u64>,
    #[serde(default)]
    context_length: Option<u64>,
    #[serde(default)]
    context_window: Option<u64>,
    #[serde(default)]
    aliases: Vec<String>,
    #[serde(default)]
    meta: Option<Meta>,
    /// Another tokenbus tells them so.
    #[serde(borrow, default)]
    capabilities: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Meta {
    #[serde(default)]
    n_ctx: Option<u64>,
}

/// Reads `/v1/models`. `server` is the answer's `server` header. The kind is a guess from who owns
/// the models; [`ServerKind::Unknown`] where that says nothing.
pub(crate) fn models(body: &[u8], server: Option<&str>) -> Result<(ServerKind, Vec<FoundModel>), serde_json::Error> {
    let list: ModelList<'_> = serde_json::from_slice(body)?;
    let owner = list
        .data
        .first()
        .and_then(|model| model.owned_by.as_deref())
        .unwrap_or_default();
    let kind = match (owner, server.unwrap_or_default()) {
        ("llamacpp", _) | (_, "llama.cpp") => ServerKind::LlamaServer,
        ("vllm", _) => ServerKind::Vllm,
        ("sglang", _) => ServerKind::Sglang,
        ("library", _) => ServerKind::Ollama,
        _ => ServerKind::Unknown,
    };
    let models = list
        .data
        .into_iter()
        .map(|model| FoundModel {
            traits: listed_traits(kind, &model),
            id: model.id.into_owned(),
            context: model
                .max_model_len
                .or(model.context_length)
                .or(model.context_window)
                .or(model.meta.and_then(|meta| meta.n_ctx))
                .filter(|tokens| *tokens > 0),
            aliases: model.aliases,
        })
        .collect();
    Ok((kind, models))
}

/// What the list itself says of a model: its name, and its capabilities as tokenbus lists them.
fn listed_traits(kind: ServerKind, model: &ListedModel<'_>) -> Traits {
    let mut traits = Traits::of(kind, &model.id);
    let listed = model
        .capabilities
        .and_then(|raw| serde_json::from_str::<Value>(raw.get()).ok());
    for feature in Feature::ALL.iter().filter(|feature| **feature != Feature::Continuation) {
        let told = listed.as_ref().and_then(|listed| listed.get(feature.as_str()));
        traits.tell(*feature, told.and_then(Value::as_bool));
    }
    traits
}

/// What llama-server's `/props` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LlamaProps {
    pub(crate) slots: Option<u32>,
    /// Per slot.
    pub(crate) context: Option<u64>,
    pub(crate) tools: Option<bool>,
    pub(crate) vision: Option<bool>,
    pub(crate) audio: Option<bool>,
}

/// Reads llama-server's `/props`.
pub(crate) fn llama_props(body: &[u8]) -> Result<LlamaProps, serde_json::Error> {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Props {
        total_slots: Option<u32>,
        default_generation_settings: Settings,
        chat_template: Option<String>,
        chat_template_caps: Option<Caps>,
        modalities: Option<Modalities>,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Settings {
        n_ctx: Option<u64>,
    }
    #[derive(Deserialize)]
    struct Caps {
        #[serde(default)]
        supports_tools: Option<bool>,
    }
    #[derive(Deserialize)]
    struct Modalities {
        #[serde(default)]
        vision: Option<bool>,
        #[serde(default)]
        audio: Option<bool>,
    }
    let props: Props = serde_json::from_slice(body)?;
    let told = props.chat_template_caps.and_then(|caps| caps.supports_tools);
    Ok(LlamaProps {
        slots: props.total_slots.filter(|slots| *slots > 0),
        context: props.default_generation_settings.n_ctx.filter(|tokens| *tokens > 0),
        tools: told.or_else(|| props.chat_template.map(|template| template.contains("tools"))),
        vision: props.modalities.as_ref().and_then(|modalities| modalities.vision),
        audio: props.modalities.and_then(|modalities| modalities.audio),
    })
}

/// Part of llama-server's KV cache that running requests use, from `/slots`.
pub(crate) fn llama_kv_used(body: &[u8]) -> Option<f64> {
    #[derive(Deserialize)]
    struct Slot {
        n_ctx: u64,
        is_processing: bool,
        #[serde(default)]
        n_prompt_tokens: u64,
        #[serde(default)]
        next_token: Option<Value>,
    }
    let slots: Vec<Slot> = serde_json::from_slice(body).ok()?;
    let total: u64 = slots.iter().map(|slot| slot.n_ctx).sum();
    // One object in older versions, a list of one in newer ones.
    let decoded = |slot: &Slot| -> u64 {
        let next = slot.next_token.as_ref().map(|next| next.get(0).unwrap_or(next));
        next.and_then(|next| next.get("n_decoded"))
            .and_then(Value::as_u64)
            .unwrap_or(0)
    };
    let used: u64 = slots
        .iter()
        .filter(|slot| slot.is_processing)
        .map(|slot| slot.n_prompt_tokens + decoded(slot))
        .sum();
    ratio(used, total)
}

#[allow(clippy::cast_precision_loss)]
fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| (part as f64 / whole as f64).min(1.0))
}

/// Slots and context that SGLang's `/get_server_info` tells.
pub(crate) fn sglang_info(body: &[u8]) -> (Option<u32>, Option<u64>) {
    let info: Value = serde_json::from_slice(body).unwrap_or_default();
    let first_state = info.get("internal_states").and_then(|states| states.get(0));
    let number = |name: &str| {
        [first_state, Some(&info)]
            .into_iter()
            .flatten()
            .find_map(|place| place.get(name))
            .and_then(Value::as_u64)
    };
    let slots = number("max_running_requests").or_else(|| number("effective_max_running_requests_per_dp"));
    (
        slots
            .and_then(|slots| u32::try_from(slots).ok())
            .filter(|slots| *slots > 0),
        number("context_length"),
    )
}

/// Reads SGLang's `/model_info` into `traits`.
pub(crate) fn sglang_model(body: &[u8], traits: &mut Traits) {
    let info: Value = serde_json::from_slice(body).unwrap_or_default();
    let told = |name: &str| info.get(name).and_then(Value::as_bool);
    if let Some(generates) = told("is_generation") {
        traits.generates(generates);
        traits.tell(Feature::Embeddings, Some(!generates));
        traits.tell(Feature::Rerank, Some(!generates));
        // It scores by a generating model's log probabilities.
        traits.tell(Feature::Score, Some(generates));
    }
    traits.tell(Feature::Vision, told("has_image_understanding"));
    traits.tell(Feature::Audio, told("has_audio_understanding"));
}

/// Reads the routes that a server describes in its `/openapi.json` into `traits`: what has no route
/// cannot be asked for. Older servers have all routes, whatever their model is: then it is taken for one
/// that generates.
pub(crate) fn routes(body: &[u8], traits: &mut Traits) {
    #[derive(Deserialize)]
    struct Description {
        paths: std::collections::HashMap<String, IgnoredAny>,
    }
    let Ok(Description { paths }) = serde_json::from_slice(body) else {
        return;
    };
    let has = |names: &[&str]| names.iter().any(|name| paths.contains_key(*name));
    let generates = has(&["/v1/chat/completions"]);
    let embeds = has(&["/v1/embeddings"]);
    let rest = [
        (Feature::Chat, generates),
        (Feature::Completion, has(&["/v1/completions"])),
        (Feature::Embeddings, embeds),
        (Feature::Rerank, has(&["/v1/rerank", "/rerank"])),
        (Feature::Score, has(&["/v1/score", "/score"])),
    ];
    for (feature, there) in rest {
        let all = generates && embeds;
        if traits.told(feature) != Some(false) && (!there || !all) {
            traits.tell(feature, Some(there));
        }
    }
    traits.tell(Feature::Tokenize, Some(has(&["/tokenize"])));
}

/// `max_num_seqs` from vLLM's `/server_info`, which only its development mode has.
pub(crate) fn vllm_max_num_seqs(body: &[u8]) -> Option<u32> {
    let info: Value = serde_json::from_slice(body).ok()?;
    let config = info.get("vllm_config")?;
    let told = match config {
        Value::String(text) => {
            let (_, rest) = text.split_once("max_num_seqs=")?;
            rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
        }
        other => other.pointer("/scheduler_config/max_num_seqs").and_then(Value::as_u64),
    };
    told.and_then(|slots| u32::try_from(slots).ok())
        .filter(|slots| *slots > 0)
}

/// The load on a metrics page of vLLM's.
pub(crate) fn vllm_load(page: &str) -> Load {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let count = |name: &str, label: &str| sum(page, name, label) as u32;
    let (running, kv_used) = (count("vllm:num_requests_running", ""), metric(page, &KV_METRICS));
    const GENERATED: &str = "vllm:generation_tokens_total";
    Load {
        kv_used,
        running,
        waiting: count("vllm:num_requests_waiting_by_reason", "reason=\"capacity\""),
        work: metric(page, &[GENERATED]).map(|_| Work {
            running,
            generated: sum(page, GENERATED, ""),
            prompts: sum(page, "vllm:prompt_tokens_total", ""),
            kv_used,
        }),
    }
}

/// Requests of the full length that vLLM's KV cache holds, by its metrics page.
pub(crate) fn vllm_concurrency(page: &str) -> Option<f64> {
    let line = page.lines().find(|line| line.starts_with("vllm:cache_config_info{"))?;
    let (_, rest) = line.split_once("kv_cache_max_concurrency=\"")?;
    let (value, _) = rest.split_once('"')?;
    value.parse().ok().filter(|value: &f64| value.is_finite())
}

/// The sum of a metric over its series that have `label`.
fn sum(page: &str, name: &str, label: &str) -> f64 {
    let series = page.lines().filter(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(['{', ' '])) && line.contains(label)
    });
    let values = series.filter_map(|line| {
        let (_, value) = line.rsplit_once(['}', ' '])?;
        value.trim().parse::<f64>().ok()
    });
    values.filter(|value| value.is_finite()).sum()
}

/// The first value of one of `names` on a Prometheus page.
pub(crate) fn metric(page: &str, names: &[&str]) -> Option<f64> {
    page.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let name = line.split(['{', ' ']).next()?;
        if !names.contains(&name) {
            return None;
        }
        let value = line
            .rsplit_once('}')
            .map_or_else(|| line.get(name.len()..), |(_, rest)| Some(rest))?;
        value
            .split_whitespace()
            .next()?
            .parse::<f64>()
            .ok()
            .filter(|value| value.is_finite())
    })
}

/// Names under which servers tell the part of the KV cache in use, 0 to 1.
pub(crate) const KV_METRICS: [&str; 3] = [
    "vllm:kv_cache_usage_perc",
    "vllm:gpu_cache_usage_perc",
    "sglang:token_usage",
];

/// What Ollama's `/api/show` says of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OllamaModel {
    pub(crate) context: Option<u64>,
    pub(crate) traits: Traits,
}

/// Reads Ollama's `/api/show`. The context is told only where the model sets it: otherwise it
/// depends on the server's settings, which Ollama does not tell.
pub(crate) fn ollama_model(body: &[u8]) -> Result<OllamaModel, serde_json::Error> {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Show {
        template: String,
        parameters: String,
        capabilities: Option<Vec<String>>,
        renderer: Option<String>,
    }
    let show: Show = serde_json::from_slice(body)?;
    let context = show
        .parameters
        .lines()
        .find_map(|line| line.trim().strip_prefix("num_ctx")?.trim().parse().ok());
    let can = |name: &str| show.capabilities.as_ref().map(|all| all.iter().any(|one| one == name));
    // A template over single prompts ends where the answer begins, and Ollama puts a last assistant
    // message there. One over all messages must leave the last of them open, for which it asks
    // whether it is the last. A built-in renderer cannot be looked into.
    let continues = show.renderer.as_deref().is_none_or(str::is_empty)
        && !show.template.is_empty()
        && (!show.template.contains(".Messages") || show.template.contains("$last"));
    let mut traits = Traits::of(ServerKind::Ollama, "");
    if let Some(generates) = can("completion") {
        traits.generates(generates);
    }
    traits.tell(Feature::Embeddings, can("embedding"));
    traits.tell(Feature::Tools, can("tools"));
    traits.tell(Feature::Vision, can("vision"));
    traits.tell(Feature::Audio, can("audio"));
    if continues {
        traits.continuation = Continuation::TrailingAssistant;
    }
    Ok(OllamaModel { context, traits })
}

#[cfg(test)]
#[path = "discover_tests.rs"]
mod tests;
