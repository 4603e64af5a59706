//! Reads server-sent events out of chunks of bytes, however they are cut.

use crate::limits;

/// An incremental reader; feed it bytes, take events.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    pending: Vec<u8>,
    data: Option<String>,
}

/// A line longer than we are ready to gather.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a line of the event stream is longer than {} MiB", limits::SSE_LINE_BYTES / 1024 / 1024)]
pub(crate) struct LineTooLong;

impl Reader {
    /// Takes the next bytes and gives the `data` of each event they complete to `each`.
    ///
    /// # Errors
    /// [`LineTooLong`].
    pub(crate) fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(&str)) -> Result<(), LineTooLong> {
        let mut rest = bytes;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (head, tail) = rest.split_at(end);
            rest = tail.get(1..).unwrap_or_default();
            if self.pending.is_empty() {
                self.line(head, &mut each);
            } else {
                let mut line = std::mem::take(&mut self.pending);
                line.extend_from_slice(head);
                self.line(&line, &mut each);
            }
        }
        self.pending.extend_from_slice(rest);
        if self.pending.len() > limits::SSE_LINE_BYTES {
            return Err(LineTooLong);
        }
        Ok(())
    }

    fn line(&mut self, line: &[u8], each: &mut impl FnMut(&str)) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            if let Some(data) = self.data.take() {
                each(&data);
            }
            return;
        }
        // Comments (a leading colon) and the other fields mean nothing to us.
        let Some(value) = line.strip_prefix(b"data:") else {
            return;
        };
        let value = String::from_utf8_lossy(value.strip_prefix(b" ").unwrap_or(value));
        match &mut self.data {
            None => self.data = Some(value.into_owned()),
            Some(data) => {
                data.push('\n');
                data.push_str(&value);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(chunks: &[&[u8]]) -> Vec<String> {
        let (mut reader, mut events) = (Reader::default(), Vec::new());
        for chunk in chunks {
            reader.feed(chunk, |data| events.push(data.to_owned())).unwrap();
        }
        events
    }

    #[test]
    fn events_comments_and_line_ends() {
        let text = b": wait\n\ndata: one\n\ndata:two\r\n\r\nevent: x\nid: 3\ndata: a\ndata: b\n\ndata: half";
        assert_eq!(read(&[text]), ["one", "two", "a\nb"]);
    }

    proptest! {
        #[test]
        fn cuts_change_nothing(cuts in prop::collection::vec(0_usize..60, 0..8)) {
            let text = "data: {\"é\":1}\n\n: c\ndata: z\r\n\r\ndata: [DONE]\n\n".as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.sort_unstable();
            cuts.insert(0, 0);
            cuts.push(text.len());
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
            prop_assert_eq!(read(&chunks), ["{\"é\":1}", "z", "[DONE]"]);
        }
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut reader = Reader::default();
        let chunk = vec![b'x'; 1024 * 1024];
        let fed = (0..17).try_for_each(|_| reader.feed(&chunk, |_| ()));
        assert_eq!(fed, Err(LineTooLong));
    }
}
