//! Every limit and time-out of the command line, each with its unit and its reason.
//!
//! The limits of the roles are in their own crates. Those here are for provisioning, child processes and the chat
//! client.

use std::time::Duration;

/// How often a lost connection to the package registry is tried again by pip. Its default of 5
/// makes a machine without a network wait for minutes before it is told.
pub(crate) const PIP_RETRIES: u32 = 2;

/// Lines of pip's output that are kept to explain a failure. pip writes the cause near the end.
pub(crate) const PIP_TAIL_LINES: usize = 60;

/// How long a program found on PATH may take to tell its version. A healthy one takes
/// milliseconds; a Python start on a cold disk takes a second or two.
pub(crate) const PROBE_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a first `import` of the engine may take: 100 MB are read from a disk that may be slow.
pub(crate) const IMPORT_TIMEOUT: Duration = Duration::from_secs(120);

/// How long a nats-server may take until it accepts connections. It needs 50 ms; recovering a
/// JetStream store on a slow disk needs longer.
pub(crate) const NATS_START_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a child may take to end after SIGTERM before it is killed.
pub(crate) const CHILD_STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// First and longest pause before a dead child is started again; doubled at each death in a row.
pub(crate) const CHILD_RESTART_FIRST: Duration = Duration::from_millis(200);
/// See [`CHILD_RESTART_FIRST`].
pub(crate) const CHILD_RESTART_LONGEST: Duration = Duration::from_secs(10);

/// A child that lived this long is healthy again: its back-off starts from the beginning.
pub(crate) const CHILD_HEALTHY_AFTER: Duration = Duration::from_secs(30);

/// The longest line read from a child, bytes: a longer one is cut, not gathered.
pub(crate) const CHILD_LINE_BYTES: u64 = 16 * 1024;

/// How long a connection to an HTTP server may take to be made.
pub(crate) const HTTP_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a download may stand still before it is taken for dead and resumed.
pub(crate) const DOWNLOAD_STALL: Duration = Duration::from_secs(30);

/// How many attempts in a row may bring no byte before a download is given up.
pub(crate) const DOWNLOAD_FRUITLESS_ATTEMPTS: u32 = 5;

/// First pause between two attempts at a download; doubled, at most 8 s.
pub(crate) const DOWNLOAD_RETRY_FIRST: Duration = Duration::from_millis(500);
/// See [`DOWNLOAD_RETRY_FIRST`].
pub(crate) const DOWNLOAD_RETRY_LONGEST: Duration = Duration::from_secs(8);

/// The largest answer of a JSON endpoint that is read (a model list, an error), bytes.
pub(crate) const JSON_BODY_BYTES: usize = 8 * 1024 * 1024;

/// The longest event of a chat's answer, bytes. A longer one is an error.
pub(crate) const SSE_EVENT_BYTES: usize = 16 * 1024 * 1024;

/// How long a chat waits for the next byte of an answer before it gives up. The gateway sends comments while it waits,
/// so silence means a dead connection.
pub(crate) const CHAT_SILENCE: Duration = Duration::from_secs(120);

/// The longest prompt read from standard input, bytes (the gateway's own body limit is near it).
pub(crate) const STDIN_PROMPT_BYTES: u64 = 16 * 1024 * 1024;

/// Lines of earlier chats that are kept. More are seldom looked for.
pub(crate) const CHAT_HISTORY_LINES: usize = 1000;

/// The longest of them, bytes. A longer one was pasted, and the file is read whole at the start of a chat.
pub(crate) const CHAT_HISTORY_LINE_BYTES: usize = 16 * 1024;

/// How long `up` waits for its own gateway to know the model before it asks the first question.
pub(crate) const FIRST_MODEL_TIMEOUT: Duration = Duration::from_secs(120);

/// How long running answers may go on when `up` stops: the person who pressed Ctrl-C waits.
pub(crate) const UP_GRACE: Duration = Duration::from_secs(5);

/// A second signal this soon after the first is the same one: `timeout` and some shells signal a
/// process and then its group. A person is slower.
pub(crate) const SIGNAL_ECHO: Duration = Duration::from_millis(250);

/// Characters of a name that begin an id; the random part has to fit after them.
pub(crate) const GIVEN_NAME: usize = 40;

/// Bytes of log and messages that wait for a reader of standard error or standard output that hangs. The
/// rest is counted, not kept: some thousands of lines are enough to see what happened.
pub(crate) const OUTLET_BYTES: usize = 1024 * 1024;

/// Lines that have gathered are written together up to this, in bytes: what a pipe takes at once.
pub(crate) const LINES_IN_A_WRITE: usize = 64 * 1024;

/// How long lines that come soon after another are gathered before they are written: nobody who reads a log sees it, and a
/// gateway with a thousand requests a second wakes the writing thread 50 times and not a thousand.
pub(crate) const GATHER_LINES: Duration = Duration::from_millis(20);

/// How long an ending process waits until its last lines are written. A reader that works needs
/// milliseconds; one that hangs would keep the process for ever.
pub(crate) const LAST_WORDS: Duration = Duration::from_millis(500);

/// How long `drain` tries to reach NATS. A person waits.
pub(crate) const DRAIN_CONNECT: Duration = Duration::from_secs(2);

/// How long a worker may take to answer `drain`: it needs a round trip, also when it is loaded.
pub(crate) const DRAIN_ANSWER: Duration = Duration::from_secs(3);

/// Silence of a worker after which `drain --wait` asks whether it is there: each reports once a
/// second.
pub(crate) const DRAIN_SILENCE: Duration = Duration::from_secs(5);

/// How long `keys` tries to reach NATS. A person waits.
pub(crate) const KEYS_CONNECT: Duration = Duration::from_secs(3);

/// Time for which one step of `keys` is tried again: servers that have lost one of them choose new
/// leaders within it.
pub(crate) const KEYS_PATIENCE: Duration = Duration::from_secs(10);

/// First and longest pause between these tries.
pub(crate) const KEYS_RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// Default threads of a role. Beyond it more processes serve better, because each has its own connection to NATS.
pub(crate) const DEFAULT_THREADS: usize = 8;

/// Most threads of a role; a mistyped number must not start ten thousand.
pub(crate) const MAX_THREADS: usize = 256;

/// How often a worker writes its health file. Health checks ask every few seconds.
pub(crate) const HEALTH_FILE_PERIOD: Duration = Duration::from_secs(1);

/// Age of a health file beyond which its worker counts as hung: some periods, since a busy machine is late.
pub(crate) const HEALTH_FILE_AGE: Duration = Duration::from_secs(10);
