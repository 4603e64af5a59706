//! `tokenbus gateway`: flags to [`Options`].

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tokenbus_gateway::{Bounds, MostConnections, Options};
use tokenbus_protocol::Name;

use crate::access::{self, AccessArgs};
use crate::failure::Failure;
use crate::listen::Listen;
use crate::open_files;
use crate::shared::{BusArgs, KeptArgs, TracingArgs, duration, thread_count, threads};
use crate::signals;
use crate::size::Size;

/// Serve the OpenAI-compatible endpoint
///
/// Any number can run, behind any load balancer: a gateway keeps nothing but the requests whose connection
/// it holds. It listens at once; /readyz tells whether NATS is there.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    bus: BusArgs,

    #[command(flatten)]
    kept: KeptArgs,

    /// Address of the endpoint: /v1, /healthz, /readyz and /metrics
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8080")]
    listen: Listen,

    #[command(flatten)]
    access: AccessArgs,

    /// First part of this gateway's id on the bus [default: gw]
    #[arg(long, value_name = "NAME")]
    name: Option<Name>,

    /// Most connections of clients at once; more get 503 [default: the limit on open files, less some that are kept for
    /// NATS and files; no more than that in any case]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_connections: Option<u32>,

    /// Most connections from one public address, or one network of 64 bits for IPv6; more get 503. Loopback and private
    /// addresses, as those of an ingress, have no such bound [default: half of all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_connections_per_address: Option<u32>,

    /// Largest request body, bytes or with a unit, as in 32MiB
    #[arg(long, value_name = "SIZE", default_value = "32MiB")]
    body_limit: Size,

    /// Memory for the bodies of all requests, as they came and as they are passed on; beyond it, 503
    #[arg(long, value_name = "SIZE", default_value = "512MiB")]
    body_memory: Size,

    /// Time limit of an answer in one piece, of the wait for a stream's first output, and of each silence of a stream;
    /// a stream that flows is not cut. A client may ask for another with x-request-timeout
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "10m")]
    request_timeout: Duration,

    /// Longest time limit that a client may ask for with x-request-timeout; --request-timeout, if that is longer
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "1h")]
    max_request_timeout: Duration,

    /// Highest priority that a client without a key may ask for with x-tokenbus-priority, -1000 to 1000
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 0,
          value_parser = clap::value_parser!(i32).range(-1000..=1000))]
    max_priority: i32,

    /// Time without output after which a stream's status is sent; until then an error is a real status
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "10s")]
    commit_after: Duration,

    /// Silence on an event stream after which a comment is sent, to keep proxies from closing it
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "10s")]
    keep_alive: Duration,

    /// Requests that may wait for room, all models together; when there are more, each tenant has an even share
    #[arg(long, value_name = "N", default_value_t = tokenbus_gateway::DEFAULT_WAITING)]
    waiting: usize,

    /// Wait for a slot of the workers of a tier beyond which a request may use the next tier
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "5s")]
    tier_wait: Duration,

    /// Time that a request which no worker has taken waits for NATS while that is away, before it is a 503. A stream
    /// that has begun waits as long, but at least 20s
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "15s")]
    bus_patience: Duration,

    /// Memory for the bodies of requests that wait for room; one larger body may wait when no other does
    #[arg(long, value_name = "SIZE", default_value = "256MiB")]
    waiting_bytes: Size,

    /// Time for which responses of /v1/responses are kept, where NATS has JetStream; 0s keeps none
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "24h")]
    responses_ttl: Duration,

    /// Room for all kept responses of the cluster; the oldest go first
    #[arg(long, value_name = "SIZE", default_value = "1GiB")]
    responses_bytes: Size,

    /// Age at which the key that seals the reasoning which clients carry gets a successor, where NATS has JetStream; 0s
    /// keeps the first key. Older keys still open
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "30days")]
    seal_key_age: Duration,

    /// Time for which requests are still taken after SIGTERM while /readyz fails, so that load balancers notice
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "5s")]
    drain_delay: Duration,

    /// Time that running streams have after that
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "30s")]
    grace: Duration,

    #[command(flatten)]
    trace: TracingArgs,

    /// Threads that serve; one carries some 50,000 tokens a second [default: half of the processors, at most 8]
    #[arg(long, value_name = "N", value_parser = threads)]
    pub(crate) threads: Option<usize>,
}

/// Runs the subcommand.
pub(crate) async fn run(args: Args, config: Option<PathBuf>) -> Result<ExitCode, Failure> {
    let shutdown = signals::shutdown()?;
    args.access.check(&args.listen).await?;
    let listener = args.listen.bind().await?;
    let shared = args.bus.shared("gateway").keeping(&args.kept);
    let mut options = Options {
        bus: shared.bus,
        namespace: shared.namespace,
        name: args.name,
        bus_patience: args.bus_patience,
        tier_wait: args.tier_wait,
        waiting: Bounds {
            requests: args.waiting,
            bytes: args.waiting_bytes.0,
        },
        drain_delay: args.drain_delay,
        grace: args.grace,
        trace_slow: args.trace.trace_slow,
        ..Options::default()
    };
    options.http.direct = thread_count(args.threads) == 1;
    options.responses.ttl = args.responses_ttl;
    options.responses.bytes = args.responses_bytes.0 as u64;
    options.responses.seal_key_age = args.seal_key_age;
    options.http.max_connections = most_connections(args.max_connections, args.max_connections_per_address);
    // One body of the largest size always fits, compressed or translated.
    options.http.body_memory = args.body_memory.0.max(args.body_limit.0.saturating_mul(2));
    options.http.body_limit = args.body_limit.0;
    options.http.request_timeout = args.request_timeout;
    options.http.max_request_timeout = args.max_request_timeout;
    options.http.max_priority = args.max_priority;
    options.http.commit_after = args.commit_after;
    options.http.keep_alive = args.keep_alive;
    args.access.apply(&mut options, config.as_deref());
    let running = tokenbus_gateway::run(options, listener, shutdown);
    running.await.map_err(access::failure)?;
    Ok(ExitCode::SUCCESS)
}

/// As many connections as the limit on open files leaves room for, at most `asked`; from one address half of them, or
/// `per_address`.
fn most_connections(asked: Option<u32>, per_address: Option<u32>) -> MostConnections {
    let most = open_files::limit().map_or(usize::MAX, tokenbus_gateway::connections_within);
    let asked = asked.map(|asked| asked as usize);
    if let Some(asked) = asked.filter(|asked| *asked > most) {
        tracing::warn!(
            asked,
            connections = most,
            "the limit on open files allows fewer connections"
        );
    }
    let connections = asked.map_or(most, |asked| asked.min(most));
    tracing::debug!(connections, "most connections of clients");
    MostConnections {
        all: connections,
        per_address: per_address.map_or(connections.div_ceil(2), |most| most as usize),
    }
}
