//! An incremental parser of server-sent events: bytes in, events out, at any chunk boundary.

use crate::engine::openai::limits::MAX_EVENT;

/// What kind of event it is; the OpenAI API names none, errors of some servers do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EventKind {
    /// Unnamed, or named `message` or in a way that means nothing to us.
    Message,
    /// `event: error`, or the `error:` field of older llama-servers.
    Error,
}

/// One event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Event<'a> {
    /// What kind.
    pub(crate) kind: EventKind,
    /// Its data; lines are joined by `\n`.
    pub(crate) data: &'a [u8],
}

/// A line or an event is longer than [`MAX_EVENT`] bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event of the stream is longer than {MAX_EVENT} bytes")]
pub(crate) struct TooLong;

/// The data of the event that is being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pending {
    /// No data line yet.
    Nothing,
    /// One data line, still in `buffer` at this range.
    InBuffer(usize, usize),
    /// Gathered in `data`.
    Gathered,
}

/// The parser. Memory: at most [`MAX_EVENT`] bytes and the largest chunk pushed.
#[derive(Debug)]
pub(crate) struct SseParser {
    buffer: Vec<u8>,
    /// Start of the line that is being read.
    line: usize,
    /// Up to here the line has no end.
    scanned: usize,
    /// A line ended with CR: an LF that follows belongs to it.
    after_cr: bool,
    at_start: bool,
    pending: Pending,
    data: Vec<u8>,
    kind: EventKind,
    max: usize,
}

impl SseParser {
    pub(crate) fn new() -> Self {
        Self::with_max(MAX_EVENT)
    }

    fn with_max(max: usize) -> Self {
        Self {
            buffer: Vec::new(),
            line: 0,
            scanned: 0,
            after_cr: false,
            at_start: true,
            pending: Pending::Nothing,
            data: Vec::new(),
            kind: EventKind::Message,
            max,
        }
    }

    /// Takes the next bytes; [`Self::next`] then tells the events that they complete.
    pub(crate) fn push(&mut self, chunk: &[u8]) {
        self.gather();
        self.buffer.drain(..self.line);
        self.scanned -= self.line;
        self.line = 0;
        self.buffer.extend_from_slice(chunk);
    }

