//! Reads a child's output line by line.

use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};

/// The lines of a pipe. A line longer than the limit is cut into several.
#[derive(Debug)]
pub struct Lines<R> {
    reader: BufReader<R>,
    longest: u64,
    line: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    /// Reads `pipe` in lines of at most `longest` bytes.
    pub fn new(pipe: R, longest: u64) -> Self {
        Self {
            reader: BufReader::new(pipe),
            longest,
            line: Vec::new(),
        }
    }

    /// Returns the next line without its end, or `None` when the pipe is closed or fails. Cancel-safe: a partly
    /// read line is kept.
    pub async fn next(&mut self) -> Option<String> {
        let room = self.longest.saturating_sub(self.line.len() as u64);
        let read = (&mut self.reader).take(room).read_until(b'\n', &mut self.line).await;
        if read.is_err() || self.line.is_empty() {
            return None;
        }
        let text = String::from_utf8_lossy(&self.line).trim_end().to_owned();
        self.line.clear();
        Some(text)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test]
    async fn long_lines_are_cut_and_the_last_needs_no_end() {
        let mut lines = Lines::new(&b"one\r\n\n1234567890\xff"[..], 8);
        for expected in ["one", "", "12345678", "90\u{fffd}"] {
            assert_eq!(lines.next().await.unwrap(), expected);
        }
        assert_eq!(lines.next().await, None);
    }

    #[tokio::test]
    async fn a_cancelled_read_loses_nothing() {
        let (mut writer, reader) = tokio::io::duplex(64);
        let mut lines = Lines::new(reader, 100);
        writer.write_all(b"half ").await.unwrap();
        let cut = tokio::time::timeout(Duration::from_millis(10), lines.next()).await;
        assert!(cut.is_err(), "{cut:?}");
        writer.write_all(b"a line\n").await.unwrap();
        assert_eq!(lines.next().await.unwrap(), "half a line");
    }
}
