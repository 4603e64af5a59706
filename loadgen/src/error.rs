//! Errors that prevent a run.

use super::procfs::ProcError;
use super::target::TargetError;

/// An error that prevents a run. (A failed request is not one: it goes into the report.)
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server's address or the request is wrong.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The system's trusted certificates cannot be used.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// The first request got no answer.
    #[error("the server does not answer a first request: {0} (with --check sim, stream or off none is made)")]
    Probe(String),
    /// A process of `--pid` cannot be measured.
    #[error("--pid: {0}")]
    Process(#[from] ProcError),
    /// The system allows too few open files for the connections.
    #[error(
        "{wanted} open files are needed and {allowed} allowed: raise the limit (ulimit -Hn), or lower --concurrency or --max-in-flight"
    )]
    Files {
        /// Files needed.
        wanted: u64,
        /// Files allowed.
        allowed: u64,
    },
    /// The handler for Ctrl-C cannot be installed.
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
        /// The file.
        to: String,
        /// The cause.
        source: std::io::Error,
    },
}
