//! The flags of `tokenbus bench`, and their help.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, ValueEnum};

use super::limits::{MAX_CONCURRENCY, MAX_THREADS};

/// Drive an OpenAI-compatible server, check every answer, and report what it cost.
///
/// With --concurrency N (the default, 64) each of N connections sends its next request when the last one
/// has ended. With --rate R requests start R times a second whatever the server does, and every latency
/// counts from the moment at which the request was due, so that a server that stalls cannot hide it.
///
/// What is measured, in microseconds: ttft, from the start to the first event with output; itl, the gap
/// between two arrivals of output (tokens that arrive together are one arrival and one gap, they add no
/// zeros); tpot, per answer, the time from the first arrival to the last, divided by its tokens less
/// one; total, from the start to the end of the answer. ttft and itl count every arrival, tpot and
/// total only the answers that passed. Without a stream there is only total.
///
/// Tokens are the server's own count (usage); where it sends none, the simulated engine's tokens, or
/// else one for each event. Rates are over the whole time from the first request to the end of the last.
///
/// Interrupted once (Ctrl-C), it starts no more requests, finishes those under way and reports; twice, it
/// cuts them off. The exit status is 0 only when every request succeeded.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The base URL, as an OpenAI client takes it
    #[arg(long, default_value = "http://127.0.0.1:8080/v1", value_name = "URL")]
    pub url: String,

    /// The model to ask [default: the only one that the server has]
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,

    /// Closed loop: connections that each send the next request when the last has ended; with --http2, requests under way [default: 64]
    #[arg(long, value_name = "N", conflicts_with = "rate", value_parser = clap::value_parser!(u64).range(1..=MAX_CONCURRENCY))]
    pub concurrency: Option<u64>,

    /// HTTP/2, with all requests on --connections; where there is no TLS, by prior knowledge
    #[arg(long)]
    pub http2: bool,

    /// HTTP/2: connections that the requests share, in turns: --concurrency 512 --connections 8 has 64 requests on each
    #[arg(long, default_value_t = 1, value_name = "N", requires = "http2", value_parser = clap::value_parser!(u64).range(1..=MAX_CONCURRENCY))]
    pub connections: u64,

    /// Open loop: requests started per second, whether earlier ones have ended or not
    #[arg(long, value_name = "R", value_parser = positive)]
    pub rate: Option<f64>,

    /// Open loop: how requests are spread in time
    #[arg(long, value_enum, default_value_t = Arrivals::Poisson)]
    pub arrivals: Arrivals,

    /// Open loop: seed of the Poisson arrivals; the same seed gives the same times
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,

    /// Open loop: most requests in flight; the next ones wait, and their waiting counts as latency
    #[arg(long, default_value_t = 10_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MAX_CONCURRENCY))]
    pub max_in_flight: u64,

    /// Stop after this many requests
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub requests: Option<u64>,

    /// Stop starting requests after this time; those under way are finished [default: 30s, or none with --requests]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub duration: Option<Duration>,

    /// Requests made before, and not counted: they open the connections and warm the server
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub warmup: u64,

    /// Tokens asked for in each request
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_tokens: u64,

    /// The prompt [default: a short question]
    #[arg(long, value_name = "TEXT")]
    pub prompt: Option<String>,

    /// Make up a prompt of about this many tokens instead
    #[arg(long, value_name = "N", conflicts_with = "prompt", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub prompt_tokens: Option<u64>,

    /// Whether answers are streamed
    #[arg(long, default_value_t = true, action = ArgAction::Set, value_name = "BOOL")]
    pub stream: bool,

    /// Whether usage is asked for in streams, and must come
    #[arg(long, default_value_t = true, action = ArgAction::Set, value_name = "BOOL")]
    pub usage: bool,

    /// What an answer must be to count as a success
    #[arg(long, value_enum, default_value_t = Check::Auto)]
    pub check: Check,

    /// The longest that one request may take, from when it is sent
    #[arg(long, default_value = "60s", value_name = "TIME", value_parser = duration)]
    pub timeout: Duration,

    /// Leave the first N gaps of each answer out of itl: an engine takes a new sequence into its next common step,
    /// which is early or late for it
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub settle: u64,

    /// Measure CPU and memory of a process of this machine too; processes of one name are added up (repeatable)
    #[arg(long, value_name = "NAME=PID", value_parser = named_pid)]
    pub pid: Vec<NamedPid>,

    /// Threads of the load generator itself
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MAX_THREADS))]
    pub threads: u64,

    /// A header to send with each request (repeatable)
    #[arg(long, value_name = "NAME: VALUE")]
    pub header: Vec<String>,

    /// Sent as `authorization: Bearer …`
    #[arg(long, value_name = "KEY", env = "TOKENBUS_API_KEY", hide_env_values = true)]
    pub api_key: Option<String>,

    /// Write the report as JSON, to FILE or else to standard output (the text then goes to standard error)
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    pub json: Option<Option<PathBuf>>,
}

