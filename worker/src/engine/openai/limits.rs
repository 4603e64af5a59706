//! Every limit and time-out of the HTTP engine, each with its unit and its reason.

use std::time::Duration;

/// Longest time for making one connection. Beyond it the server is taken for unreachable; the
/// gateway has better use for the client's patience than a dead address.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an unused connection is kept. uvicorn (vLLM, SGLang) and llama-server close theirs
/// after 5 s; ours must be gone first, or a request is written into a closing connection.
pub(super) const POOL_IDLE: Duration = Duration::from_secs(3);

/// Unused connections kept, count: as many as a large engine runs sequences.
pub(super) const POOL_MAX_IDLE: usize = 1024;

/// Silence after which the kernel asks whether the peer of a connection is still there. A long
/// prefill is silent too, and answers these probes; a vanished machine does not.
pub(super) const TCP_KEEPALIVE: Duration = Duration::from_secs(15);

/// A connection that died before any byte of an answer came, this soon after the request was
/// sent, was most likely closed by the server while idle: the request is sent once more.
pub(super) const STALE_CONNECTION: Duration = Duration::from_millis(500);

/// Longest event of a stream in bytes. An event is one token or a burst of them; logprobs of
/// twenty alternatives for a burst stay well below this.
pub(super) const MAX_EVENT: usize = 4 * 1024 * 1024;

/// What is read of an error's body, bytes: error objects are small, HTML pages are not wanted.
pub(super) const MAX_ERROR_BODY: usize = 64 * 1024;

/// How long the body of an error may take to come once its status is known.
pub(super) const ERROR_BODY_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest error message that is handed on, characters.
pub(super) const MAX_ERROR_MESSAGE: usize = 2000;

/// How long the last bytes of a finished answer are awaited, so that its connection can serve the
/// next request.
pub(super) const DRAIN_TIMEOUT: Duration = Duration::from_millis(250);

/// Bodies above this many bytes are rewritten on a blocking thread: parsing 1 MiB takes about a
/// millisecond, for which the streams of this thread would wait.
pub(super) const INLINE_BODY: usize = 512 * 1024;

/// Largest answer that is read in one piece, bytes: as much as a gateway collects. A thousand vectors of
/// four thousand numbers are 40 MiB.
pub(super) const MAX_WHOLE_ANSWER: usize = 64 * 1024 * 1024;

/// Such an answer is handed on in pieces of this many bytes: some per message of the bus, so that the
/// wait for room comes in time.
pub(super) const WHOLE_PIECE: usize = 32 * 1024;

/// Most choices (`n`) that are continued one by one after a failover.
pub(super) const MAX_RESUMED_CHOICES: u32 = 64;

/// Most deltas that are held back while a stop string may be about to end, count. Stop strings are
/// shorter than this in characters; an engine that sends deltas without text must not fill memory.
pub(super) const MAX_HELD_DELTAS: usize = 256;

/// How long it is remembered what a server refuses: it may be replaced by another version.
pub(super) const LEARNED_FOR: Duration = Duration::from_secs(3600);

/// Pause between health probes of a server that is up and on this network.
pub(super) const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// Pause between probes of a server of unknown kind, which has no endpoint for health: its model
/// list may be metered (a remote provider).
pub(super) const PROBE_INTERVAL_UNKNOWN: Duration = Duration::from_secs(30);

/// First pause between probes of a server that is not up; doubled up to [`PROBE_INTERVAL`]. A small
/// llama.cpp model listens 0.4 s after its start, and the first answer waits for this.
pub(super) const PROBE_FIRST: Duration = Duration::from_millis(25);

/// Longest pause between probes of a process that we started and that was not up yet. It listens on
/// this machine, where a refused connection costs microseconds, and whoever started it waits.
pub(super) const PROBE_STARTING: Duration = Duration::from_millis(100);

/// How long one probe may take.
pub(super) const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// Probes in a row without an answer after which a silent server counts as down. Less would take a
/// long prefill, during which some servers answer nothing, for a death.
pub(super) const SILENT_PROBES: u32 = 5;

/// A server that has refused each connection and sent no output for this long has lost its open streams. A
/// server that ends in order goes on sending.
pub(super) const LOST_AFTER: Duration = Duration::from_secs(3);

/// How often a running job asks whether its server is lost.
pub(super) const LOST_CHECK: Duration = Duration::from_secs(1);

/// Silence of streams that have begun makes a server suspect after the worst gap seen times this, within these
/// bounds: engines stop for seconds while a long prompt joins, and a minute is as long as a reader waits.
pub(super) const SILENCE_FACTOR: u32 = 4;
/// See [`SILENCE_FACTOR`].
pub(super) const SILENCE_LEAST: Duration = Duration::from_secs(10);
/// See [`SILENCE_FACTOR`].
pub(super) const SILENCE_MOST: Duration = Duration::from_secs(60);

