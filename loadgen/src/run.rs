//! A run from the flags to the report.

use std::fmt::Display;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{LocalBoxFuture, try_join_all};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::args::{Args, Arrivals};
use super::budget::Budget;
use super::check::{Level, Rules};
use super::conn::{Connector, tls_connector};
use super::error::Error;
use super::exchange::Plan;
use super::limits::FILES_BESIDE_CONNECTIONS;
use super::load::{LoadThread, Phase, ProgressCounts, Shape};
use super::probe;
use super::process_usage::{StartSamples, Work};
use super::progress;
use super::report::{Load, Report};
use super::stats::Stats;
use super::target::{Target, body};

const DEFAULT_CONCURRENCY: u64 = 64;
const DEFAULT_DURATION: Duration = Duration::from_secs(30);

/// Makes the run and writes the report. The exit code says whether every request succeeded.
///
/// # Errors
/// [`Error`] if there could be no run.
// Not an `async fn`, so that its code is compiled in this crate and not in its caller's.
pub fn run(args: Args) -> LocalBoxFuture<'static, Result<ExitCode, Error>> {
    Box::pin(async move {
        let report = make(&args).await?;
        write_report(&args, &report)?;
        Ok(if report.requests.failed + report.requests.cut_off == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    })
}

/// Makes the run.
pub(super) async fn make(args: &Args) -> Result<Report, Error> {
    allow_files(connections(args))?;
    // StartSamples the load, so that a wrong process id does not cost a whole run.
    StartSamples::take(&args.pid)?;
    let target = Arc::new(Target::new(args).await?);
    let tls = if target.tls {
        Some(tls_connector(args.http2)?)
    } else {
        None
    };
    let connector = |shared| Connector::new(Arc::clone(&target), tls.clone(), shared);
    let level = probe::level(args, &target, &connector(args.http2.then_some(1))).await?;
    let rules = Rules {
        level,
        usage: args.usage && args.stream,
        max_tokens: args.max_tokens,
    };
    let request = target.request(body(args, args.max_tokens));
    let request_bytes = request.body.len();
    let plan = Plan {
        request,
        rules,
        stream: args.stream,
        timeout: args.timeout,
        settle: args.settle,
    };
    let shared = shared_connections(args);
    let threads = shapes(args)
        .into_iter()
        .enumerate()
        .map(|(index, shape)| LoadThread::start(connector(shared(index)), plan.clone(), shape));
    let threads: Vec<LoadThread> = threads.collect::<Result<_, _>>().map_err(Error::Thread)?;

    let warmup = warm_up(args, &threads).await?;
    let before = StartSamples::take(&args.pid)?;
    let measured = measure(args, &threads, warmup.interrupted).await?;
    let Measured {
        stats,
        elapsed,
        interrupted,
    } = &measured;
    let (processes, bench) = before.until_now(Work {
        tokens: stats.tokens,
        requests: stats.succeeded + stats.failed,
    });
    let load = load(args, &plan, request_bytes, threads.len(), warmup.stats.failed);
    Ok(Report::new(
        load,
        elapsed.as_secs_f64(),
        *interrupted,
        stats,
        processes,
        bench,
    ))
}

struct Measured {
    stats: Stats,
    elapsed: Duration,
    interrupted: bool,
}

async fn warm_up(args: &Args, threads: &[LoadThread]) -> Result<Measured, Error> {
    if args.warmup == 0 {
        return Ok(Measured {
            stats: Stats::new()?,
            elapsed: Duration::ZERO,
            interrupted: false,
        });
    }
    run_phase(threads, Some(args.warmup), None).await
}

async fn measure(args: &Args, threads: &[LoadThread], interrupted: bool) -> Result<Measured, Error> {
    if interrupted {
        return Ok(Measured {
            stats: Stats::new()?,
            elapsed: Duration::ZERO,
            interrupted,
        });
    }
    let duration = match (args.duration, args.requests) {
        (None, None) => Some(DEFAULT_DURATION),
        (duration, _) => duration,
    };
    run_phase(threads, args.requests, duration).await
}

async fn run_phase(
    threads: &[LoadThread],
    requests: Option<u64>,
    duration: Option<Duration>,
) -> Result<Measured, Error> {
    // The handler is installed by this call. `tokio::signal::ctrl_c` in the `select!` would install it only when it is
    // first polled, and until then the signal ends the process.
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Interrupts)?;
    let start = Instant::now();
    let until = duration.and_then(|d| start.checked_add(d));
    let phase = Phase {
        budget: Arc::new(Budget::new(requests, until)),
        cut: CancellationToken::new(),
        live: Arc::new(ProgressCounts::default()),
    };
    let mut interrupts = 0_u32;
    let mut ended = std::pin::pin!(try_join_all(threads.iter().map(|t| t.run(phase.clone()))));
    let mut shown = std::pin::pin!(progress::show(&phase.live, requests, duration));
    let all = loop {
        tokio::select! {
            biased;
            all = &mut ended => break all?,
            Some(()) = interrupt.recv() => {
                interrupts += 1;
                if interrupts == 1 { phase.budget.stop() } else { phase.cut.cancel() }
            }
            () = &mut shown => {}
        }
    };
    let elapsed = start.elapsed();
    let mut stats = Stats::new()?;
    for one in all {
        stats.merge(one)?;
    }
    Ok(Measured {
        stats,
        elapsed,
        interrupted: interrupts > 0,
    })
}

