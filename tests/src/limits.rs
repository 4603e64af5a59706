//! Every deadline of the harness, with its unit and its reason.

use std::time::Duration;

/// How long a test waits for something that takes milliseconds on an idle machine. Long, because
/// the tests share few processors with compilers and each other; a test that passes never waits
/// for it.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How long a process may take from its start to its ready line: a debug build on a busy machine,
/// its connection to NATS and its subscriptions included.
pub const READY: Duration = Duration::from_secs(30);

/// How long a process may take to end after SIGTERM when nothing keeps it.
pub const STOP: Duration = Duration::from_secs(20);

/// Pause between two looks at a state that tells nobody when it changes (a page over HTTP).
pub const LOOK: Duration = Duration::from_millis(20);

/// How long the last lines of a killed process may take to arrive from its pipe before they are
/// printed.
pub const LAST_WORDS: Duration = Duration::from_millis(500);

/// Lines kept of one process's log; the oldest go first. Enough for any test, small enough for a
/// process that went mad.
pub const LOG_LINES: usize = 50_000;

/// Lines of each process's log that a failed test prints.
pub const LOG_LINES_SHOWN: usize = 200;
