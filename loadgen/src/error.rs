//! Why a run could not be made.

use super::procfs::ProcError;
use super::target::TargetError;

/// The run could not be made. (Failed requests are no error: they are what is reported.)
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server's address or the request is wrong.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The system's trusted certificates cannot be used.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// The first request was not answered.
    #[error("the server does not answer a first request: {0} (with --check sim, stream or off none is made)")]
    Probe(String),
    /// A process of `--pid` cannot be measured.
    #[error("--pid: {0}")]
    Process(#[from] ProcError),
    /// The system allows too few open files for the connections asked for.
    #[error(
        "{wanted} open files are needed and {allowed} allowed: raise the limit (ulimit -Hn), or lower --concurrency or --max-in-flight"
    )]
    Files {
        /// Needed.
        wanted: u64,
        /// Allowed.
        allowed: u64,
    },
    /// Ctrl-C cannot be listened for.
    #[error("cannot listen for Ctrl-C: {0}")]
    Interrupts(std::io::Error),
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// A histogram could not be made.
    #[error("histogram: {0}")]
    Histogram(#[from] hdrhistogram::CreationError),
    /// Histograms could not be added up.
    #[error("histogram: {0}")]
    Merge(#[from] hdrhistogram::AdditionError),
    /// A part of the load generator ended unexpectedly; its figures would be wrong.
    #[error("the load generator crashed")]
    Crashed,
    /// The report could not be written.
    #[error("cannot write the report to {to}: {source}")]
    Write {
        /// Where.
        to: String,
        /// Why.
        source: std::io::Error,
    },
}
