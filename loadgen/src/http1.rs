//! The part of HTTP/1.1 that an answer needs: its head, and where its body ends. Pure; made for load.
//!
//! The body is handed on without a copy and without an allocation. A load generator that costs more than the server
//! measures itself.

use tokenbus_http_parts::ChunkedDecoder;

/// The longest head of an answer, bytes, as in common servers and clients.
pub(crate) const MAX_HEAD_BYTES: usize = 64 << 10;

/// Most header fields of an answer.
const MAX_FIELDS: usize = 100;

/// The answer is not valid HTTP.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not valid HTTP: {0}")]
pub(crate) struct HttpError(pub(crate) &'static str);

/// An answer's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    /// The status.
    pub(crate) status: u16,
    /// The content type without its parameters, in lower case.
    pub(crate) content_type: String,
    /// The end of the body.
    pub(crate) framing: Framing,
    /// Whether the connection can be used again.
    pub(crate) keep_alive: bool,
}

/// The way in which a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// After this many bytes.
    Length(u64),
    /// With the last chunk.
    Chunked,
    /// With the connection.
    Close,
}

impl Head {
    /// Reads the head at the beginning of `input`. Returns it with its length; `None` if it is not complete.
    ///
    /// # Errors
    /// [`HttpError`] if it is not HTTP.
    pub(crate) fn parse(input: &[u8]) -> Result<Option<(Self, usize)>, HttpError> {
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut response = httparse::Response::new(&mut fields);
        let length = match response.parse(input) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if input.len() < MAX_HEAD_BYTES => return Ok(None),
            Ok(httparse::Status::Partial) => return Err(HttpError("a head without an end")),
            Err(_) => return Err(HttpError("no head of an answer")),
        };
        let status = response.code.unwrap_or(0);
        let mut head = Self {
            status,
            content_type: String::new(),
            framing: Framing::Close,
            keep_alive: response.version == Some(1),
        };
        for field in response.headers.iter() {
            head.field(field.name, field.value)?;
        }
        if matches!(status, 100..=199 | 204 | 304) {
            head.framing = Framing::Length(0);
        }
        head.keep_alive &= head.framing != Framing::Close;
        Ok(Some((head, length)))
    }

    fn field(&mut self, name: &str, value: &[u8]) -> Result<(), HttpError> {
        let is = |wanted: &str| name.eq_ignore_ascii_case(wanted);
        if is("content-type") {
            let essence = value.split(|&b| b == b';').next().unwrap_or_default();
            self.content_type = String::from_utf8_lossy(essence.trim_ascii()).to_ascii_lowercase();
        } else if is("transfer-encoding") {
            let last = value.rsplit(|&b| b == b',').next().unwrap_or_default().trim_ascii();
            if !last.eq_ignore_ascii_case(b"chunked") {
                return Err(HttpError("a transfer encoding that was not asked for"));
            }
            self.framing = Framing::Chunked;
        } else if is("content-length") && self.framing != Framing::Chunked {
            let text = std::str::from_utf8(value).unwrap_or_default();
            let length = text
                .trim()
                .parse()
                .map_err(|_| HttpError("content-length is no number"))?;
            self.framing = Framing::Length(length);
        } else if is("connection") {
            let mut words = value.split(|&b| b == b',');
            self.keep_alive &= !words.any(|word| word.trim_ascii().eq_ignore_ascii_case(b"close"));
        }
        Ok(())
    }
}

/// Finds a body's data in the bytes of a connection, however they are cut.
#[derive(Debug)]
pub(crate) struct Decoder(State);

#[derive(Debug)]
enum State {
    /// Bytes that are still to come.
    Length(u64),
    Chunked(ChunkedDecoder),
    Close,
}

impl Decoder {
    /// A reader for a body with this framing.
    pub(crate) fn new(framing: Framing) -> Self {
        Self(match framing {
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Chunked(ChunkedDecoder::default()),
            Framing::Close => State::Close,
        })
    }

    /// Whether the body has ended.
    pub(crate) fn is_done(&self) -> bool {
        match &self.0 {
            State::Length(left) => *left == 0,
            State::Chunked(chunks) => chunks.has_ended(),
            State::Close => false,
        }
    }

    /// Whether the end of the connection is the end of the body.
    pub(crate) fn ends_with_connection(&self) -> bool {
        matches!(self.0, State::Close) || self.is_done()
    }

    /// Takes data from the front of `input`. Returns the data and the rest. Without data it has used all of `input`, or
    /// the body has ended.
    ///
    /// # Errors
    /// [`HttpError`] if a chunk is malformed.
    pub(crate) fn next<'a>(&mut self, mut input: &'a [u8]) -> Result<(&'a [u8], &'a [u8]), HttpError> {
        match &mut self.0 {
            State::Length(left) => Ok(take(input, left)),
            State::Chunked(chunks) => {
                let data = chunks.data(&mut input).map_err(|_| HttpError("chunks that are none"))?;
                Ok((data.unwrap_or_default(), input))
            }
            State::Close => Ok((input, b"")),
        }
    }
}

/// Splits off as many of the next `left` bytes as `input` holds.
fn take<'a>(input: &'a [u8], left: &mut u64) -> (&'a [u8], &'a [u8]) {
    let most = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
    *left -= most as u64;
    input.split_at_checked(most).unwrap_or((input, b""))
}

#[cfg(test)]
#[path = "http1_tests.rs"]
mod tests;
