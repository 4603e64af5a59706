//! An incremental parser of server-sent events (WHATWG HTML, "Parsing an event stream").
//!
//! An event that lies whole in the input is returned without a copy. The parser keeps only what a cut separates.

/// One event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// The `event:` field; empty where there is none.
    pub name: &'a [u8],
    /// The `data:` lines, joined by line feeds.
    pub data: &'a [u8],
}

impl Event<'_> {
    /// Whether the event reports an error: `event: error`, or the field `error:` of older llama-servers.
    #[inline]
    pub fn is_error(&self) -> bool {
        self.name == b"error"
    }
}

/// An event of the stream is longer than the parser's limit. Nothing after it can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event of the stream is longer than {most} bytes")]
pub struct EventTooLong {
    most: usize,
}

/// The parser. It holds at most its limit, in bytes, between two inputs.
#[derive(Debug)]
pub struct EventParser {
    /// The longest event, bytes.
    most: usize,
    /// The beginning of a line that has not ended yet.
    line: Vec<u8>,
    /// The data lines of the event so far, each ended by a line feed.
    data: Vec<u8>,
    /// The event's name.
    name: Vec<u8>,
    /// Whether the event has a data line (which may be empty).
    has_data: bool,
    /// Whether the event in `data` and `name` was returned; the next call clears it.
    is_returned: bool,
    /// The last byte was a carriage return that ended a line. A line feed after it belongs to it.
    skip_line_feed: bool,
    /// Whether the first line has been seen. Only the first line may begin with a byte order mark.
    started: bool,
}

impl EventParser {
    /// A parser of one stream, whose events have at most `most` bytes.
    pub fn new(most: usize) -> Self {
        Self {
            most,
            line: Vec::new(),
            data: Vec::new(),
            name: Vec::new(),
            has_data: false,
            is_returned: false,
            skip_line_feed: false,
            started: false,
        }
    }

    /// Forgets the stream, for the next one. Keeps the buffers' memory.
    pub fn reset(&mut self) {
        self.line.clear();
        self.clear_event();
        self.skip_line_feed = false;
        self.started = false;
    }

    /// Whether a line or an event has begun and not ended.
    pub fn is_inside_event(&self) -> bool {
        !self.is_returned && (!self.line.is_empty() || self.has_data || !self.name.is_empty())
    }

    /// Reads all of `input` and calls `on_event` for each event that ends in it.
    ///
    /// # Errors
    /// [`EventTooLong`].
    pub fn push(&mut self, mut input: &[u8], mut on_event: impl FnMut(Event<'_>)) -> Result<(), EventTooLong> {
        while let Some(event) = self.next(&mut input)? {
            on_event(event);
        }
        Ok(())
    }

    /// Returns the next event that ends in `input`, and advances `input` past it. `None` means that all of `input`
    /// was read. An event without its closing blank line is none: the stream was cut.
    ///
    /// # Errors
    /// [`EventTooLong`].
    pub fn next<'p, 'i: 'p>(&'p mut self, input: &mut &'i [u8]) -> Result<Option<Event<'p>>, EventTooLong> {
        if self.is_returned {
            self.clear_event();
        }
        while !input.is_empty() {
            if std::mem::take(&mut self.skip_line_feed)
                && let Some(after) = input.strip_prefix(b"\n")
            {
                *input = after;
                continue;
            }
            if !self.is_inside_event()
                && let Some((data, after)) = simple_event(input)
            {
                self.started = true;
                *input = after;
                return Ok(Some(Event { name: b"", data }));
            }
            let Some((line, end, after)) = split_line(input) else {
                let part = std::mem::take(input);
                self.keep(part)?;
                return Ok(None);
            };
            self.skip_line_feed = end == b'\r';
            *input = after;
            if self.end_line(line)? {
                self.is_returned = true;
                let data = self.data.strip_suffix(b"\n").unwrap_or(&self.data);
                return Ok(Some(Event { name: &self.name, data }));
            }
        }
        Ok(None)
    }

    /// Takes the rest of a line. Returns whether it ends an event that has data.
    fn end_line(&mut self, line: &[u8]) -> Result<bool, EventTooLong> {
        if self.line.is_empty() {
            return self.take_line(line);
        }
        self.keep(line)?;
        let mut complete = std::mem::take(&mut self.line);
        let taken = self.take_line(&complete);
        complete.clear();
        self.line = complete;
        taken
    }

    fn take_line(&mut self, mut line: &[u8]) -> Result<bool, EventTooLong> {
        if !std::mem::replace(&mut self.started, true) {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        if line.is_empty() {
            if !self.has_data {
                self.clear_event();
            }
            return Ok(self.has_data);
        }
        let (field, value) = match memchr::memchr(b':', line).and_then(|at| line.split_at_checked(at)) {
            Some((field, colon)) => {
                let value = colon.strip_prefix(b":").unwrap_or(colon);
                (field, value.strip_prefix(b" ").unwrap_or(value))
            }
            None => (line, b"".as_slice()),
        };
        match field {
            b"data" => self.add_data(value)?,
            b"event" => self.set_name(value)?,
            b"error" => {
                self.set_name(b"error")?;
                self.add_data(value)?;
            }
            // A comment (no field name), `id`, `retry`, and names that the standard ignores.
            _ => {}
        }
        Ok(false)
    }

    fn add_data(&mut self, value: &[u8]) -> Result<(), EventTooLong> {
        self.check_room(value.len() + 1)?;
        self.has_data = true;
        self.data.extend_from_slice(value);
        self.data.push(b'\n');
        Ok(())
    }

    fn set_name(&mut self, name: &[u8]) -> Result<(), EventTooLong> {
        self.name.clear();
        self.check_room(name.len())?;
        self.name.extend_from_slice(name);
        Ok(())
    }

    fn keep(&mut self, part: &[u8]) -> Result<(), EventTooLong> {
        self.check_room(part.len())?;
        self.line.extend_from_slice(part);
        Ok(())
    }

    fn check_room(&self, more: usize) -> Result<(), EventTooLong> {
        let held = self.line.len() + self.data.len() + self.name.len();
        if held.saturating_add(more) > self.most {
            Err(EventTooLong { most: self.most })
        } else {
            Ok(())
        }
    }

    fn clear_event(&mut self) {
        self.data.clear();
        self.name.clear();
        self.has_data = false;
        self.is_returned = false;
    }
}

/// A line, the byte that ended it, and what follows.
fn split_line(input: &[u8]) -> Option<(&[u8], u8, &[u8])> {
    let at = memchr::memchr2(b'\n', b'\r', input)?;
    let (line, tail) = input.split_at_checked(at)?;
    let (end, after) = tail.split_first()?;
    Some((line, *end, after))
}

/// The fast path: one line `data: …` and a blank line at the front of `input`. Returns the data and what follows.
fn simple_event(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (data, end, after) = split_line(input.strip_prefix(b"data: ")?)?;
    let after = if end == b'\n' {
        after.strip_prefix(b"\n")?
    } else {
        after.strip_prefix(b"\n\r\n")?
    };
    Some((data, after))
}

#[cfg(test)]
#[path = "event_stream_tests.rs"]
mod tests;
