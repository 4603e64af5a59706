//! The chunked coding of a body (RFC 9112, section 7.1), undone piece by piece in the bytes as they were read.

use crate::limits::LINE_PASSED_OVER;

/// The bytes are not a chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body is not chunked as it should be")]
pub(super) struct Malformed;

/// What the next byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// A digit of a chunk's size, or the end of the digits.
    Size { digits: u8 },
    /// Of an extension behind the size.
    Extension,
    /// The line feed behind the size.
    SizeEnd,
    /// Data.
    Data,
    /// The carriage return behind the data.
    DataReturn,
    /// The line feed behind the data.
    DataEnd,
    /// The first of a line behind the last chunk.
    TrailerStart,
    /// Of a trailer.
    Trailer,
    /// The line feed of the empty line that ends the body.
    Last,
    /// None: the body is complete.
    Nothing,
}

/// How far a body is.
#[derive(Debug)]
pub(super) struct Chunked {
    next: Next,
    /// What is missing of this chunk, bytes.
    left: u64,
    passed_over: usize,
}

impl Default for Chunked {
    fn default() -> Self {
        Self {
            next: Next::Size { digits: 0 },
            left: 0,
            passed_over: 0,
        }
    }
}

impl Chunked {
    /// Whether the body has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.next == Next::Nothing
    }

    /// The next piece of data in `bytes`, of which it takes what it has read. `None` when no more data is in
    /// it: all is read then, or up to the end of the body.
    ///
    /// # Errors
    /// [`Malformed`]; what follows means nothing.
    pub(super) fn data<'b>(&mut self, bytes: &mut &'b [u8]) -> Result<Option<&'b [u8]>, Malformed> {
        while !self.has_ended() {
            if self.next == Next::Data {
                let whole = usize::try_from(self.left).unwrap_or(usize::MAX);
                let (data, rest) = bytes.split_at(whole.min(bytes.len()));
                if data.is_empty() {
                    return Ok(None);
                }
                *bytes = rest;
                self.left -= data.len() as u64;
                if self.left == 0 {
                    self.next = Next::DataReturn;
                }
                return Ok(Some(data));
            }
            let Some((byte, rest)) = bytes.split_first() else {
                return Ok(None);
            };
            *bytes = rest;
            self.next = self.after(*byte)?;
        }
        Ok(None)
    }

    fn after(&mut self, byte: u8) -> Result<Next, Malformed> {
        match (self.next, byte) {
            (Next::Size { digits }, _) if byte.is_ascii_hexdigit() && digits < 16 => {
                let digit = char::from(byte).to_digit(16).ok_or(Malformed)?;
                self.left = self.left << 4 | u64::from(digit);
                Ok(Next::Size { digits: digits + 1 })
            }
            (Next::Size { digits: 1.. }, b'\r') => Ok(Next::SizeEnd),
            (Next::Size { digits: 1.. }, b';' | b' ' | b'\t') => self.pass_over(Next::Extension),
            (Next::Extension, b'\r') => Ok(Next::SizeEnd),
            // A bare line feed in an extension is how requests are smuggled past proxies.
            (Next::Extension, b'\n') => Err(Malformed),
            (Next::Extension, _) => self.pass_over(Next::Extension),
            (Next::SizeEnd, b'\n') if self.left > 0 => Ok(Next::Data),
            (Next::SizeEnd, b'\n') => Ok(Next::TrailerStart),
            (Next::DataReturn, b'\r') => Ok(Next::DataEnd),
            (Next::DataEnd, b'\n') => Ok(Next::Size { digits: 0 }),
            (Next::TrailerStart, b'\r') => Ok(Next::Last),
            (Next::Trailer, b'\n') => self.pass_over(Next::TrailerStart),
            (Next::TrailerStart | Next::Trailer, _) => self.pass_over(Next::Trailer),
            (Next::Last, b'\n') => Ok(Next::Nothing),
            _ => Err(Malformed),
        }
    }

    fn pass_over(&mut self, next: Next) -> Result<Next, Malformed> {
        self.passed_over += 1;
        if self.passed_over > LINE_PASSED_OVER {
            return Err(Malformed);
        }
        Ok(next)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The data of `pieces`, and what follows the body.
    fn undo(pieces: &[&[u8]]) -> Result<(Vec<u8>, bool, Vec<u8>), Malformed> {
        let mut body = Chunked::default();
        let (mut data, mut behind) = (Vec::new(), Vec::new());
        for piece in pieces {
            let mut bytes = *piece;
            while let Some(some) = body.data(&mut bytes)? {
                assert!(!some.is_empty());
                data.extend_from_slice(some);
            }
            assert!(bytes.is_empty() || body.has_ended());
            behind.extend_from_slice(bytes);
        }
        Ok((data, body.has_ended(), behind))
    }

    #[test]
    fn chunks_extensions_and_trailers_at_every_boundary() {
        let body: &[u8] = b"5\r\nhello\r\n00A; name=\"v\"\r\n0123456789\r\n1 \r\n!\r\n0\r\nx-y: z\r\n\r\nHTTP";
        let whole = (b"hello0123456789!".to_vec(), true, b"HTTP".to_vec());
        for first in 0..=body.len() {
            for second in first..=body.len() {
                let pieces = [&body[..first], &body[first..second], &body[second..]];
                assert_eq!(undo(&pieces).unwrap(), whole, "cut at {first} and {second}");
            }
        }
    }

    #[test]
    fn what_is_cut_off_has_not_ended() {
        let body: &[u8] = b"2\r\nab\r\n0\r\n\r\n";
        for end in 0..body.len() {
            assert!(!undo(&[&body[..end]]).unwrap().1, "cut at {end}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in [
            "\r\n",
            "x\r\n",
            "-1\r\n",
            " 1\r\na",
            "1\na",
            "1\r\nab",
            "1\r\na\n",
            "1;a\nb\r\n",
            "1\r\na\r\n\r\n",
            "10000000000000000\r\n",
        ] {
            assert_eq!(undo(&[bad.as_bytes()]), Err(Malformed), "{bad:?}");
        }
        let long = format!("1;{}\r\na", "x".repeat(LINE_PASSED_OVER));
        assert_eq!(undo(&[long.as_bytes()]), Err(Malformed));
        let long = format!("0\r\n{}", "x: y\r\n".repeat(LINE_PASSED_OVER));
        assert_eq!(undo(&[long.as_bytes()]), Err(Malformed));
    }

    proptest! {
        #[test]
        fn what_was_coded_comes_out(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 0..20),
            step in 1..50_usize,
        ) {
            let mut body = Vec::new();
            for chunk in &chunks {
                body.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                body.extend_from_slice(chunk);
                body.extend_from_slice(b"\r\n");
            }
            body.extend_from_slice(b"0\r\n\r\n");
            let pieces: Vec<&[u8]> = body.chunks(step).collect();
            prop_assert_eq!(undo(&pieces).unwrap(), (chunks.concat(), true, Vec::new()));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = undo(&[&bytes]);
        }
    }
}
