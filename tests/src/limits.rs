//! Every deadline of the harness, with its unit and its reason.

use std::time::Duration;

/// Time limit for something that takes milliseconds on an idle machine. Long, because tests share few processors
/// with compilers and each other; a test that passes does not wait for it.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Time from the start of a process to its ready line: a debug build on a busy machine, with its connection to NATS
/// and its subscriptions.
pub const READY: Duration = Duration::from_secs(30);

/// Time for an idle process to end after SIGTERM.
pub const STOP: Duration = Duration::from_secs(20);

/// Pause between two looks at a state that announces no changes, such as a page over HTTP.
pub const LOOK: Duration = Duration::from_millis(20);

/// Time for the last lines of a killed process to arrive from its pipe before they are printed.
pub const LAST_WORDS: Duration = Duration::from_millis(500);

/// Lines of one process's log that are kept; the oldest go first. Enough for any test, and a bound for a process
/// that runs wild.
pub const LOG_LINES: usize = 50_000;

/// Lines of each process's log that a failed test prints.
pub const LOG_LINES_SHOWN: usize = 200;
