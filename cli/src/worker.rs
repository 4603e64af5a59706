//! `tokenbus worker`: flags to an engine and to [`Options`].

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokenbus_protocol::{Feature, Label, Labels, Name, SlotsFrom};
use tokenbus_sim::{SimEngine, SimOptions};
use tokenbus_worker::Options;
use tokenbus_worker::engine::llama::{Extras, LlamaEngine, LlamaOptions, Pooling};
use tokenbus_worker::engine::openai::{
    ApiKey, EngineCommand, ModelSpec as ServedModel, OpenAiEngine, OpenAiOptions, Streaming,
};
use tokenbus_worker::engine::{Engine, Overrides};

use crate::failure::{Failure, Unusable};
use crate::shared::{BusArgs, TracingArgs, duration, threads};
use crate::size::Size;
use crate::ui::Screen;
use crate::up::cache::Cache;
use crate::up::model::{self, ModelSpec};
use crate::up::provision::Provisioner;
use crate::{health, signals};

/// Serve models: take requests from the bus, stream tokens back
///
/// A worker dials NATS and listens nowhere, so it can stand behind any firewall. The engine generates the tokens: any
/// OpenAI-compatible server, llama.cpp run by this worker, or a simulation.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    bus: BusArgs,

    /// What generates the tokens
    #[arg(long, value_enum, value_name = "ENGINE")]
    engine: EngineKind,

    /// Model to serve, repeatable. openai: NAME, or NAME=UPSTREAM where the server calls it otherwise
    /// [default: all that the server lists]. llama: the name for clients [default: the file's].
    /// sim: any name
    #[arg(long, value_name = "NAME")]
    model: Vec<String>,

    /// Feature that the engine has, whatever it tells, repeatable: chat, completion, embeddings, rerank, score,
    /// tokenize, tools, json_schema, vision, audio, logprobs
    #[arg(long, value_name = "FEATURE", value_parser = feature)]
    capability: Vec<Feature>,

    /// Feature that the engine does not have, whatever it tells, repeatable; also: continuation
    #[arg(long, value_name = "FEATURE", value_parser = feature)]
    no_capability: Vec<Feature>,

    /// Requests that run at once [default: openai: what the server tells; llama: two per core, 2 to 8; sim: 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    slots: Option<u32>,

    /// Requests accepted beyond the slots; the usual place to wait is the gateway
    #[arg(long, value_name = "N", default_value_t = 0)]
    queue: u32,

    /// Id of this worker, unlike any other's [default: the host's name with a random suffix]
    #[arg(long, value_name = "NAME")]
    id: Option<Name>,

    /// Label, repeatable, as in region=eu: keys can be bound to workers with it
    #[arg(long, value_name = "NAME=VALUE")]
    label: Vec<Label>,

    /// Tier: workers of tier 1 get requests only when those of tier 0 would make them wait, and so on
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=15))]
    tier: u32,

    /// Time that running requests have after SIGTERM, before they are handed to another worker
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "30s")]
    grace: Duration,

    #[command(flatten)]
    trace: TracingArgs,

    /// File that says each second whether the engine is well, for `tokenbus health` with the same flag
    #[arg(long, value_name = "FILE")]
    health_file: Option<PathBuf>,

    /// Threads that carry tokens from the engine to the bus [default: half of the processors, at most 8]
    #[arg(long, value_name = "N", value_parser = threads)]
    pub(crate) io_threads: Option<usize>,

    #[command(flatten)]
    openai: OpenAiArgs,

    #[command(flatten)]
    llama: LlamaArgs,

    #[command(flatten)]
    sim: SimArgs,
}

/// What generates the tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum EngineKind {
    /// Any OpenAI-compatible server: vLLM, SGLang, llama-server, Ollama, a provider.
    Openai,
    /// llama.cpp's server, run by this worker.
    Llama,
    /// A simulation: tokens t0 t1 t2 … at set times.
    Sim,
}

#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Engine openai")]
struct OpenAiArgs {
    /// Base URL of the server, as in http://127.0.0.1:8000/v1
    #[arg(long, value_name = "URL")]
    url: Option<String>,

    /// Command that starts the server, run and restarted by this worker; {port} and {host} are filled in
    #[arg(long, value_name = "COMMAND")]
    engine_command: Option<String>,

