//! `tokenbus status` and `tokenbus top`: models, workers and coordinators as a table; `tokenbus trace`: one request.

mod collect;
mod error;
mod limits;
mod screen;
mod table;
mod top;
mod trace;
mod view;

use std::io;
use std::process::ExitCode;

use tokenbus_bus::BusOptions;
use tokenbus_protocol::Name;

pub(crate) use error::StatusError;
pub(crate) use view::SortKey;

use crate::ui;
use view::{Order, Source};

/// Exit status when no coordinator answers: what is shown is what the workers said.
const NO_COORDINATOR: u8 = 3;

/// Show models, workers, slots and tokens per second
///
/// The exit status is 1 when NATS cannot be reached, and 3 when no coordinator answers: the table then shows
/// what the workers themselves said within 1.2 s.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct StatusArgs {
    /// Print JSON rather than a table
    #[arg(long)]
    json: bool,

    /// Sort models and workers by this
    #[arg(long, value_enum, default_value_t)]
    sort: SortKey,
}

/// Show models, workers, slots and tokens per second, live
///
/// Keys: n name, a active, u queued, f free, t tokens/s, l latency, r reverse, q quit. When standard output is
/// no terminal, one table is printed each second.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct TopArgs {
    /// Sort models and workers by this at first
    #[arg(long, value_enum, default_value_t)]
    sort: SortKey,
}

/// Show what happened to one request: where it was sent, waited, moved and ended
///
/// Gateways keep the stories of the requests of the last hour, as many as fit in 16 MiB. The exit status is 1 when
/// NATS cannot be reached or no gateway knows the request.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct TraceArgs {
    /// The request's id: the x-request-id of its answer, or the answer's own id
    #[arg(value_name = "REQUEST_ID")]
    request: String,

    /// Print JSON rather than text
    #[arg(long)]
    json: bool,
}

/// Runs `tokenbus trace`.
///
/// # Errors
/// [`StatusError`] when NATS is not reachable, no gateway knows the request, or the output is closed.
pub(crate) async fn trace(args: TraceArgs, bus: BusOptions, namespace: Name) -> Result<ExitCode, StatusError> {
    let bus = collect::connect(&bus).await?;
    let told = trace::ask(&bus, &namespace, &args.request).await?;
    if told.is_empty() {
        return Err(StatusError::UnknownRequest(args.request));
    }
    let text = if args.json {
        serde_json::to_string_pretty(&told)?
    } else {
        trace::text(&told)
    };
    unless_closed(ui::println(text))?;
    Ok(ExitCode::SUCCESS)
}

/// Runs `tokenbus status`.
///
/// # Errors
/// [`StatusError`] when NATS is not reachable, or the output is closed.
pub(crate) async fn status(args: StatusArgs, bus: BusOptions, namespace: Name) -> Result<ExitCode, StatusError> {
    let bus = collect::connect(&bus).await?;
    let mut view = collect::view(&bus, &namespace).await?;
    Order {
        key: args.sort,
        reversed: false,
    }
    .sort(&mut view.capacity);
    let text = if args.json {
        serde_json::to_string_pretty(&view)?
    } else {
        table::plain(&table::lines(&view, usize::MAX))
    };
    unless_closed(ui::println(text))?;
    if view.source == Source::Workers {
        ui::complain(format_args!(
            "error: no coordinator answers in cluster {namespace}; shown is what the workers said within {:?}",
            limits::STATUSES
        ));
        return Ok(ExitCode::from(NO_COORDINATOR));
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs `tokenbus top` until `q`, Ctrl-C or SIGTERM.
///
/// # Errors
/// [`StatusError`] when NATS is not reachable at first, or the terminal cannot be used.
pub(crate) async fn top(args: TopArgs, bus: BusOptions, namespace: Name) -> Result<ExitCode, StatusError> {
    let bus = collect::connect(&bus).await?;
    let top = top::Top::new(
        bus,
        namespace,
        Order {
            key: args.sort,
            reversed: false,
        },
    )
    .await?;
    unless_closed(top.run().await)?;
    Ok(ExitCode::SUCCESS)
}

/// Nobody reading any more (`| head`) is an end, not an error.
fn unless_closed(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
