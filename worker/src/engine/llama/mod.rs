//! llama.cpp's own server as a supervised child: an engine for machines with nothing else installed.
//!
//! All that speaks HTTP is the `openai` engine's; here is only how the server is started.

mod cache_slots;
mod command;
mod limits;

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use tokio::sync::watch;

pub use command::LlamaRuntime;

use serde::Deserialize;
use serde_json::value::RawValue;
use tokenbus_protocol::{Delta, EngineError, Finish, RequestKind, SlotsFrom};
use uuid::Uuid;

use crate::engine::openai::{EngineCommand, ModelSpec, OpenAiEngine, OpenAiOptions, StartError};
use crate::engine::{Closed, Engine, EngineInfo, Job, Overrides, Running, Sink};
use crate::sync::lock;
use cache_slots::CacheSlots;
use command::Settings;

/// Options of [`LlamaEngine`].
#[derive(Debug, Clone)]
pub struct LlamaOptions {
    /// Where the server comes from.
    pub runtime: LlamaRuntime,
    /// The model, a GGUF file.
    pub model_path: PathBuf,
    /// Its name for clients; absent: the file's name without its ending.
    pub model: Option<String>,
    /// Requests at once; absent: by the number of cores.
    pub slots: Option<u32>,
    /// Tokens of context per request; absent: 4096. Less where the model was trained for less.
    pub context: Option<u32>,
    /// Threads of the computation; absent: llama.cpp's choice, the physical cores.
    pub threads: Option<u32>,
    /// Layers of the model that run on the GPU; absent: llama.cpp's choice, as many as fit.
    pub gpu_layers: Option<u32>,
    /// MiB of the host's memory for prompts that no slot has; absent: llama.cpp's choice, 8 GiB.
    pub cache_ram_mib: Option<u32>,
    /// What it serves beside text.
    pub extras: Extras,
    /// What the model can do and cannot, where the operator knows better than the server tells.
    pub overrides: Overrides,
    /// Folder for the server's output.
    pub log_dir: PathBuf,
}

/// What llama.cpp's server does only when it is told so at its start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extras {
    /// Embeddings.
    pub embeddings: bool,
    /// How the vectors of a text's tokens become one; absent: as the model was made for.
    pub pooling: Option<Pooling>,
    /// Rerank, which takes a model made for it.
    pub reranking: bool,
}

/// How the vectors of a text's tokens become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// The first token's.
    Cls,
    /// The last token's.
    Last,
}

impl Pooling {
    /// Its name at the server.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Cls => "cls",
            Self::Last => "last",
        }
    }
}

/// llama.cpp's server and its one model.
pub struct LlamaEngine {
    engine: Arc<OpenAiEngine>,
    slots: Arc<Mutex<CacheSlots>>,
}

impl LlamaEngine {
    /// Starts the server. Returns before the model is loaded: see [`Engine::info`].
    ///
    /// # Errors
    /// [`StartError`] when the model is no GGUF file or the server cannot be started.
    pub async fn start(options: LlamaOptions) -> Result<Arc<Self>, StartError> {
        check_model(&options.model_path)?;
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let slots = CacheSlots::new(slots(&options, cores), options.cache_ram_mib != Some(0));
        let engine = OpenAiEngine::start(openai_options(&options, cores)).await?;
        let slots = Arc::new(Mutex::new(slots));
        Ok(Arc::new(Self { engine, slots }))
    }

    /// Where the server's output goes.
    pub fn log_path(&self) -> Option<&Path> {
        self.engine.log_path()
    }

    /// The last lines that the server wrote, oldest first.
    pub fn log_tail(&self) -> Vec<String> {
        self.engine.log_tail()
    }
}

impl Engine for LlamaEngine {
    fn info(&self) -> watch::Receiver<EngineInfo> {
        self.engine.info()
    }

    fn generate(&self, job: Job, sink: Box<dyn Sink>) -> Running {
        if !one_slot(&job) {
            if !matches!(job.kind, RequestKind::Tokenize | RequestKind::Detokenize) {
                lock(&self.slots).scatter();
            }
            return self.engine.generate(job, sink);
        }
        let id = job.id;
        let slot = lock(&self.slots).begin(id, job.prompt.cuts());
        let slots = Arc::clone(&self.slots);
        let in_slot = InSlot {
            sink,
            stay: Stay { slots, id },
        };
        self.engine.generate_in(job, Box::new(in_slot), slot)
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        self.engine.stop()
    }
}

/// Whether the request takes one slot, and no more.
fn one_slot(job: &Job) -> bool {
    #[derive(Deserialize)]
    struct Many<'a> {
        n: Option<f64>,
        #[serde(borrow)]
        prompt: Option<&'a RawValue>,
    }
    let generated = matches!(job.kind, RequestKind::Chat | RequestKind::Completion);
    let resumed = job.resume.as_ref().map_or(0, |resume| resume.choices.len());
    generated
        && resumed <= 1
        && serde_json::from_slice::<Many<'_>>(&job.body).is_ok_and(|many| {
            many.n.unwrap_or(1.0) <= 1.0 && many.prompt.is_none_or(|prompt| prompt.get().starts_with('"'))
        })
}