    /// How long a started server may load before it is started again
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "30m")]
    engine_start_timeout: Duration,

    /// Folder for the output of a started server [default: a folder in the cache]
    #[arg(long, value_name = "FOLDER")]
    engine_log_dir: Option<PathBuf>,

    /// What is asked as a stream: auto (what the server is known to stream well), always, or never
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    engine_streams: Streaming,

    /// Longest silence of a server whose answers have begun, beyond which it counts as hung [default: measured]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    engine_token_timeout: Option<Duration>,

    /// Longest wait for a first token from a server that brings nothing else meanwhile, beyond which it counts as hung
    /// [default: a prefill may take any time]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    engine_first_token_timeout: Option<Duration>,

    /// API key for the server
    #[arg(
        long,
        value_name = "KEY",
        hide_env_values = true,
        conflicts_with = "engine_api_key_file"
    )]
    engine_api_key: Option<String>,

    /// File with the API key for the server; read again when the server refuses it
    #[arg(long, value_name = "FILE")]
    engine_api_key_file: Option<PathBuf>,
}

#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Engine llama")]
struct LlamaArgs {
    /// Model: a GGUF file, or hf:owner/repo[:file] to download one [default: SmolLM2-135M-Instruct]
    #[arg(long, value_name = "FILE")]
    model_path: Option<ModelSpec>,

    /// Context length of each slot, tokens [default: 4096, or what the model was trained for]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(16..))]
    ctx: Option<u32>,

    /// Threads of the engine [default: the physical cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,

    /// Layers of the model that run on the GPU; 0 for none [default: as many as fit]. The default engine's package
    /// has no GPU support: put a llama-server that has it on PATH
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    gpu_layers: Option<u32>,

    /// Memory of the host for prompts that no slot has any more; 0 for none [default: llama.cpp's choice, 8GiB]
    #[arg(long, value_name = "SIZE")]
    cache_ram: Option<Size>,

    /// Serve embeddings too; their prompts cost more memory
    #[arg(long)]
    embeddings: bool,

    /// How the vectors of a text's tokens become one [default: as the model was made for]
    #[arg(long, value_enum, value_name = "WAY")]
    pooling: Option<PoolingWay>,

    /// Serve rerank; takes a model made for it
    #[arg(long, conflicts_with = "pooling")]
    reranking: bool,
}

/// How the vectors of a text's tokens become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum PoolingWay {
    /// Their mean; for chat models.
    Mean,
    /// The first token's.
    Cls,
    /// The last token's.
    Last,
}

/// Reads a feature's name.
fn feature(name: &str) -> Result<Feature, String> {
    let mut known = Feature::ALL.iter().filter(|feature| **feature != Feature::Other);
    let found = known.clone().find(|feature| feature.as_str() == name);
    found.copied().ok_or_else(|| {
        let names: Vec<&str> = known.by_ref().map(|feature| feature.as_str()).collect();
        format!("no such feature; there are {}", names.join(", "))
    })
}

#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Engine sim")]
struct SimArgs {
    /// Time from a request to its first token
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "20ms")]
    sim_ttft: Duration,

    /// Time between two tokens
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "10ms")]
    sim_itl: Duration,
}

/// Flags that do not make an engine.
#[derive(Debug, thiserror::Error)]
enum ArgsError {
    #[error("--engine sim needs a name for its model: --model NAME")]
    SimWithoutModel,
    #[error("--engine llama serves one model: name it with one --model, or leave it out")]
    LlamaModels,
    #[error("--engine openai needs --url URL, or --engine-command COMMAND that starts a server")]
    NoServer,
}

/// Requests at once of a simulated engine where nothing else is said.
const SIM_SLOTS: u32 = 4;

/// Runs the subcommand.
pub(crate) async fn run(args: Args) -> Result<ExitCode, Failure> {
    let shutdown = signals::shutdown()?;
    let engine = tokio::select! {
        engine = engine(&args) => engine?,
        () = shutdown.cancelled() => return Ok(ExitCode::SUCCESS),
    };
    let _health = args.health_file.clone().map(|file| health::keep(file, &engine));
    let shared = args.bus.shared("worker");
    let options = Options {
        worker: args.id,
        // What the engine was told, it tells.
        slots: None,
        queue: args.queue,
        grace: args.grace,
        trace_slow: args.trace.trace_slow,
        labels: Labels::new(args.label).map_err(|error| Unusable(error.to_string()))?,
        tier: args.tier,
        ..Options::new(shared.bus, shared.namespace)
    };
    tokenbus_worker::run(options, engine, shutdown).await?;
    Ok(ExitCode::SUCCESS)
}

async fn engine(args: &Args) -> Result<Arc<dyn Engine>, Failure> {
    match args.engine {
        EngineKind::Sim => Ok(SimEngine::start(sim(args)?)),
        EngineKind::Openai => Ok(OpenAiEngine::start(openai(args)?).await?),
        EngineKind::Llama => llama(args).await,
    }
}

