//! Flags that all roles share: the bus and the log.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;

use tokenbus_bus::{BusOptions, Replicas};
use tokenbus_protocol::Name;
use tracing_subscriber::EnvFilter;

use crate::limits;
use crate::outlet::{self, LogLine};

/// Logging and the configuration file; every subcommand has these.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct LogArgs {
    /// What to log, as a filter: error, warn, info, debug, trace, or per module
    /// (`info,tokenbus_gateway=debug`) [default: info for gateway, worker and coordinator, otherwise warn]
    #[arg(
        long,
        global = true,
        value_name = "FILTER",
        help_heading = "Logging and configuration"
    )]
    pub(crate) log: Option<String>,

    /// How to write the log, on standard error
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t = LogFormat::Text,
        help_heading = "Logging and configuration"
    )]
    pub(crate) log_format: LogFormat,

    /// TOML file with settings: root keys for what subcommands share, a table for each subcommand
    #[arg(long, global = true, value_name = "FILE", help_heading = "Logging and configuration")]
    pub(crate) config: Option<PathBuf>,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// How to reach the bus; every role has these.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct BusArgs {
    /// NATS servers, nats://, tls://, ws:// or wss://, comma-separated or repeated; the first that answers is used,
    /// also after a lost connection, so name the nearest first. A login stands before the host: user:password@ or
    /// token@, with %xx for special characters [default: nats://127.0.0.1:4222]
    #[arg(
        long,
        value_name = "URL",
        value_delimiter = ',',
        help_heading = "Bus",
        hide_env_values = true
    )]
    pub(crate) nats: Vec<String>,

    /// NATS credentials file, with a JWT and seed or an nkey's seed alone; it is read for each connection, so a new file
    /// needs no restart
    #[arg(long, value_name = "FILE", help_heading = "Bus")]
    pub(crate) nats_creds: Option<PathBuf>,

    /// PEM file with certificate authorities to trust beside the system's
    #[arg(long, value_name = "FILE", help_heading = "Bus")]
    pub(crate) nats_ca: Option<PathBuf>,

    /// Begin TLS before the server speaks (handshake_first in nats-server); without it, this is found out for tls://
    /// servers that can be reached at the start
    #[arg(long, help_heading = "Bus")]
    pub(crate) nats_tls_first: bool,

    /// Name of the cluster on the bus: letters, digits, - and _
    #[arg(long, value_name = "NAME", default_value = "tb", help_heading = "Bus")]
    pub(crate) namespace: Name,
}

/// JetStream, for the subcommands that make streams or buckets.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct KeptArgs {
    /// Replicas of streams and buckets in JetStream: auto is 3 where NATS is a cluster of three servers or more,
    /// else 1. Those that have fewer get more, none gets fewer
    #[arg(long, value_name = "auto|N", default_value_t = Replicas::Auto, help_heading = "Bus")]
    pub(crate) js_replicas: Replicas,

    /// JetStream's domain in the cluster, where the servers of --nats are leaf nodes of it
    #[arg(long, value_name = "NAME", help_heading = "Bus")]
    pub(crate) js_domain: Option<Name>,
}

/// Traces, for the roles that requests pass through.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct TracingArgs {
    /// Time to the first output beyond which a request is traced, whatever the sampler decides. Traces go to an
    /// OpenTelemetry collector where OTEL_EXPORTER_OTLP_ENDPOINT names one
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "10s")]
    pub(crate) trace_slow: Duration,
}

/// A role's access to the bus.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    /// Servers and credentials.
    pub(crate) bus: BusOptions,
    /// Name of the cluster.
    pub(crate) namespace: Name,
}

impl Shared {
    /// Sets where streams and buckets are, and their replicas.
    pub(crate) fn keeping(mut self, kept: &KeptArgs) -> Self {
        self.bus.replicas = kept.js_replicas;
        self.bus.jetstream_domain = kept.js_domain.as_ref().map(Name::to_string);
        self
    }
}

