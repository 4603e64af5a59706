//! How a request's body is compressed, and its decompression, bounded by the size of what comes out.

use std::io::Read;

use bytes::Bytes;
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use http::header::CONTENT_ENCODING;
use http::{HeaderMap, HeaderValue};
use ruzstd::decoding::StreamingDecoder;

use crate::http::error::HttpError;

/// Bytes that are decompressed at once.
const STEP: usize = 64 * 1024;

/// Most bytes of one block of a decompressed body.
const BLOCK: usize = 1 << 20;

/// A content coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    Gzip,
    /// The zlib format, as HTTP means it.
    Deflate,
    Zstd,
}

impl Coding {
    /// The coding that `headers` name; `None` if the body is plain.
    ///
    /// # Errors
    /// [`HttpError::ContentEncoding`] for any other coding, and for several at once.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Option<Self>, HttpError> {
        let mut coding = None;
        for value in headers.get_all(CONTENT_ENCODING) {
            for name in value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                let named = match name.to_ascii_lowercase().as_slice() {
                    b"" | b"identity" => continue,
                    b"gzip" | b"x-gzip" => Self::Gzip,
                    b"deflate" => Self::Deflate,
                    b"zstd" => Self::Zstd,
                    _ => return Err(unknown(value)),
                };
                if coding.replace(named).is_some() {
                    return Err(unknown(value));
                }
            }
        }
        Ok(coding)
    }

    /// `compressed` decompressed, at most `limit` bytes.
    ///
    /// # Errors
    /// [`HttpError::BodyTooLarge`] at the first step beyond the limit, [`HttpError::BodyBroken`] if it is not in this
    /// coding.
    pub(crate) fn decode(self, compressed: &[u8], limit: usize, grow: Grow<'_>) -> Result<Bytes, HttpError> {
        match self {
            Self::Gzip => bounded(MultiGzDecoder::new(compressed), limit, grow),
            Self::Deflate => bounded(ZlibDecoder::new(compressed), limit, grow),
            Self::Zstd => bounded(StreamingDecoder::new(compressed).map_err(broken)?, limit, grow),
        }
    }
}

fn unknown(value: &HeaderValue) -> HttpError {
    HttpError::ContentEncoding(String::from_utf8_lossy(value.as_bytes()).chars().take(64).collect())
}

fn broken(error: impl std::fmt::Display) -> HttpError {
    HttpError::BodyBroken(format!("it cannot be decompressed: {error}"))
}

/// Hears of each step's bytes, and may refuse them.
type Grow<'a> = &'a mut dyn FnMut(usize) -> Result<(), HttpError>;

fn bounded(mut from: impl Read, limit: usize, grow: Grow<'_>) -> Result<Bytes, HttpError> {
    // In blocks: one buffer that grows would be copied each time, and what is refused in the end would have taken up to
    // three times the limit.
    let mut blocks: Vec<Vec<u8>> = Vec::new();
    let mut whole = 0;
    let mut step = vec![0; STEP];
    loop {
        let count = from.read(&mut step).map_err(broken)?;
        let Some(read) = step.get(..count).filter(|read| !read.is_empty()) else {
            return Ok(joined(blocks));
        };
        if whole + count > limit {
            return Err(HttpError::BodyTooLarge(limit));
        }
        grow(count)?;
        match blocks.last_mut().filter(|last| last.capacity() - last.len() >= count) {
            Some(last) => last.extend_from_slice(read),
            None => {
                let mut block = Vec::with_capacity(whole.clamp(count, BLOCK.max(count)));
                block.extend_from_slice(read);
                blocks.push(block);
            }
        }
        whole += count;
    }
}

fn joined(mut blocks: Vec<Vec<u8>>) -> Bytes {
    match blocks.len() {
        0 | 1 => blocks.pop().unwrap_or_default().into(),
        _ => blocks.concat().into(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(plain: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn each_coding_is_decoded_up_to_the_limit() {
        // In blocks that differ, so that their order counts.
        let plain: Vec<u8> = (b'a'..=b'z')
            .cycle()
            .flat_map(|letter| [letter; 1000])
            .take(20 * STEP + 7)
            .collect();
        for (coding, compressed) in [
            (Coding::Gzip, gzip(&plain)),
            (Coding::Deflate, zlib(&plain)),
            (Coding::Zstd, compress_to_vec(&plain[..], CompressionLevel::Fastest)),
        ] {
            assert!(compressed.len() < STEP, "{coding:?}");
            assert_eq!(
                coding.decode(&compressed, plain.len(), &mut |_| Ok(())).unwrap(),
                plain,
                "{coding:?}"
            );
            let limit = plain.len() - 1;
            assert_eq!(
                coding.decode(&compressed, limit, &mut |_| Ok(())),
                Err(HttpError::BodyTooLarge(limit))
            );
            let half = compressed.split_at(compressed.len() / 2).0;
            for wrong in [half, b"{}", b""] {
                let decoded = coding.decode(wrong, limit, &mut |_| Ok(()));
                assert!(
                    matches!(decoded, Err(HttpError::BodyBroken(_))),
                    "{coding:?} {decoded:?}"
                );
            }
        }
    }

    #[test]
    fn codings_are_named_in_the_header() {
        let of = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(CONTENT_ENCODING, HeaderValue::from_static(value));
            }
            Coding::of(&headers)
        };
        for (values, coding) in [
            (&[][..], None),
            (&["identity"], None),
            (&["Identity", ""], None),
            (&["gzip"], Some(Coding::Gzip)),
            (&["X-GZip"], Some(Coding::Gzip)),
            (&["identity, zstd"], Some(Coding::Zstd)),
            (&["deflate"], Some(Coding::Deflate)),
        ] {
            assert_eq!(of(values), Ok(coding), "{values:?}");
        }
        for values in [&["br"][..], &["gzip, gzip"], &["gzip", "zstd"], &["gzip, br"]] {
            assert!(matches!(of(values), Err(HttpError::ContentEncoding(_))), "{values:?}");
        }
    }
}