    /// The next complete event; `None` until more bytes are pushed. An event without its closing
    /// blank line is none: the stream was cut.
    ///
    /// # Errors
    /// [`TooLong`]; the stream cannot be read on.
    pub(crate) fn next(&mut self) -> Result<Option<Event<'_>>, TooLong> {
        while let Some((start, end)) = self.next_line()? {
            if start != end {
                self.field(start, end)?;
                continue;
            }
            let kind = std::mem::replace(&mut self.kind, EventKind::Message);
            match std::mem::replace(&mut self.pending, Pending::Nothing) {
                Pending::Nothing => {}
                Pending::InBuffer(from, to) => {
                    let data = self.buffer.get(from..to).unwrap_or_default();
                    return Ok(Some(Event { kind, data }));
                }
                Pending::Gathered => {
                    let data = self.data.as_slice();
                    return Ok(Some(Event { kind, data }));
                }
            }
        }
        Ok(None)
    }

    /// The range of the next complete line, its end not included.
    fn next_line(&mut self) -> Result<Option<(usize, usize)>, TooLong> {
        if self.after_cr && self.line < self.buffer.len() {
            self.after_cr = false;
            if self.buffer.get(self.line) == Some(&b'\n') {
                self.line += 1;
                self.scanned = self.scanned.max(self.line);
            }
        }
        let rest = self.buffer.get(self.scanned..).unwrap_or_default();
        let Some(found) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
            self.scanned = self.buffer.len();
            return if self.scanned - self.line > self.max {
                Err(TooLong)
            } else {
                Ok(None)
            };
        };
        let end = self.scanned + found;
        let mut start = self.line;
        self.after_cr = self.buffer.get(end) == Some(&b'\r');
        self.line = end + 1;
        self.scanned = self.line;
        if std::mem::take(&mut self.at_start) && self.buffer.starts_with(b"\xEF\xBB\xBF") {
            start += 3;
        }
        Ok(Some((start, end)))
    }

    fn field(&mut self, start: usize, end: usize) -> Result<(), TooLong> {
        let line = self.buffer.get(start..end).unwrap_or_default();
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) = match colon {
            Some(at) => (line.get(..at), line.get(at + 1..)),
            None => (Some(line), None),
        };
        let value = value.unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        let from = end - value.len();
        match name.unwrap_or_default() {
            b"data" => self.data_line(from, end),
            b"error" => {
                self.kind = EventKind::Error;
                self.data_line(from, end)
            }
            b"event" => {
                if value == b"error" {
                    self.kind = EventKind::Error;
                }
                Ok(())
            }
            // Comments (an empty name), ids, retry times, and what the standard says to ignore.
            _ => Ok(()),
        }
    }

    fn data_line(&mut self, from: usize, to: usize) -> Result<(), TooLong> {
        if self.pending == Pending::Nothing {
            self.pending = Pending::InBuffer(from, to);
            return Ok(());
        }
        self.gather();
        let line = self.buffer.get(from..to).unwrap_or_default();
        if self.data.len() + line.len() >= self.max {
            return Err(TooLong);
        }
        self.data.push(b'\n');
        self.data.extend_from_slice(line);
        Ok(())
    }

    /// Moves a data line out of the buffer, which is about to move.
    fn gather(&mut self) {
        if let Pending::InBuffer(from, to) = self.pending {
            self.data.clear();
            self.data
                .extend_from_slice(self.buffer.get(from..to).unwrap_or_default());
            self.pending = Pending::Gathered;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn events(chunks: &[&[u8]]) -> Vec<(EventKind, String)> {
        let mut parser = SseParser::new();
        let mut out = Vec::new();
        for chunk in chunks {
            parser.push(chunk);
            while let Some(event) = parser.next().unwrap() {
                out.push((event.kind, String::from_utf8(event.data.to_vec()).unwrap()));
            }
        }
        out
    }

    fn texts(chunks: &[&[u8]]) -> Vec<String> {
        events(chunks).into_iter().map(|(_, data)| data).collect()
    }

    #[test]
    fn events_come_out_in_order() {
        assert_eq!(
            texts(&[b"data: a\n\ndata: b\n\ndata: [DONE]\n\n"]),
            ["a", "b", "[DONE]"]
        );
    }

    #[test]
    fn every_chunk_boundary_gives_the_same_events() {
        let stream: &[u8] =
            b"\xEF\xBB\xBFdata: one\r\n\r\n: comment\r\n\r\ndata:two\ndata: three\n\nid: 7\revent: error\rdata: x\r\rdata\n\n";
        let whole = events(&[stream]);
        assert_eq!(
            whole,
            [
                (EventKind::Message, "one".to_owned()),
                (EventKind::Message, "two\nthree".to_owned()),
                (EventKind::Error, "x".to_owned()),
                (EventKind::Message, String::new()),
            ]
        );
        for first in 0..=stream.len() {
            for second in first..=stream.len() {
                let chunks = [&stream[..first], &stream[first..second], &stream[second..]];
                assert_eq!(events(&chunks), whole, "cut at {first} and {second}");
            }
        }
        let single: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(events(&single), whole);
    }

    #[test]
    fn comments_and_unknown_fields_are_no_events() {
        assert!(texts(&[b": keep-alive\n\n\n\nretry: 5\n\nid: 1\n\nevent: ping\n\n"]).is_empty());
    }

    #[test]
    fn an_event_that_is_cut_off_is_none() {
        assert_eq!(texts(&[b"data: a\n\ndata: b\n"]), ["a"]);
        assert_eq!(texts(&[b"data: a\n\ndata: b"]), ["a"]);
    }

    #[test]
    fn an_old_llama_servers_error_field_is_an_error() {
        assert_eq!(
            events(&[b"error: {\"code\":500}\n\n"]),
            [(EventKind::Error, "{\"code\":500}".to_owned())]
        );
    }

    #[test]
    fn an_error_name_does_not_stick_to_the_next_event() {
        let seen = events(&[b"event: error\ndata: a\n\ndata: b\n\n"]);
        assert_eq!(seen[0].0, EventKind::Error);
        assert_eq!(seen[1].0, EventKind::Message);
    }

    #[test]
    fn a_line_without_end_is_refused_and_so_is_an_event_without_end() {
        let mut parser = SseParser::with_max(100);
        parser.push(b"data: ");
        assert_eq!(parser.next(), Ok(None));
        parser.push(&[b'x'; 95]);
        assert_eq!(parser.next(), Err(TooLong));

        let mut parser = SseParser::with_max(100);
        let refused = (0..20).any(|_| {
            parser.push(b"data: 012345678\n");
            parser.next() == Err(TooLong)
        });
        assert!(refused);
        assert!(parser.data.len() <= 100);
    }

    #[test]
    fn memory_does_not_grow_with_the_stream() {
        let mut parser = SseParser::new();
        for _ in 0..10_000 {
            parser.push(b"data: 0123456789\n\n");
            while parser.next().unwrap().is_some() {}
        }
        assert!(parser.buffer.capacity() < 1024);
    }
}