impl BusArgs {
    /// The options of the flags for a connection with this name.
    pub(crate) fn shared(&self, name: &str) -> Shared {
        let defaults = BusOptions::default();
        let urls = if self.nats.is_empty() {
            defaults.urls.clone()
        } else {
            self.nats.clone()
        };
        let bus = BusOptions {
            urls,
            credentials: self.nats_creds.clone(),
            tls_ca: self.nats_ca.clone(),
            tls_first: self.nats_tls_first,
            ..defaults
        };
        Shared {
            bus: bus.named(name),
            namespace: self.namespace.clone(),
        }
    }
}

/// A log filter that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("--log {filter:?} is no log filter: {source}; try info, or debug")]
pub(crate) struct LogError {
    filter: String,
    source: tracing_subscriber::filter::ParseError,
}

/// Starts logging to standard error.
///
/// # Errors
/// [`LogError`] if the filter cannot be understood.
pub(crate) fn start_logging(args: &LogArgs, default_filter: &str) -> Result<(), LogError> {
    let filter = args.log.as_deref().unwrap_or(default_filter);
    let parsed = EnvFilter::try_new(filter).map_err(|source| LogError {
        filter: filter.to_owned(),
        source,
    })?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(parsed)
        .with_writer(|| LogLine)
        // The subscriber would report errors on standard error, and panic if that is closed.
        .log_internal_errors(false);
    outlet::log_is_json(args.log_format == LogFormat::Json);
    // A second call (in a test) finds the first subscriber in place, which does as well.
    drop(match args.log_format {
        LogFormat::Text => subscriber.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => subscriber.json().flatten_event(true).with_ansi(false).try_init(),
    });
    Ok(())
}

/// Reads a duration: `20ms`, `5s`, `1m 30s`, or `0`.
///
/// # Errors
/// A sentence for the user.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    if text.trim() == "0" {
        return Ok(Duration::ZERO);
    }
    humantime::parse_duration(text).map_err(|error| format!("{error}; write it like 20ms, 5s or 2m"))
}

/// A number of threads, 1 to [`limits::MAX_THREADS`].
///
/// # Errors
/// A sentence for the user.
pub(crate) fn threads(text: &str) -> Result<usize, String> {
    let count = text.trim().parse().ok();
    count
        .filter(|count| (1..=limits::MAX_THREADS).contains(count))
        .ok_or_else(|| format!("a whole number from 1 to {} is expected", limits::MAX_THREADS))
}

/// Threads of a role: the number given, or else half of the processors. NATS and the kernel's network work use the
/// rest.
pub(crate) fn thread_count(asked: Option<usize>) -> usize {
    asked.unwrap_or_else(|| {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        (processors / 2).clamp(1, limits::DEFAULT_THREADS)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units_but_for_zero() {
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        assert_eq!(duration("20ms"), Ok(Duration::from_millis(20)));
        assert_eq!(duration("1m 30s"), Ok(Duration::from_secs(90)));
        assert!(duration("20").unwrap_err().contains("20ms"));
        assert!(duration("-1s").is_err());
    }

    #[test]
    fn a_filter_that_makes_no_sense_is_named() {
        let args = LogArgs {
            log: Some("info,=x=".to_owned()),
            log_format: LogFormat::Text,
            config: None,
        };
        assert!(
            start_logging(&args, "info")
                .unwrap_err()
                .to_string()
                .contains("info,=x=")
        );
    }

    #[test]
    fn without_a_server_it_is_loopback() {
        let mut args = BusArgs {
            nats: vec![],
            nats_creds: None,
            nats_ca: None,
            nats_tls_first: false,
            namespace: Name::new("tb").unwrap(),
        };
        assert_eq!(args.shared("x").bus.urls, ["nats://127.0.0.1:4222"]);
        args.nats = vec!["nats://a".into(), "nats://b".into()];
        assert_eq!(args.shared("x").bus.urls, ["nats://a", "nats://b"]);
    }
}
