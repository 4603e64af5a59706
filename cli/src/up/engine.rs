//! The engine of `up`: llama.cpp with a model, or an OpenAI-compatible server that runs already.

use std::path::PathBuf;
use std::sync::Arc;

use tokenbus_worker::engine::llama::{Extras, LlamaEngine, LlamaOptions, LlamaRuntime};
use tokenbus_worker::engine::openai::{OpenAiEngine, OpenAiOptions};
use tokenbus_worker::engine::{Engine, Overrides};

use super::model::{self, Model, ModelSpec};
use super::provision::Provisioner;
use crate::failure::Failure;
use crate::ui::Screen;

/// The engine and its model.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct EngineArgs {
    /// Serve this OpenAI-compatible server, which runs already, instead of the default engine: Ollama is
    /// http://127.0.0.1:11434/v1, vLLM http://127.0.0.1:8000/v1
    #[arg(long, value_name = "URL", conflicts_with_all = ["model", "ctx", "threads", "gpu_layers"])]
    url: Option<String>,

    /// Model to serve: a GGUF file, or hf:owner/repo[:file] to download one
    /// [default: SmolLM2-135M-Instruct]
    #[arg(long, value_name = "FILE|hf:OWNER/REPO[:FILE]")]
    model: Option<ModelSpec>,

    /// Requests that the model serves at once [default: two per core, 2 to 8; with --url as the server tells]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    slots: Option<u32>,

    /// Context length of each slot, tokens [default: 4096, or what the model was trained for]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(16..))]
    ctx: Option<u32>,

    /// Threads of the engine [default: the physical cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,

    /// Layers of the model that run on the GPU; 0 for none [default: as many as fit]. It takes a llama-server with GPU
    /// support on PATH
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    gpu_layers: Option<u32>,
}

/// What the engine needs, all of it on this machine.
pub(super) enum Provided {
    /// llama.cpp and a model.
    Llama { runtime: LlamaRuntime, model: Model },
    /// A server at this URL.
    Server(String),
}

impl EngineArgs {
    /// Installs what is missing.
    pub(super) async fn provide(&self, provisioner: &Provisioner, screen: &Screen) -> Result<Provided, Failure> {
        if let Some(url) = &self.url {
            return Ok(Provided::Server(url.clone()));
        }
        let (runtime, model) = tokio::try_join!(async { provisioner.llama().await.map_err(Failure::from) }, async {
            model::obtain(self.model.as_ref(), provisioner, screen)
                .await
                .map_err(Failure::from)
        },)?;
        Ok(Provided::Llama { runtime, model })
    }

    /// Starts the engine; it may still load its model when this returns.
    pub(super) async fn start(&self, provided: Provided, log_dir: PathBuf) -> Result<Arc<dyn Engine>, Failure> {
        match provided {
            Provided::Llama { runtime, model } => {
                let options = LlamaOptions {
                    runtime,
                    model_path: model.file,
                    model: Some(model.name),
                    slots: self.slots,
                    context: self.ctx,
                    threads: self.threads,
                    gpu_layers: self.gpu_layers,
                    cache_ram_mib: None,
                    extras: Extras::default(),
                    overrides: Overrides::default(),
                    log_dir,
                };
                Ok(LlamaEngine::start(options).await?)
            }
            Provided::Server(url) => {
                let options = OpenAiOptions {
                    url: Some(url),
                    slots: self.slots,
                    ..OpenAiOptions::default()
                };
                Ok(OpenAiEngine::start(options).await?)
            }
        }
    }
}
