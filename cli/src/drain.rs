//! `tokenbus drain`: tells a worker over the bus to take nothing new, or to take requests again.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use async_nats::RequestErrorKind;
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokenbus_bus::{Bus, BusError, Subscription};
use tokenbus_protocol::{
    Control, ControlReply, DecodeError, Drain, EncodeError, Name, Ping, Status, Subjects, Undrain, WorkerState, decode,
    encode,
};
use tokio::time::timeout;

use crate::failure::Failure;
use crate::limits::{DRAIN_ANSWER, DRAIN_CONNECT, DRAIN_SILENCE};
use crate::shared::{BusArgs, Shared, duration};
use crate::ui;

/// Exit status when no worker has this id.
const NO_WORKER: u8 = 3;
/// Exit status when the worker refuses, or when somebody undoes the drain while this waits.
const REFUSED: u8 = 4;

/// Let a worker finish what it has and take nothing new
///
/// The worker stays: it can be stopped without loss, or take requests again after --undo. The exit status is
/// 0 when it is done, 1 when NATS or the worker does not answer, 3 when there is no such worker, and 4 when
/// the worker refuses.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    bus: BusArgs,

    /// The worker's id, as `tokenbus status` shows it
    #[arg(value_name = "WORKER")]
    worker: Name,

    /// Take requests again
    #[arg(long, conflicts_with = "wait")]
    undo: bool,

    /// Time that running requests have before they are handed to another worker [default: the worker's own];
    /// without a meaning for --undo
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    grace: Option<Duration>,

    /// Wait until nothing runs on it any more
    #[arg(long)]
    wait: bool,
}

