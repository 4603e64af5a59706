//! Standard error and standard output of a process that must not depend on their reader.
//!
//! Text is queued, and a thread writes it. If the reader has gone, the lines are lost; if it hangs, the lines beyond a
//! bound are lost. Neither holds up a role or keeps it from stopping.

use std::collections::VecDeque;
use std::fmt::Display;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::limits;

/// The queued text, and the count of what was lost.
#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Vec<u8>>,
    bytes: usize,
    dropped: u64,
    writing: bool,
    /// The thread waits for text, and must be woken.
    asleep: bool,
    /// Somebody waits until all is written.
    hurry: bool,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Signals text to write.
    filled: Condvar,
    /// Signals that all text was written.
    empty: Condvar,
}

/// A bounded queue in front of a pipe, a file or a terminal.
#[derive(Debug, Clone)]
pub(crate) struct Outlet(Arc<Shared>);

/// The lost lines are told in the log's format.
static JSON: AtomicBool = AtomicBool::new(false);

static ERROR: LazyLock<Outlet> = LazyLock::new(|| Outlet::to("stderr", io::stderr(), tell_dropped));
static OUTPUT: LazyLock<Outlet> = LazyLock::new(|| Outlet::to("stdout", io::stdout(), |_| String::new()));

/// Standard error.
pub(crate) fn stderr() -> &'static Outlet {
    &ERROR
}

/// Standard output, for a process that must not wait for its reader.
pub(crate) fn stdout() -> &'static Outlet {
    &OUTPUT
}

/// Sets the format of the log.
pub(crate) fn log_is_json(json: bool) {
    JSON.store(json, Ordering::Relaxed);
}

/// Waits for a bounded time until all text is written; a reader that hangs does not hold up the process.
pub(crate) fn last_words() {
    for outlet in [&ERROR, &OUTPUT] {
        if let Some(outlet) = LazyLock::get(outlet) {
            outlet.flush(limits::LAST_WORDS);
        }
    }
}

fn tell_dropped(count: u64) -> String {
    let words = "log lines are missing before this one: nobody read them";
    if JSON.load(Ordering::Relaxed) {
        format!("{{\"level\":\"WARN\",\"message\":\"{words}\",\"lines\":{count}}}\n")
    } else {
        format!(" WARN {words} lines={count}\n")
    }
}

impl Outlet {
    /// A queue in front of `target`, with the words that report lost lines.
    fn to(name: &str, mut target: impl Write + Send + 'static, tell: fn(u64) -> String) -> Self {
        let outlet = Self(Arc::default());
        let shared = Arc::clone(&outlet.0);
        let write = move || {
            while let Some(bytes) = shared.next(tell) {
                // The reader has gone; the process lives on, and nobody is left to tell.
                drop(target.write_all(&bytes).and_then(|()| target.flush()));
                shared.written();
            }
        };
        // Without a thread nothing is written and nothing waits.
        drop(std::thread::Builder::new().name(name.to_owned()).spawn(write));
        outlet
    }

    /// Queues `text`, or counts it as lost when too much waits already.
    pub(crate) fn write(&self, text: impl Into<Vec<u8>>) {
        let text = text.into();
        let mut state = self.0.lock();
        if state.bytes.saturating_add(text.len()) > limits::OUTLET_BYTES {
            state.dropped += 1;
            return;
        }
        state.bytes += text.len();
        state.waiting.push_back(text);
        if std::mem::take(&mut state.asleep) {
            self.0.filled.notify_one();
        }
    }

    /// Queues one line.
    pub(crate) fn line(&self, text: impl Display) {
        self.write(format!("{text}\n"));
    }

    /// Waits until all is written, `patience` at most.
    pub(crate) fn flush(&self, patience: Duration) {
        let mut state = self.0.lock();
        state.hurry = true;
        self.0.filled.notify_one();
        let busy = |state: &mut State| state.writing || !state.waiting.is_empty();
        drop(self.0.empty.wait_timeout_while(state, patience, busy));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next text to write. A report of lost lines comes after the text that was queued before the loss.
    ///
    /// The first line after a silence is written at once. What follows is gathered for a moment, so that a busy process
    /// does not wake this thread for each line.
    fn next(&self, tell: fn(u64) -> String) -> Option<Vec<u8>> {
        let mut state = self.lock();
        let mut gathered = false;
        loop {
            if let Some(mut bytes) = state.waiting.pop_front() {
                while let Some(more) = state
                    .waiting
                    .pop_front_if(|more| bytes.len() + more.len() <= limits::LINES_IN_A_WRITE)
                {
                    bytes.extend_from_slice(&more);
                }
                state.bytes = state.bytes.saturating_sub(bytes.len());
                state.writing = true;
                return Some(bytes);
            }
            if state.dropped > 0 {
                state.writing = true;
                return Some(tell(std::mem::take(&mut state.dropped)).into_bytes());
            }
            self.empty.notify_all();
            if gathered || std::mem::take(&mut state.hurry) {
                state.asleep = true;
                let filled = |state: &mut State| state.asleep && !state.hurry;
                let woken = self.filled.wait_while(state, filled);
                state = woken.unwrap_or_else(PoisonError::into_inner);
                state.asleep = false;
                gathered = false;
            } else {
                let quiet = |state: &mut State| !state.hurry;
                let waited = self.filled.wait_timeout_while(state, limits::GATHER_LINES, quiet);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
                gathered = true;
            }
        }
    }

    fn written(&self) {
        self.lock().writing = false;
    }
}

/// Writer of the log: each event is one write.
#[derive(Debug)]
pub(crate) struct LogLine;

impl Write for LogLine {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        stderr().write(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::io::Read as _;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[test]
    fn a_reader_that_hangs_costs_the_lines_beyond_the_bound_and_is_told_how_many() {
        let (mut reader, writer) = io::pipe().unwrap();
        let outlet = Outlet::to("test", writer, tell_dropped);
        let line = vec![b'x'; limits::OUTLET_BYTES / 8];
        // Far more than the queue and the pipe hold; none of these may block.
        for _ in 0..40 {
            outlet.write(line.clone());
        }
        let mut seen = Vec::new();
        let words = b"lines are missing";
        while !seen.windows(words.len()).any(|window| window == words) {
            let mut some = [0; 65_536];
            let read = reader.read(&mut some).unwrap();
            assert!(read > 0);
            seen.extend(some.into_iter().take(read));
        }
        let told = String::from_utf8_lossy(&seen).into_owned();
        let lost: usize = told.trim_end().rsplit('=').next().unwrap().parse().unwrap();
        let kept = seen.iter().filter(|byte| **byte == b'x').count() / line.len();
        assert!(lost > 0 && kept + lost == 40, "{kept} were kept and {lost} lost");
    }

    #[test]
    fn a_reader_that_has_gone_holds_up_nobody() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let outlet = Outlet::to("test", writer, tell_dropped);
        for _ in 0..100 {
            outlet.line("nobody reads this");
        }
        outlet.flush(PATIENCE);
        assert!(outlet.0.lock().waiting.is_empty());
    }

    #[test]
    fn what_was_written_is_there_after_a_flush() {
        let (mut reader, writer) = io::pipe().unwrap();
        let outlet = Outlet::to("test", writer, tell_dropped);
        outlet.line("one");
        outlet.line("two");
        outlet.flush(PATIENCE);
        let mut seen = [0; 8];
        reader.read_exact(&mut seen).unwrap();
        assert_eq!(&seen, b"one\ntwo\n");
    }
}
