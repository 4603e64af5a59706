//! The llama.cpp engine with a real model, as several tests want it.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};
use tokenbus_protocol::RequestKind;
use tokenbus_worker::engine::llama::{Extras, LlamaEngine, LlamaOptions, LlamaRuntime};
use tokenbus_worker::engine::{Job, Overrides};

use super::{Stream, Whole, job, start_with_room};

fn runtime() -> LlamaRuntime {
    let server = std::env::var_os("TOKENBUS_LLAMA_SERVER").map(PathBuf::from);
    let packages = std::env::var_os("TOKENBUS_LLAMA_PACKAGES").map(PathBuf::from);
    match (server, packages) {
        (Some(server), _) => LlamaRuntime::LlamaServer(server),
        (None, Some(packages)) => LlamaRuntime::Python {
            python: std::env::var_os("TOKENBUS_PYTHON").map_or_else(|| "python3".into(), PathBuf::from),
            packages,
        },
        (None, None) => panic!("set TOKENBUS_LLAMA_PACKAGES to the folder of xllamacpp (or TOKENBUS_LLAMA_SERVER)"),
    }
}

pub async fn engine_with(logs: &tempfile::TempDir, extras: Extras) -> Arc<LlamaEngine> {
    let model_path = std::env::var_os("TOKENBUS_LLAMA_MODEL")
        .expect("set TOKENBUS_LLAMA_MODEL to a GGUF file")
        .into();
    let options = LlamaOptions {
        runtime: runtime(),
        model_path,
        model: Some("smol".to_owned()),
        slots: Some(2),
        context: Some(1024),
        gpu_layers: None,
        cache_ram_mib: None,
        threads: None,
        extras,
        overrides: Overrides::default(),
        log_dir: logs.path().to_owned(),
    };
    LlamaEngine::start(options).await.unwrap()
}

pub fn start(engine: &LlamaEngine, job: Job) -> Stream {
    start_with_room(engine, job, usize::MAX)
}

pub fn gravity(limit: u32) -> Value {
    json!({"model": "smol", "temperature": 0, "max_tokens": limit,
        "messages": [{"role": "user", "content": "What is gravity?"}]})
}

pub async fn chat(engine: &LlamaEngine, body: &Value) -> Whole {
    start(engine, job("smol", body)).whole().await
}

pub async fn of_kind(engine: &LlamaEngine, kind: RequestKind, body: &Value) -> Whole {
    let job = Job {
        kind,
        ..job("smol", body)
    };
    start(engine, job).whole().await
}
