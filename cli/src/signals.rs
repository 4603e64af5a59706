//! SIGINT and SIGTERM: the first asks for an orderly stop, the second ends the process at once.

use std::io;
use std::time::Instant;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{limits, outlet};

/// Exit status after SIGINT, as shells report it.
pub(crate) const INTERRUPTED: u8 = 130;

/// Listens for Ctrl-C from this call on. Call it before the work that Ctrl-C may interrupt: `tokio::signal::ctrl_c` in
/// a `select!` listens only once it is polled, and until then the signal ends the process.
///
/// # Errors
/// The handler cannot be installed.
pub(crate) fn interrupts() -> io::Result<Signal> {
    signal(SignalKind::interrupt())
}

/// Starts listening for the signals; the token is cancelled at the first one.
///
/// # Errors
/// The handlers cannot be installed.
pub(crate) fn shutdown() -> io::Result<CancellationToken> {
    shutdown_and(|| {})
}

/// As [`shutdown`], with a message after the first signal.
///
/// # Errors
/// As [`shutdown`].
pub(crate) fn shutdown_and(say: impl Fn() + Send + 'static) -> io::Result<CancellationToken> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let token = CancellationToken::new();
    let cancel = token.clone();
    tokenbus_bus::task::spawn("signals", async move {
        let mut first: Option<Instant> = None;
        loop {
            let status = tokio::select! {
                _ = interrupt.recv() => INTERRUPTED,
                _ = terminate.recv() => 143,
            };
            let now = Instant::now();
            if first.is_some_and(|first| now - first < limits::SIGNAL_ECHO) {
                continue;
            }
            if first.is_some() {
                tracing::warn!("second signal: ending at once");
                outlet::last_words();
                // Children are tied to this process and end with it.
                std::process::exit(i32::from(status));
            }
            first = Some(now);
            // Cancel first, so that the process stops even if the log hangs.
            cancel.cancel();
            tracing::info!("stopping; a second signal ends it at once");
            say();
        }
    });
    Ok(token)
}
