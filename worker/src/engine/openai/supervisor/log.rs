//! A server's output: into a file of bounded size, its last lines at hand to explain a death.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};

use crate::engine::openai::limits::{LOG_BYTES, LOG_TAIL_LINE_BYTES, LOG_TAIL_LINES};

/// Bytes read from a pipe at once.
const READ: usize = 8 * 1024;

/// The last lines.
#[derive(Debug, Default)]
pub(super) struct Tail {
    lines: VecDeque<String>,
    current: Vec<u8>,
}

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte == b'\n' {
                self.end_line();
            } else if self.current.len() < LOG_TAIL_LINE_BYTES {
                self.current.push(*byte);
            }
        }
    }

    fn end_line(&mut self) {
        let line = String::from_utf8_lossy(&self.current).trim_end().to_owned();
        self.current.clear();
        if line.is_empty() {
            return;
        }
        // For those who read one log of everything, as a container's: `--log info,engine=debug`.
        tracing::debug!(target: "engine", "{line}");
        if self.lines.len() >= LOG_TAIL_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// The lines, oldest first, an unfinished one included.
    fn lines(&self) -> Vec<String> {
        let unfinished = String::from_utf8_lossy(&self.current).trim_end().to_owned();
        self.lines
            .iter()
            .cloned()
            .chain((!unfinished.is_empty()).then_some(unfinished))
            .collect()
    }

    fn clear(&mut self) {
        self.lines.clear();
        self.current.clear();
    }
}

/// The log of a server through all its lives.
#[derive(Debug, Clone)]
pub(super) struct Log {
    path: Arc<Path>,
    tail: Arc<Mutex<Tail>>,
}

impl Log {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path: path.into(),
            tail: Arc::default(),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn tail(&self) -> Vec<String> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner).lines()
    }

    /// A new life: its death is not explained by what an earlier one said.
    pub(super) fn begin(&self) {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Opens the file once, to find out early that it cannot be written.
    pub(super) async fn open(&self) -> std::io::Result<File> {
        if let Some(folder) = self.path.parent() {
            tokio::fs::create_dir_all(folder).await?;
        }
        OpenOptions::new().create(true).append(true).open(&self.path).await
    }

    /// Carries what two pipes bring until both have ended. A file that cannot be written costs the
    /// log, never the server: its pipes are read on, or it would stand still.
    pub(super) async fn carry(self, mut out: impl AsyncRead + Unpin, mut err: impl AsyncRead + Unpin) {
        let mut file = self.open().await.ok();
        let mut size = match &file {
            Some(file) => file.metadata().await.map_or(0, |metadata| metadata.len()),
            None => 0,
        };
        let (mut out_buffer, mut err_buffer) = (vec![0; READ], vec![0; READ]);
        let (mut out_open, mut err_open) = (true, true);
        while out_open || err_open {
            let bytes = tokio::select! {
                read = out.read(&mut out_buffer), if out_open => taken(read, &out_buffer, &mut out_open),
                read = err.read(&mut err_buffer), if err_open => taken(read, &err_buffer, &mut err_open),
            };
            self.tail.lock().unwrap_or_else(PoisonError::into_inner).push(bytes);
            if let Some(open) = &mut file {
                let written = async {
                    open.write_all(bytes).await?;
                    open.flush().await
                };
                if let Err(error) = written.await {
                    tracing::warn!(path = %self.path.display(), %error, "the engine's log cannot be written");
                    file = None;
                }
                size += u64::try_from(bytes.len()).unwrap_or(0);
            }
            if size > LOG_BYTES && file.is_some() {
                file = self.rotate().await;
                size = 0;
            }
        }
    }

    async fn rotate(&self) -> Option<File> {
        let mut aside = self.path.as_os_str().to_owned();
        aside.push(".1");
        if let Err(error) = tokio::fs::rename(&self.path, &aside).await {
            tracing::warn!(path = %self.path.display(), %error, "the engine's log cannot be set aside");
            return None;
        }
        self.open().await.ok()
    }
}

/// The bytes that were read; an end or a failure closes the pipe.
fn taken<'b>(read: std::io::Result<usize>, buffer: &'b [u8], open: &mut bool) -> &'b [u8] {
    let count = read.unwrap_or(0);
    *open = count > 0;
    buffer.get(..count).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_keeps_the_last_lines_whatever_the_boundaries() {
        let mut tail = Tail::default();
        let text: String = (0..100).map(|n| format!("line {n}\r\n\n")).collect();
        for byte in text.as_bytes() {
            tail.push(&[*byte]);
        }
        tail.push(b"unfini\xffshed");
        let lines = tail.lines();
        assert_eq!(lines.len(), LOG_TAIL_LINES + 1);
        assert_eq!(lines.first().unwrap(), &format!("line {}", 100 - LOG_TAIL_LINES));
        assert_eq!(lines.last().unwrap(), "unfini\u{fffd}shed");
        tail.push(&vec![b'x'; 1_000_000]);
        assert!(tail.current.len() <= LOG_TAIL_LINE_BYTES);
        tail.clear();
        assert!(tail.lines().is_empty());
    }

    #[tokio::test]
    async fn both_pipes_end_in_the_file_which_is_set_aside_when_it_is_large() {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::new(folder.path().join("deep/engine.log"));
        let big = vec![b'a'; usize::try_from(LOG_BYTES).unwrap() + 1];
        log.clone().carry(&big[..], &b"from err\n"[..]).await;
        let aside = tokio::fs::metadata(folder.path().join("deep/engine.log.1"))
            .await
            .unwrap();
        let rest = tokio::fs::metadata(log.path()).await.unwrap();
        assert!(aside.len() > LOG_BYTES && aside.len() + rest.len() == LOG_BYTES + 1 + 9);
    }

    #[tokio::test]
    async fn a_log_that_cannot_be_written_does_not_stop_the_reading() {
        let log = Log::new(PathBuf::from("/dev/null/no/engine.log"));
        log.clone().carry(&b"said\n"[..], &b""[..]).await;
        assert_eq!(log.tail(), ["said"]);
    }
}