/// Errors of a drain.
#[derive(Debug, thiserror::Error)]
enum DrainError {
    /// No server answered in time.
    #[error("NATS is not reachable at {servers}{}", because(.reason))]
    Unreachable { servers: String, reason: String },
    /// The bus refused an operation.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The request could not be made or sent.
    #[error("cannot tell the worker: {0}")]
    Send(#[from] async_nats::RequestError),
    /// The message cannot be encoded: a bug.
    #[error("cannot tell the worker: {0}")]
    Encode(#[from] EncodeError),
    /// No worker with this id listens.
    #[error("there is no worker {worker} in cluster {namespace}; `tokenbus status` lists those that there are")]
    NoWorker { worker: Name, namespace: Name },
    /// The worker listens but does not answer: it hangs, or its connection is cut.
    #[error("worker {worker} does not answer within {DRAIN_ANSWER:?}")]
    NoAnswer { worker: Name },
    /// The worker refuses.
    #[error("worker {worker} refuses: {message}")]
    Refused { worker: Name, message: String },
    /// The answer is of another version.
    #[error("the worker's answer is not understood: {0}")]
    Answer(#[from] DecodeError),
    /// The answer belongs to another request.
    #[error("worker {worker} answers something else than was asked")]
    OtherAnswer { worker: Name },
    /// Somebody undid the drain.
    #[error("worker {worker} takes requests again: somebody undid the drain, or it was restarted")]
    Undone { worker: Name },
    /// The connection ended.
    #[error("the connection to NATS is closed")]
    Closed,
    /// The output is closed.
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

fn because(reason: &str) -> String {
    if reason.is_empty() {
        String::new()
    } else {
        format!(": {reason}")
    }
}

impl DrainError {
    fn status(&self) -> u8 {
        match self {
            Self::NoWorker { .. } => NO_WORKER,
            Self::Refused { .. } | Self::Undone { .. } => REFUSED,
            Self::Unreachable { .. }
            | Self::Bus(_)
            | Self::Send(_)
            | Self::Encode(_)
            | Self::NoAnswer { .. }
            | Self::Answer(_)
            | Self::OtherAnswer { .. }
            | Self::Closed
            | Self::Output(_) => 1,
        }
    }
}

/// Runs the subcommand.
pub(crate) async fn run(args: Args) -> Result<ExitCode, Failure> {
    match carry_out(&args).await {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            ui::complain(format_args!("error: {error}"));
            Ok(ExitCode::from(error.status()))
        }
    }
}

async fn carry_out(args: &Args) -> Result<(), DrainError> {
    let operator = Operator::connect(args).await?;
    let worker = &args.worker;
    if args.undo {
        operator.tell(&Control::Undrain(Undrain {})).await?;
        return Ok(ui::println(format_args!("worker {worker} takes requests again"))?);
    }
    // Subscribe before the worker is told, so that no status is missed.
    let statuses = operator.bus.subscribe(operator.subjects.status(worker)).await?;
    let grace_ms = args
        .grace
        .map(|grace| u64::try_from(grace.as_millis()).unwrap_or(u64::MAX));
    operator.tell(&Control::Drain(Drain { grace_ms })).await?;
    let given = match args.grace {
        Some(grace) => humantime::format_duration(grace).to_string(),
        None => "its own grace period".to_owned(),
    };
    ui::println(format_args!(
        "worker {worker} takes no new requests; running ones have {given}"
    ))?;
    if args.wait {
        let end = operator.idle(statuses).await?;
        ui::println(format_args!("worker {worker} {end}"))?;
    }
    Ok(())
}

/// A connection to the bus, and the worker to drain.
struct Operator {
    bus: Bus,
    subjects: Subjects,
    worker: Name,
}

impl Operator {
    async fn connect(args: &Args) -> Result<Self, DrainError> {
        let Shared {
            bus: options,
            namespace,
        } = args.bus.shared("tokenbus drain");
        let bus = Bus::connect(&options).await?;
        if timeout(DRAIN_CONNECT, bus.connected()).await.is_err() {
            let reason = bus.link().borrow().reason.clone();
            let servers = options.display_urls();
            return Err(DrainError::Unreachable { servers, reason });
        }
        Ok(Self {
            bus,
            subjects: Subjects::new(namespace),
            worker: args.worker.clone(),
        })
    }

    /// Asks the worker and waits for its answer.
    async fn ask(&self, control: &Control) -> Result<ControlReply, DrainError> {
        let worker = || self.worker.clone();
        let message = Bytes::from(encode(control)?);
        let asked = self.bus.client().request(self.subjects.control(&self.worker), message);
        match timeout(DRAIN_ANSWER, asked).await {
            Err(_) => Err(DrainError::NoAnswer { worker: worker() }),
            Ok(Ok(answer)) => Ok(decode(&answer.payload)?),
            Ok(Err(error)) if error.kind() == RequestErrorKind::NoResponders => Err(DrainError::NoWorker {
                worker: worker(),
                namespace: self.subjects.namespace().clone(),
            }),
            Ok(Err(error)) => Err(error.into()),
        }
    }

    /// Sends the worker a command. It has done or begun it when this returns.
    async fn tell(&self, control: &Control) -> Result<(), DrainError> {
        let worker = self.worker.clone();
        match self.ask(control).await? {
            ControlReply::Done(_) => Ok(()),
            ControlReply::Refused(refused) => Err(DrainError::Refused {
                worker,
                message: refused.message,
            }),
            ControlReply::Pong(_) | ControlReply::Unknown => Err(DrainError::OtherAnswer { worker }),
        }
    }

    /// Waits until the worker reports that nothing runs on it, or until it is gone.
    async fn idle(&self, mut statuses: Subscription) -> Result<Idle, DrainError> {
        let mut watch = Watch::default();
        loop {
            let step = match timeout(DRAIN_SILENCE, statuses.next()).await {
                Ok(Some(message)) => match decode::<Status>(&message.payload) {
                    Ok(status) => watch.on_status(&status),
                    Err(error) => {
                        tracing::warn!(%error, "a status that is not understood");
                        Step::Wait
                    }
                },
                Ok(None) => return Err(DrainError::Closed),
                // The worker is silent: ask whether it is there at all.
                Err(_) => match self.ask(&Control::Ping(Ping {})).await {
                    Ok(_) => Step::Wait,
                    Err(DrainError::NoWorker { .. }) => Step::Idle(Idle::Gone),
                    Err(error) => return Err(error),
                },
            };
            match step {
                Step::Wait => {}
                Step::Idle(idle) => return Ok(idle),
                Step::Undone => {
                    let worker = self.worker.clone();
                    return Err(DrainError::Undone { worker });
                }
            }
        }
    }
}

/// Reasons why nothing runs on a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Idle {
    /// It has finished everything.
    Drained,
    /// It has ended.
    Gone,
}

impl std::fmt::Display for Idle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Drained => "is drained: nothing runs on it",
            Self::Gone => "has ended",
        })
    }
}

