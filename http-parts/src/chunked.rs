//! The chunked transfer coding of HTTP/1.1 (RFC 9112, section 7.1): one encoder and one decoder.

/// The last chunk, which ends a body, without a trailer.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Most bytes of chunk extensions and trailers in one body. Servers send none; the decoder skips them.
const SKIPPED_BYTES: usize = 16 * 1024;

/// Most hexadecimal digits of a chunk's size: 64 bits.
const SIZE_DIGITS: usize = 16;

/// Appends `data` as one chunk. Empty data appends nothing: an empty chunk would end the body.
#[inline]
pub fn encode_chunk(to: &mut Vec<u8>, data: &[u8]) {
    if data.is_empty() {
        return;
    }
    let mut digits = [0; SIZE_DIGITS];
    let (mut left, mut count) = (data.len(), 0);
    for place in digits.iter_mut().rev() {
        let digit = (left & 0xf) as u8;
        *place = digit + if digit < 10 { b'0' } else { b'a' - 10 };
        count += 1;
        left >>= 4;
        if left == 0 {
            break;
        }
    }
    to.extend_from_slice(digits.get(SIZE_DIGITS - count..).unwrap_or_default());
    to.extend_from_slice(b"\r\n");
    to.extend_from_slice(data);
    to.extend_from_slice(b"\r\n");
}

/// The bytes are not a chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body is not chunked as it should be")]
pub struct MalformedChunks;

/// What the next byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// A digit of a chunk's size, or the end of the digits.
    Size { digits: u8 },
    /// A byte of an extension after the size.
    Extension,
    /// The line feed after the size.
    SizeEnd,
    /// Data.
    Data,
    /// The carriage return after the data.
    DataReturn,
    /// The line feed after the data.
    DataEnd,
    /// The first byte of a line after the last chunk.
    TrailerStart,
    /// Another byte of a trailer line.
    Trailer,
    /// The line feed of the empty line that ends the body.
    Last,
    /// No byte: the body is complete.
    Nothing,
}

/// Finds the data of a chunked body in bytes as they were read.
#[derive(Debug)]
pub struct ChunkedDecoder {
    next: Next,
    /// Bytes of this chunk that have not come yet.
    left: u64,
    skipped: usize,
}

impl Default for ChunkedDecoder {
    fn default() -> Self {
        Self {
            next: Next::Size { digits: 0 },
            left: 0,
            skipped: 0,
        }
    }
}

impl ChunkedDecoder {
    /// Whether the body has ended.
    pub fn has_ended(&self) -> bool {
        self.next == Next::Nothing
    }

    /// Returns the next data in `bytes` and advances `bytes` past what it has read. `None` means that there is no
    /// more data: it has read all of `bytes`, or up to the end of the body.
    ///
    /// # Errors
    /// [`MalformedChunks`]; nothing after that can be read.
    pub fn data<'b>(&mut self, bytes: &mut &'b [u8]) -> Result<Option<&'b [u8]>, MalformedChunks> {
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

    fn after(&mut self, byte: u8) -> Result<Next, MalformedChunks> {
        match (self.next, byte) {
            (Next::Size { digits }, _) if byte.is_ascii_hexdigit() && digits < 16 => {
                let digit = char::from(byte).to_digit(16).ok_or(MalformedChunks)?;
                self.left = self.left << 4 | u64::from(digit);
                Ok(Next::Size { digits: digits + 1 })
            }
            (Next::Size { digits: 1.. }, b'\r') => Ok(Next::SizeEnd),
            (Next::Size { digits: 1.. }, b';' | b' ' | b'\t') => self.skip(Next::Extension),
            (Next::Extension, b'\r') => Ok(Next::SizeEnd),
            // A bare line feed in an extension is how requests are smuggled past proxies.
            (Next::Extension, b'\n') => Err(MalformedChunks),
            (Next::Extension, _) => self.skip(Next::Extension),
            (Next::SizeEnd, b'\n') if self.left > 0 => Ok(Next::Data),
            (Next::SizeEnd, b'\n') => Ok(Next::TrailerStart),
            (Next::DataReturn, b'\r') => Ok(Next::DataEnd),
            (Next::DataEnd, b'\n') => Ok(Next::Size { digits: 0 }),
            (Next::TrailerStart, b'\r') => Ok(Next::Last),
            (Next::Trailer, b'\n') => self.skip(Next::TrailerStart),
            (Next::TrailerStart | Next::Trailer, _) => self.skip(Next::Trailer),
            (Next::Last, b'\n') => Ok(Next::Nothing),
            _ => Err(MalformedChunks),
        }
    }

    fn skip(&mut self, next: Next) -> Result<Next, MalformedChunks> {
        self.skipped += 1;
        if self.skipped > SKIPPED_BYTES {
            return Err(MalformedChunks);
        }
        Ok(next)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The data of `pieces`, whether the body has ended, and what follows it.
    fn decode(pieces: &[&[u8]]) -> Result<(Vec<u8>, bool, Vec<u8>), MalformedChunks> {
        let mut body = ChunkedDecoder::default();
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
                assert_eq!(decode(&pieces).unwrap(), whole, "cut at {first} and {second}");
            }
        }
    }

    #[test]
    fn sizes_are_hexadecimal_and_empty_data_is_no_chunk() {
        let coded = |data: &[u8]| {
            let mut to = b"before".to_vec();
            encode_chunk(&mut to, data);
            to
        };
        assert_eq!(coded(b""), b"before");
        for size in [1, 9, 10, 15, 16, 255, 256, 4095, 4096, 70_000] {
            let data = vec![b'x'; size];
            let wanted = [b"before", format!("{size:x}\r\n").as_bytes(), &data, b"\r\n"].concat();
            assert!(coded(&data) == wanted, "{size}");
        }
    }

    #[test]
    fn what_is_cut_off_has_not_ended() {
        let body: &[u8] = b"2\r\nab\r\n0\r\n\r\n";
        for end in 0..body.len() {
            assert!(!decode(&[&body[..end]]).unwrap().1, "cut at {end}");
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
            assert_eq!(decode(&[bad.as_bytes()]), Err(MalformedChunks), "{bad:?}");
        }
        let long = format!("1;{}\r\na", "x".repeat(SKIPPED_BYTES));
        assert_eq!(decode(&[long.as_bytes()]), Err(MalformedChunks));
        let long = format!("0\r\n{}", "x: y\r\n".repeat(SKIPPED_BYTES));
        assert_eq!(decode(&[long.as_bytes()]), Err(MalformedChunks));
    }

    proptest! {
        #[test]
        fn what_was_coded_comes_out(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 0..20),
            step in 1..50_usize,
        ) {
            let mut body = Vec::new();
            for chunk in &chunks {
                encode_chunk(&mut body, chunk);
            }
            body.extend_from_slice(LAST_CHUNK);
            let pieces: Vec<&[u8]> = body.chunks(step).collect();
            prop_assert_eq!(decode(&pieces).unwrap(), (chunks.concat(), true, Vec::new()));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&[&bytes]);
        }
    }
}