/// Most requests that the run can have under way.
fn in_flight(args: &Args) -> u64 {
    if args.rate.is_some() {
        args.max_in_flight
    } else {
        args.concurrency.unwrap_or(DEFAULT_CONCURRENCY)
    }
}

/// Most connections that the run can have open.
fn connections(args: &Args) -> u64 {
    let in_flight = in_flight(args);
    if args.http2 {
        args.connections.min(in_flight)
    } else {
        in_flight
    }
}

/// As many as asked for, but no thread is without a connection.
fn threads(args: &Args) -> u64 {
    args.threads.clamp(1, connections(args))
}

/// The share of the thread with this number.
fn share(whole: u64, threads: u64, index: u64) -> usize {
    let extra = u64::from(index < whole % threads);
    usize::try_from(whole / threads + extra).unwrap_or(usize::MAX)
}

/// How many connections each thread's requests share; none with HTTP/1.1.
fn shared_connections(args: &Args) -> impl Fn(usize) -> Option<usize> {
    let (connections, threads, http2) = (connections(args), threads(args), args.http2);
    move |index| http2.then(|| share(connections, threads, u64::try_from(index).unwrap_or(u64::MAX)))
}

/// Divides the load among the threads.
fn shapes(args: &Args) -> Vec<Shape> {
    let (in_flight, threads) = (in_flight(args), threads(args));
    let share = |index| share(in_flight, threads, index);
    let number = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    (0..threads)
        .map(|index| match args.rate {
            None => Shape::Closed {
                connections: share(index),
            },
            Some(rate) => Shape::Open {
                rate,
                arrivals: args.arrivals,
                seed: args.seed,
                index: number(index),
                threads: number(threads),
                in_flight: share(index),
            },
        })
        .collect()
}

/// Raises the limit of open files to the system's maximum, if there are not enough.
fn allow_files(connections: u64) -> Result<(), Error> {
    let wanted = connections.saturating_add(FILES_BESIDE_CONNECTIONS);
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return Ok(());
    };
    if soft >= wanted {
        return Ok(());
    }
    let raised = setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    let allowed = if raised { hard } else { soft };
    if allowed >= wanted {
        Ok(())
    } else {
        Err(Error::Files { wanted, allowed })
    }
}

fn load(args: &Args, plan: &Plan, request_bytes: usize, threads: usize, warmup_failed: u64) -> Load {
    let open = args.rate.is_some();
    let arrivals = match args.arrivals {
        Arrivals::Poisson => "poisson",
        Arrivals::Constant => "constant",
    };
    Load {
        url: args.url.clone(),
        model: args.model.clone().unwrap_or_default(),
        mode: if open { "open" } else { "closed" },
        concurrency: (!open).then(|| in_flight(args)),
        http2_connections: args.http2.then(|| connections(args)),
        rate_per_second: args.rate,
        arrivals: open.then_some(arrivals),
        max_in_flight: open.then_some(args.max_in_flight),
        max_tokens: args.max_tokens,
        request_bytes,
        stream: args.stream,
        check: match plan.rules.level {
            Level::Transport => "off",
            Level::Protocol => "stream",
            Level::Sim => "sim",
        },
        timeout_seconds: args.timeout.as_secs_f64(),
        threads: u64::try_from(threads).unwrap_or(u64::MAX),
        warmup_requests: args.warmup,
        warmup_failed,
    }
}

fn write_report(args: &Args, report: &Report) -> Result<(), Error> {
    let Some(file) = &args.json else {
        return write_to("standard output", std::io::stdout(), report);
    };
    let json = serde_json::to_string_pretty(report).map_err(std::io::Error::from);
    let to_stdout = file.as_deref().is_none_or(|f| f == Path::new("-"));
    if to_stdout {
        let json = json.map_err(|source| Error::Write {
            to: "standard output".to_owned(),
            source,
        })?;
        write_to("standard error", std::io::stderr(), report)?;
        return write_to("standard output", std::io::stdout(), format_args!("{json}\n"));
    }
    write_to("standard output", std::io::stdout(), report)?;
    let path = file.clone().unwrap_or_else(PathBuf::new);
    let written = json.and_then(|json| std::fs::write(&path, json + "\n"));
    written.map_err(|source| Error::Write {
        to: path.display().to_string(),
        source,
    })
}

fn write_to(name: &str, mut to: impl Write, what: impl Display) -> Result<(), Error> {
    let written = write!(to, "{what}").and_then(|()| to.flush());
    written.map_err(|source| Error::Write {
        to: name.to_owned(),
        source,
    })
}
