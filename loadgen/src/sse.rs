//! An incremental parser of server-sent events (WHATWG HTML, "Parsing an event stream").
//!
//! Made for load: an event that lies whole in the bytes given is handed on without being copied; only
//! what a chunk boundary cuts is kept.

use super::limits::MAX_EVENT_BYTES;

/// One event, valid while it is handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Event<'a> {
    /// The `event:` field; empty where there was none.
    pub(crate) name: &'a [u8],
    /// The `data:` lines, joined by line feeds.
    pub(crate) data: &'a [u8],
}

/// The stream cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SseError {
    /// An event grew over the limit before it ended.
    #[error("an event of more than {MAX_EVENT_BYTES} bytes")]
    TooLarge,
}

/// The state between two chunks of a stream.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    /// The beginning of a line that has not ended yet.
    line: Vec<u8>,
    /// The data lines of the event so far, each ended by a line feed.
    data: Vec<u8>,
    /// The event's name.
    name: Vec<u8>,
    /// Whether the event has a data line (which may be empty).
    has_data: bool,
    /// The last byte was a carriage return that ended a line: a line feed after it belongs to it.
    skip_lf: bool,
    /// Whether the first line has been seen; only it may begin with a byte order mark.
    started: bool,
}

impl Parser {
    /// Forgets everything, for the next stream; keeps the buffers' memory.
    pub(crate) fn reset(&mut self) {
        self.line.clear();
        self.clear_event();
        self.skip_lf = false;
        self.started = false;
    }

    /// Whether a line or an event has begun and not ended.
    pub(crate) fn is_inside_event(&self) -> bool {
        !self.line.is_empty() || self.has_data || !self.name.is_empty()
    }

