//! The log of a child process, line by line as it comes.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::watch;

use crate::limits::{LAST_WORDS, LOG_LINES, LOG_LINES_SHOWN};
use crate::wait::within_time;

#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<String>,
    /// Dropped lines, which is the number of the first line that is kept.
    dropped: usize,
}

/// The log of a process so far. Clones see the same lines.
#[derive(Debug, Clone)]
pub struct Logs {
    name: String,
    kept: Arc<Mutex<Kept>>,
    written: watch::Receiver<usize>,
    ended: Arc<Mutex<Receiver<()>>>,
}

impl Logs {
    /// Reads `pipe` to its end in its own thread. So the process never waits for a busy test, and its last lines
    /// are there when a test fails.
    pub fn follow(name: &str, pipe: impl Read + Send + 'static) -> Self {
        let kept = Arc::new(Mutex::new(Kept::default()));
        let (count, written) = watch::channel(0);
        let (end, ended) = sync_channel(1);
        let logs = Self {
            name: name.to_owned(),
            kept: Arc::clone(&kept),
            written,
            ended: Arc::new(Mutex::new(ended)),
        };
        std::thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut bytes = Vec::new();
            while pipe.read_until(b'\n', &mut bytes).is_ok_and(|read| read > 0) {
                let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
                bytes.clear();
                let mut kept = lock(&kept);
                kept.lines.push_back(line);
                if kept.lines.len() > LOG_LINES {
                    kept.lines.pop_front();
                    kept.dropped += 1;
                }
                drop(kept);
                count.send_modify(|count| *count += 1);
            }
            let _ = end.send(());
        });
        logs
    }

    /// The lines that are kept.
    pub fn lines(&self) -> Vec<String> {
        lock(&self.kept).lines.iter().cloned().collect()
    }

    /// The number of lines so far: a place from which [`Logs::wait_from`] looks.
    pub fn mark(&self) -> usize {
        *self.written.borrow()
    }

    /// Waits for the first line that `pick` accepts, among past and future lines.
    ///
    /// # Panics
    /// After `limit`, or when the log ends without such a line; shows the log.
    pub async fn wait_for<T>(&self, limit: Duration, what: &str, pick: impl FnMut(&str) -> Option<T>) -> T {
        self.wait_from(0, limit, what, pick).await
    }

    /// Like [`Logs::wait_for`], from the line numbered `mark` on.
    ///
    /// # Panics
    /// As [`Logs::wait_for`].
    pub async fn wait_from<T>(
        &self,
        mark: usize,
        limit: Duration,
        what: &str,
        mut pick: impl FnMut(&str) -> Option<T>,
    ) -> T {
        let mut written = self.written.clone();
        let mut next = mark;
        let search = async {
            loop {
                written.mark_unchanged();
                if let Some(found) = self.search(&mut next, &mut pick) {
                    return Some(found);
                }
                if written.changed().await.is_err() {
                    // The writer is gone. This finds what it wrote between the two looks.
                    return self.search(&mut next, &mut pick);
                }
            }
        };
        match tokio::time::timeout(limit, search).await {
            Ok(Some(found)) => found,
            Ok(None) => panic!("{}: its log ended without {what}:\n{}", self.name, self.tail()),
            Err(_) => panic!("{}: waited {limit:?} for {what}; its log:\n{}", self.name, self.tail()),
        }
    }

    fn search<T>(&self, next: &mut usize, pick: &mut impl FnMut(&str) -> Option<T>) -> Option<T> {
        let kept = lock(&self.kept);
        let from = next.saturating_sub(kept.dropped);
        *next = kept.dropped + kept.lines.len();
        kept.lines.iter().skip(from).find_map(|line| pick(line))
    }

    /// Waits until the process has closed its log.
    pub async fn ended(&self) {
        let mut written = self.written.clone();
        let end = async { while written.changed().await.is_ok() {} };
        within_time(
            crate::limits::PATIENCE,
            &format!("the end of the log of {}", self.name),
            end,
        )
        .await;
    }

    /// The last lines, for people.
    pub fn tail(&self) -> String {
        let lines = self.lines();
        let from = lines.len().saturating_sub(LOG_LINES_SHOWN);
        lines
            .get(from..)
            .unwrap_or_default()
            .iter()
            .map(|line| format!("  {} | {line}\n", self.name))
            .collect()
    }

    /// Gives the thread time to read the last lines of a killed process.
    pub(crate) fn settle(&self) {
        let ended = self.ended.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let _ = ended.recv_timeout(LAST_WORDS);
    }
}

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::PATIENCE;

    #[tokio::test]
    async fn a_line_is_found_whether_it_came_before_or_comes_after() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let logs = Logs::follow("test", reader);
        std::io::Write::write_all(&mut writer, b"one\ntwo 2\n").unwrap();
        let digit = |line: &str| line.strip_prefix("two ").map(str::to_owned);
        assert_eq!(logs.wait_for(PATIENCE, "two", digit).await, "2");
        let mark = logs.mark();
        std::io::Write::write_all(&mut writer, b"two 3\nunfinished").unwrap();
        drop(writer);
        assert_eq!(logs.wait_from(mark, PATIENCE, "another two", digit).await, "3");
        logs.ended().await;
        assert_eq!(logs.lines(), ["one", "two 2", "two 3", "unfinished"]);
    }

    #[tokio::test]
    #[should_panic(expected = "its log ended without a ready line")]
    async fn a_log_that_ends_is_not_waited_for() {
        let logs = Logs::follow("test", &b"nothing\n"[..]);
        logs.wait_for(PATIENCE, "a ready line", |line| line.contains("ready").then_some(()))
            .await;
    }
}
