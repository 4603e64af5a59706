//! `tokenbus sim-server`: the simulated engine behind an OpenAI-compatible HTTP endpoint.
//!
//! This module has its flags; the engine and its server are in `tokenbus-sim`.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokenbus_protocol::SlotsFrom;
use tokenbus_sim::{Server, SimEngine, SimOptions};
use tokenbus_worker::engine::Overrides;

use crate::failure::Failure;
use crate::listen::Listen;
use crate::shared::duration;
use crate::{signals, ui};

/// A simulated engine with an OpenAI-compatible HTTP endpoint, for benchmarks and tests only
///
/// It has no model: the n-th token of every answer is `tN `. An answer ends after max_tokens with finish_reason length, or
/// after 16 tokens with stop if the request has no limit. All streams step together, as in continuous batching: one token each, every
/// --itl, the first one --ttft after the request.
///
/// It runs in one thread, so that the measured server has the rest of the machine. With --itl 0 an
/// answer is not paced: it leaves whole, or in blocks of 16 KiB.
///
/// Endpoints: POST /v1/chat/completions (streaming and not), GET /v1/models, /health, /metrics. A member `sim`
/// in a request's body scripts faults: {"error_after": 3}, {"hang_after": 3}, {"drop_after": 3}, {"ttft_ms": 500}.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Address of the endpoint; its port 0 lets the system choose
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8000")]
    listen: Listen,

    /// Name of a model that it serves, any name (repeatable)
    #[arg(long, value_name = "NAME", default_value = "sim")]
    model: Vec<String>,

    /// Time from a request to its first token
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "20ms")]
    ttft: Duration,

    /// Time between two tokens of a stream
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "10ms")]
    itl: Duration,

    /// Requests that run at once; more of them wait, first come, first served [default: no limit]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    slots: Option<u32>,
}

/// Runs the subcommand: prints the address, and serves until the first signal, which cuts what still runs.
pub(crate) async fn run(args: Args) -> Result<ExitCode, Failure> {
    let shutdown = signals::shutdown()?;
    let listener = args.listen.bind().await?;
    let address = listener.local_addr()?;
    let engine = SimEngine::start(SimOptions {
        models: args.model.clone(),
        slots: args.slots.unwrap_or(u32::MAX),
        slots_from: SlotsFrom::Flag,
        ttft: args.ttft,
        itl: args.itl,
        context_length: None,
        overrides: Overrides::default(),
    });
    let server = Server::new(engine, &args.model, args.slots, args.itl.is_zero());
    ui::println(format_args!("listening on http://{address}/v1"))?;
    tokio::select! {
        () = tokenbus_sim::serve(listener, Arc::new(server)) => {}
        () = shutdown.cancelled() => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs `tokenbus floor-server`: prints the address, and serves until a signal ends the process.
pub(crate) fn floor(args: &tokenbus_loadgen::FloorArgs) -> Result<ExitCode, Failure> {
    let mut told = Ok(());
    tokenbus_loadgen::serve_floor(args, |address| {
        told = ui::println(format_args!("listening on http://{address}/v1"));
    })?;
    told?;
    Ok(ExitCode::SUCCESS)
}