    /// Reads the next bytes of the stream and calls `on_event` for each event that ends in them.
    ///
    /// # Errors
    /// [`SseError::TooLarge`] when an event passes [`MAX_EVENT_BYTES`].
    pub(crate) fn push(&mut self, input: &[u8], mut on_event: impl FnMut(Event<'_>)) -> Result<(), SseError> {
        let mut rest = input;
        while !rest.is_empty() {
            if std::mem::take(&mut self.skip_lf)
                && let Some(after) = rest.strip_prefix(b"\n")
            {
                rest = after;
                continue;
            }
            if !self.is_inside_event()
                && let Some((data, after)) = whole_event(rest)
            {
                self.started = true;
                on_event(Event { name: b"", data });
                rest = after;
                continue;
            }
            let Some((line, end, after)) = split_line(rest) else {
                return self.keep(rest);
            };
            self.skip_lf = end == b'\r';
            rest = after;
            self.end_line(line, &mut on_event)?;
        }
        Ok(())
    }

    fn end_line(&mut self, line: &[u8], on_event: &mut impl FnMut(Event<'_>)) -> Result<(), SseError> {
        if self.line.is_empty() {
            return self.take_line(line, on_event);
        }
        self.keep(line)?;
        let mut whole = std::mem::take(&mut self.line);
        let taken = self.take_line(&whole, on_event);
        whole.clear();
        self.line = whole;
        taken
    }

    fn take_line(&mut self, mut line: &[u8], on_event: &mut impl FnMut(Event<'_>)) -> Result<(), SseError> {
        if !std::mem::replace(&mut self.started, true) {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        if line.is_empty() {
            if self.has_data {
                let data = self.data.strip_suffix(b"\n").unwrap_or(&self.data);
                on_event(Event { name: &self.name, data });
            }
            self.clear_event();
            return Ok(());
        }
        let (field, value) = match memchr::memchr(b':', line).and_then(|at| line.split_at_checked(at)) {
            Some((field, colon)) => {
                let value = colon.strip_prefix(b":").unwrap_or(colon);
                (field, value.strip_prefix(b" ").unwrap_or(value))
            }
            None => (line, b"".as_slice()),
        };
        match field {
            b"data" => {
                self.room_for(value.len() + 1)?;
                self.has_data = true;
                self.data.extend_from_slice(value);
                self.data.push(b'\n');
            }
            b"event" => {
                self.name.clear();
                self.room_for(value.len())?;
                self.name.extend_from_slice(value);
            }
            // A comment (no field name), `id`, `retry`, and names that the standard ignores.
            _ => {}
        }
        Ok(())
    }

    fn keep(&mut self, part: &[u8]) -> Result<(), SseError> {
        self.room_for(part.len())?;
        self.line.extend_from_slice(part);
        Ok(())
    }

    fn room_for(&self, more: usize) -> Result<(), SseError> {
        let held = self.line.len() + self.data.len() + self.name.len();
        if held.saturating_add(more) > MAX_EVENT_BYTES {
            Err(SseError::TooLarge)
        } else {
            Ok(())
        }
    }

    fn clear_event(&mut self) {
        self.data.clear();
        self.name.clear();
        self.has_data = false;
    }
}

/// A line, the byte that ended it, and what follows.
fn split_line(input: &[u8]) -> Option<(&[u8], u8, &[u8])> {
    let at = memchr::memchr2(b'\n', b'\r', input)?;
    let (line, tail) = input.split_at_checked(at)?;
    let (end, after) = tail.split_first()?;
    Some((line, *end, after))
}

/// The fast path: `data: …` and a blank line, whole and at the front. All else takes the slow path.
fn whole_event(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (data, end, after) = split_line(input.strip_prefix(b"data: ")?)?;
    let after = if end == b'\n' {
        after.strip_prefix(b"\n")?
    } else {
        after.strip_prefix(b"\n\r\n")?
    };
    Some((data, after))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Seen = Vec<(Vec<u8>, Vec<u8>)>;

    fn parse(parts: &[&[u8]]) -> (Seen, bool) {
        let mut parser = Parser::default();
        let mut seen = Vec::new();
        for part in parts {
            parser
                .push(part, |e| seen.push((e.name.to_vec(), e.data.to_vec())))
                .unwrap();
        }
        (seen, parser.is_inside_event())
    }

    fn data(text: &str) -> Vec<Vec<u8>> {
        parse(&[text.as_bytes()]).0.into_iter().map(|(_, d)| d).collect()
    }

    #[test]
    fn reads_events_of_every_line_ending() {
        for text in [
            "data: a\n\ndata: b\n\n",
            "data: a\r\n\r\ndata: b\r\n\r\n",
            "data: a\r\rdata: b\r\r",
        ] {
            assert_eq!(data(text), [b"a", b"b"], "{text:?}");
        }
    }

    #[test]
    fn follows_the_standard_in_the_details() {
        assert_eq!(data("data:a\n\n"), [b"a"]);
        assert_eq!(data("data:  a\n\n"), [b" a"]);
        assert_eq!(data("data: a\ndata\ndata: b\n\n"), [b"a\n\nb"]);
        assert_eq!(data("data\n\n"), [b""]);
        assert_eq!(
            data(": comment\n\nid: 7\nretry: 3\nother: x\n\n"),
            Vec::<Vec<u8>>::new()
        );
        assert_eq!(data("\u{feff}data: a\n\n"), [b"a"]);
        assert_eq!(data("data: a\n\n\u{feff}data: b\n\n"), [b"a"]);
        assert_eq!(data("event: x\n\ndata: a\n\n"), [b"a"]);
        let (seen, _) = parse(&[b"event: error\ndata: {}\n\ndata: a\n\n"]);
        assert_eq!(seen, [(b"error".to_vec(), b"{}".to_vec()), (vec![], b"a".to_vec())]);
    }

    #[test]
    fn tells_whether_an_event_is_unfinished() {
        assert!(!parse(&[b"data: a\n\n"]).1);
        assert!(!parse(&[b": comment\n"]).1);
        for cut in ["d", "data: a", "data: a\n", "event: x\n"] {
            assert!(parse(&[cut.as_bytes()]).1, "{cut:?}");
        }
    }

    #[test]
    fn refuses_an_endless_event() {
        let mut parser = Parser::default();
        let part = vec![b'x'; MAX_EVENT_BYTES / 2];
        assert!(parser.push(&part, |_| ()).is_ok());
        assert!(parser.push(&part, |_| ()).is_ok());
        assert_eq!(parser.push(&part, |_| ()), Err(SseError::TooLarge));
        parser.reset();
        let line = [b"data: ".as_slice(), &part, b"\n"].concat();
        assert!(parser.push(&line, |_| ()).is_ok());
        assert_eq!(parser.push(&line, |_| ()), Err(SseError::TooLarge));
    }

    fn piece() -> impl Strategy<Value = String> {
        prop_oneof![
            4 => Just("data: {\"a\":\"t1 \"}\n\n".to_owned()),
            1 => Just("data: x\r\n\r\n".to_owned()),
            1 => Just("event: error\ndata: e\n\n".to_owned()),
            1 => "[dataevn: \u{feff}\r\n\\[\\]]{0,12}",
        ]
    }

    proptest! {
        #[test]
        fn boundaries_do_not_matter(
            pieces in prop::collection::vec(piece(), 0..12),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        ) {
            let text = pieces.concat().into_bytes();
            let mut at: Vec<usize> = cuts.iter().map(|c| c.index(text.len() + 1)).collect();
            at.extend([0, text.len()]);
            at.sort_unstable();
            let parts: Vec<&[u8]> = at.windows(2).map(|w| &text[w[0]..w[1]]).collect();
            let bytes: Vec<&[u8]> = text.chunks(1).collect();
            let whole = parse(&[&text]);
            prop_assert_eq!(&parse(&parts), &whole);
            prop_assert_eq!(&parse(&bytes), &whole);
        }

        #[test]
        fn any_bytes_do_not_panic(input in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse(&[&input]);
        }
    }
}