/// Where the output of a request goes that runs in a slot.
struct InSlot {
    sink: Box<dyn Sink>,
    stay: Stay,
}

/// The slot is idle again when this is dropped.
struct Stay {
    slots: Arc<Mutex<CacheSlots>>,
    id: Uuid,
}

impl Drop for Stay {
    fn drop(&mut self) {
        lock(&self.slots).end(self.id);
    }
}

impl Sink for InSlot {
    fn delta(&mut self, delta: Delta<'_>) -> Result<(), Closed> {
        self.sink.delta(delta)
    }

    fn congestion(&self) -> Option<BoxFuture<'static, ()>> {
        self.sink.congestion()
    }

    fn finish(self: Box<Self>, finish: Finish) {
        let Self { sink, stay } = *self;
        // Before the next request can come for its slot.
        drop(stay);
        sink.finish(finish);
    }

    fn fail(self: Box<Self>, error: EngineError) {
        let Self { sink, stay } = *self;
        drop(stay);
        sink.fail(error);
    }
}

fn slots(options: &LlamaOptions, cores: usize) -> u32 {
    options.slots.unwrap_or_else(|| limits::default_slots(cores)).max(1)
}

fn openai_options(options: &LlamaOptions, cores: usize) -> OpenAiOptions {
    let slots = slots(options, cores);
    let context = options.context.unwrap_or(limits::DEFAULT_CONTEXT).max(1);
    let name = options
        .model
        .clone()
        .unwrap_or_else(|| default_name(&options.model_path));
    let settings = Settings {
        model_path: options.model_path.to_string_lossy().into_owned(),
        alias: name.clone(),
        slots,
        total_context: u64::from(slots) * u64::from(context),
        threads: options.threads,
        gpu_layers: options.gpu_layers,
        cache_ram_mib: options.cache_ram_mib,
        embeddings: options.extras.embeddings,
        pooling: options.extras.pooling.map(Pooling::as_str),
        reranking: options.extras.reranking,
    };
    let mut command = EngineCommand::new(command::words(&options.runtime, &settings), &options.log_dir);
    command.log_name = "llama.log".to_owned();
    OpenAiOptions {
        models: vec![ModelSpec {
            name: name.clone(),
            upstream: name,
        }],
        slots: Some(slots),
        slots_from: options.slots.map_or(SlotsFrom::Default, |_| SlotsFrom::Flag),
        overrides: options.overrides,
        command: Some(command),
        engine: "llama",
        start_timeout: limits::START_TIMEOUT,
        ..OpenAiOptions::default()
    }
}

/// `SmolLM2-135M-Instruct.Q4_1.gguf` → `SmolLM2-135M-Instruct.Q4_1`.
fn default_name(path: &Path) -> String {
    path.file_stem()
        .map_or_else(|| "model".to_owned(), |stem| stem.to_string_lossy().into_owned())
}

/// A wrong file is told at once rather than as a crash of the server.
fn check_model(path: &Path) -> Result<(), StartError> {
    let refused = |reason: String| StartError::ModelFile {
        path: path.to_owned(),
        reason,
    };
    let mut magic = [0; 4];
    std::fs::File::open(path)
        .and_then(|mut file| file.read_exact(&mut magic))
        .map_err(|error| refused(error.to_string()))?;
    if &magic == b"GGUF" {
        Ok(())
    } else {
        Err(refused("it is no GGUF file".to_owned()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn options() -> LlamaOptions {
        LlamaOptions {
            runtime: LlamaRuntime::LlamaServer("llama-server".into()),
            model_path: "/models/Smol.Q4_1.gguf".into(),
            model: None,
            slots: None,
            context: None,
            threads: None,
            gpu_layers: None,
            cache_ram_mib: None,
            extras: Extras::default(),
            overrides: Overrides::default(),
            log_dir: "/logs".into(),
        }
    }

    #[test]
    fn a_model_is_named_by_its_file_unless_told() {
        let by_file = openai_options(&options(), 2);
        assert_eq!(by_file.models[0].name, "Smol.Q4_1");
        assert_eq!(by_file.engine, "llama");
        let told = openai_options(
            &LlamaOptions {
                model: Some("smol".to_owned()),
                ..options()
            },
            2,
        );
        assert_eq!(told.models[0].name, "smol");
    }

    #[test]
    fn the_context_is_per_slot() {
        let told = openai_options(
            &LlamaOptions {
                slots: Some(3),
                context: Some(1000),
                ..options()
            },
            2,
        );
        let words = told.command.unwrap().words;
        let after = |name: &str| words[words.iter().position(|word| word == name).unwrap() + 1].clone();
        assert_eq!(
            (after("--parallel"), after("--ctx-size")),
            ("3".to_owned(), "3000".to_owned())
        );
        assert_eq!((told.slots, told.slots_from), (Some(3), SlotsFrom::Flag));
    }

    #[test]
    fn what_is_no_model_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.gguf");
        assert!(matches!(check_model(&path), Err(StartError::ModelFile { .. })));
        for content in [&b""[..], b"GGU", b"version https://git-lfs"] {
            std::fs::write(&path, content).unwrap();
            assert!(check_model(&path).is_err());
        }
        std::fs::write(&path, b"GGUF....").unwrap();
        assert!(check_model(&path).is_ok());
    }
}