/// The checks that an answer must pass to count as a success.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Check {
    /// `sim` where one request beforehand shows the simulated engine's text, otherwise `stream`
    Auto,
    /// As `stream`, and the text is exactly the simulated engine's: t0 t1 t2 …, --max-tokens of them
    Sim,
    /// Well-formed events, one id, the role first, one finish_reason, then only usage, [DONE] last
    Stream,
    /// Status 200, an end of the answer, no error event
    Off,
}

/// How the open loop spreads requests in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Arrivals {
    /// At random and independent of one another, as those of many users
    Poisson,
    /// Evenly
    Constant,
}

/// A process to measure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedPid {
    /// Its name in the report.
    pub name: String,
    /// Its process id.
    pub pid: u32,
}

fn named_pid(text: &str) -> Result<NamedPid, String> {
    let (name, pid) = text.split_once('=').ok_or("expected NAME=PID")?;
    let pid = pid
        .parse()
        .ok()
        .filter(|&p| p > 0)
        .ok_or_else(|| format!("{pid:?} is no process id"))?;
    if name.is_empty() {
        return Err("expected NAME=PID".to_owned());
    }
    Ok(NamedPid {
        name: name.to_owned(),
        pid,
    })
}

/// A flag's time, which is not zero.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|e| e.to_string())?;
    if time.is_zero() {
        Err("must be more than 0".to_owned())
    } else {
        Ok(time)
    }
}

fn positive(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|e| format!("{e}"))?;
    if rate.is_finite() && rate > 0.0 {
        Ok(rate)
    } else {
        Err("must be more than 0".to_owned())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn parse(line: &str) -> Result<Args, String> {
        Cli::try_parse_from(line.split(' '))
            .map(|c| c.args)
            .map_err(|e| e.to_string())
    }

    #[test]
    fn the_flags_are_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn reads_values() {
        let args = parse("b --model m --rate 0.5 --stream false --duration 1m --pid gw=7 --pid gw=8 --json").unwrap();
        assert_eq!(
            (args.rate, args.stream, args.duration),
            (Some(0.5), false, Some(Duration::from_secs(60)))
        );
        assert_eq!(args.pid.iter().map(|p| p.pid).collect::<Vec<_>>(), [7, 8]);
        assert_eq!(args.json, Some(None));
        assert_eq!(parse("b --model m --json f").unwrap().json, Some(Some("f".into())));
    }

    #[test]
    fn refuses_nonsense() {
        for line in [
            "b --model m --rate 1 --concurrency 2",
            "b --model m --rate 0",
            "b --model m --rate inf",
            "b --model m --concurrency 0",
            "b --model m --connections 2",
            "b --model m --pid 7",
            "b --model m --pid x=0",
            "b --model m --timeout 0s",
            "b --model m --prompt a --prompt-tokens 2",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