fn overrides(args: &Args) -> Result<Overrides, Failure> {
    let set = |features: &[Feature]| features.iter().copied().collect();
    let overrides = Overrides::new(set(&args.capability), set(&args.no_capability));
    overrides.map_err(|error| format!("--capability and --no-capability: {error}").into())
}

fn sim(args: &Args) -> Result<SimOptions, Failure> {
    if args.model.is_empty() {
        return Err(ArgsError::SimWithoutModel.into());
    }
    Ok(SimOptions {
        models: args.model.clone(),
        slots: args.slots.unwrap_or(SIM_SLOTS),
        slots_from: args.slots.map_or(SlotsFrom::Default, |_| SlotsFrom::Flag),
        ttft: args.sim.sim_ttft,
        itl: args.sim.sim_itl,
        context_length: None,
        overrides: overrides(args)?,
    })
}

fn openai(args: &Args) -> Result<OpenAiOptions, Failure> {
    let flags = &args.openai;
    if flags.url.is_none() && flags.engine_command.is_none() {
        return Err(ArgsError::NoServer.into());
    }
    let models = args
        .model
        .iter()
        .map(|model| model.parse::<ServedModel>())
        .collect::<Result<_, _>>()?;
    let command = match &flags.engine_command {
        None => None,
        Some(line) => {
            let command = EngineCommand::parse(line, log_dir(args)?);
            Some(command.map_err(|error| format!("--engine-command: {error}"))?)
        }
    };
    let api_key = match (&flags.engine_api_key, &flags.engine_api_key_file) {
        (_, Some(file)) => ApiKey::File(file.clone()),
        (Some(key), None) => ApiKey::Value(key.clone()),
        (None, None) => ApiKey::None,
    };
    Ok(OpenAiOptions {
        url: flags.url.clone(),
        models,
        overrides: overrides(args)?,
        slots: args.slots,
        api_key,
        command,
        start_timeout: flags.engine_start_timeout,
        streaming: flags.engine_streams,
        token_timeout: flags.engine_token_timeout,
        first_token_timeout: flags.engine_first_token_timeout,
        ..OpenAiOptions::default()
    })
}

/// Where a started server's output goes: a folder that no other worker of this machine uses.
fn log_dir(args: &Args) -> Result<PathBuf, Failure> {
    if let Some(folder) = &args.openai.engine_log_dir {
        return Ok(folder.clone());
    }
    let cache = Cache::from_env(|name| std::env::var_os(name))?;
    let own = args
        .id
        .as_ref()
        .map_or_else(|| std::process::id().to_string(), Name::to_string);
    Ok(cache.root().join("logs").join(format!("worker-{own}")))
}

/// Whole MiB that hold so much. llama.cpp's own number has a sign.
fn mebibytes(size: Size) -> u32 {
    const MOST: usize = 0x7FFF_FFFF;
    u32::try_from(size.0.div_ceil(1 << 20).min(MOST)).unwrap_or_default()
}

/// llama.cpp with a model, both of which may have to be installed first.
async fn llama(args: &Args) -> Result<Arc<dyn Engine>, Failure> {
    if args.model.len() > 1 {
        return Err(ArgsError::LlamaModels.into());
    }
    let screen = Screen::stderr();
    let provisioner = Provisioner::from_env(screen.clone())?;
    let (runtime, model) = tokio::try_join!(async { provisioner.llama().await.map_err(Failure::from) }, async {
        model::obtain(args.llama.model_path.as_ref(), &provisioner, &screen)
            .await
            .map_err(Failure::from)
    },)?;
    let options = LlamaOptions {
        runtime,
        model_path: model.file,
        model: Some(args.model.first().cloned().unwrap_or(model.name)),
        slots: args.slots,
        context: args.llama.ctx,
        threads: args.llama.threads,
        gpu_layers: args.llama.gpu_layers,
        cache_ram_mib: args.llama.cache_ram.map(mebibytes),
        extras: Extras {
            embeddings: args.llama.embeddings,
            pooling: args.llama.pooling.map(|way| match way {
                PoolingWay::Mean => Pooling::Mean,
                PoolingWay::Cls => Pooling::Cls,
                PoolingWay::Last => Pooling::Last,
            }),
            reranking: args.llama.reranking,
        },
        overrides: overrides(args)?,
        log_dir: log_dir(args)?,
    };
    Ok(LlamaEngine::start(options).await?)
}