/// The meaning of a status for the wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Wait,
    Idle(Idle),
    Undone,
}

/// The statuses so far.
#[derive(Debug, Default)]
struct Watch {
    draining: bool,
}

impl Watch {
    fn on_status(&mut self, status: &Status) -> Step {
        match status.report.state {
            WorkerState::Stopped => Step::Idle(Idle::Gone),
            WorkerState::Draining if status.report.active == 0 && status.report.queued == 0 => {
                Step::Idle(Idle::Drained)
            }
            WorkerState::Draining => {
                self.draining = true;
                Step::Wait
            }
            // The worker sent it before it was told, but it is read after its answer.
            WorkerState::Starting | WorkerState::Ready | WorkerState::Unavailable if !self.draining => Step::Wait,
            WorkerState::Starting | WorkerState::Ready | WorkerState::Unavailable => Step::Undone,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use tokenbus_protocol::{Quantiles, Totals, WorkerReport};

    use super::*;

    fn status(state: WorkerState, active: u32, queued: u32) -> Status {
        Status {
            report: WorkerReport {
                worker: Name::new("w").unwrap(),
                instance: 1,
                seq: 1,
                version: String::new(),
                host: String::new(),
                engine: "sim".to_owned(),
                state,
                started_at_ms: 0,
                models: vec![],
                slots: 4,
                active,
                queued,
                tokens_per_second: 0.0,
                ttft: Quantiles::default(),
                itl: Quantiles::default(),
                kv_used: None,
                slots_from: None,
            },
            totals: Totals::default(),
            loads: Vec::new(),
        }
    }

    fn steps(statuses: &[(WorkerState, u32, u32)]) -> Vec<Step> {
        let mut watch = Watch::default();
        let step =
            |(state, active, queued): &(WorkerState, u32, u32)| watch.on_status(&status(*state, *active, *queued));
        statuses.iter().map(step).collect()
    }

    use WorkerState::{Draining, Ready, Stopped, Unavailable};

    #[test]
    fn it_is_drained_when_nothing_runs_and_nothing_waits() {
        let told = steps(&[(Draining, 2, 1), (Draining, 0, 1), (Draining, 0, 0)]);
        assert_eq!(told, [Step::Wait, Step::Wait, Step::Idle(Idle::Drained)]);
    }

    #[test]
    fn a_status_from_before_the_drain_means_nothing() {
        let told = steps(&[(Ready, 0, 0), (Unavailable, 0, 0), (Draining, 0, 0)]);
        assert_eq!(told, [Step::Wait, Step::Wait, Step::Idle(Idle::Drained)]);
    }

    #[test]
    fn a_drain_that_somebody_undid_is_noticed() {
        assert_eq!(steps(&[(Draining, 1, 0), (Ready, 1, 0)]), [Step::Wait, Step::Undone]);
    }

    #[test]
    fn a_worker_that_ends_has_nothing_running() {
        assert_eq!(
            steps(&[(Draining, 1, 0), (Stopped, 0, 0)]),
            [Step::Wait, Step::Idle(Idle::Gone)]
        );
    }
}