/// Least silence that says by itself that a server of graphics cards hangs, where it has no counter of tokens.
pub(super) const SILENCE_ALONE_LEAST: Duration = Duration::from_secs(60);

/// The same for servers that may run on processors, where one batch of a long prompt takes minutes, or whose models
/// may think unseen.
pub(super) const SILENCE_ALONE_SLOW: Duration = Duration::from_secs(300);

/// How long what makes a server suspect must stay the same to confirm a hang.
pub(super) const HANG_CONFIRM: Duration = Duration::from_secs(3);

/// A metrics page on which requests run and nothing moves for this long tells of a hang even where no stream
/// has begun. One step of a prefill takes less, on processors too.
pub(super) const STILL_MOST: Duration = Duration::from_secs(120);

/// How long a hung or suspect server may take to generate one token when it is asked whether it can.
pub(super) const GENERATION_TIMEOUT: Duration = Duration::from_secs(10);

/// Output this recent proves that a server lives, whatever its health endpoint does.
pub(super) const RECENT_OUTPUT: Duration = Duration::from_secs(5);

/// How often models, slots and context lengths are asked for again: servers load and unload.
pub(super) const REDISCOVER_INTERVAL: Duration = Duration::from_secs(30);

/// How often the KV use is asked for; vLLM's metrics page has 100 KiB.
pub(super) const LOAD_INTERVAL: Duration = Duration::from_secs(5);

/// Largest answer to a probe in bytes (a provider's model list, a metrics page).
pub(super) const MAX_PROBE_BODY: usize = 8 * 1024 * 1024;

/// Most models of one Ollama whose details are asked for; each costs a request.
pub(super) const MAX_DESCRIBED_MODELS: usize = 32;

/// Failures in a row (no connection, 502, 503, time-outs) that open the circuit of a server. So many different requests in
/// a row that it answers with 500 make it suspect: it is asked itself.
pub(super) const BREAKER_FAILURES: u32 = 5;

/// First and longest time for which an open circuit sends no requests; doubled at each trial that
/// fails.
pub(super) const BREAKER_FIRST: Duration = Duration::from_secs(2);
/// See [`BREAKER_FIRST`].
pub(super) const BREAKER_LONGEST: Duration = Duration::from_secs(60);

/// Slots where neither the server nor the operator tells, by kind of server. vLLM's own default
/// for `max_num_seqs` is 256.
pub(super) const DEFAULT_SLOTS_VLLM: u32 = 256;
/// SGLang tells in practice; this is for a server that hides it.
pub(super) const DEFAULT_SLOTS_SGLANG: u32 = 64;
/// Ollama's default for `OLLAMA_NUM_PARALLEL`.
pub(super) const DEFAULT_SLOTS_OLLAMA: u32 = 1;
/// llama-server tells in practice; this is for one started without its properties page.
pub(super) const DEFAULT_SLOTS_LLAMA: u32 = 1;
/// A remote provider or an unknown server.
pub(super) const DEFAULT_SLOTS_UNKNOWN: u32 = 16;

/// How long a supervised server may take to end after SIGTERM before it is killed.
pub(super) const STOP_TIMEOUT: Duration = Duration::from_secs(8);

/// First and longest pause before a dead server is started again; doubled at each death in a row.
pub(super) const RESTART_FIRST: Duration = Duration::from_millis(250);
/// See [`RESTART_FIRST`].
pub(super) const RESTART_LONGEST: Duration = Duration::from_secs(30);

/// A server that lived this long is healthy again: its back-off starts from the beginning.
pub(super) const RESTART_RESET: Duration = Duration::from_secs(60);

/// Size at which a server's log is set aside as `.1` and begun anew, bytes. Two files are kept.
pub(super) const LOG_BYTES: u64 = 8 * 1024 * 1024;

/// What is kept of a server's output to explain its death, lines.
pub(super) const LOG_TAIL_LINES: usize = 20;

/// Longest line kept in that tail, bytes; the log file has the whole line.
pub(super) const LOG_TAIL_LINE_BYTES: usize = 512;

/// How long a supervised server that was up may be down, its process alive, before it is taken for
/// hung and started again.
pub(super) const HUNG_TIMEOUT: Duration = Duration::from_secs(60);

/// How long the rest of a dead server's output is awaited; a descendant may hold its pipe open.
pub(super) const LAST_WORDS: Duration = Duration::from_millis(200);
