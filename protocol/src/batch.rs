//! Many frames in one message.
//!
//! A batch is the format byte, then a MessagePack array of frames. The array has a 32-bit length, so that the
//! writer can fill it in last. The writer appends encoded frames to one buffer; the reader hands out frames one by
//! one and borrows from the message.

use serde::Deserialize as _;

use crate::codec::{self, DecodeError, EncodeError};
use crate::frame::Frame;
use crate::limits::{FORMAT, MAX_BATCH};
use crate::plain;

/// Format byte, array marker, 32-bit count.
const HEADER: [u8; 6] = [FORMAT, 0xdd, 0, 0, 0, 0];

/// Collects frames in batches of at most [`MAX_BATCH`] bytes. Only a single frame that is larger makes a larger
/// batch.
#[derive(Debug, Default)]
pub struct BatchWriter {
    bytes: Vec<u8>,
    count: u32,
}

impl BatchWriter {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether it has no frames.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The number of frames in it.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Bytes of the message so far; 0 when empty.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Appends a frame. If the frame does not fit under [`MAX_BATCH`], the batch so far is sealed and returned, and
    /// the frame begins the next batch.
    ///
    /// # Errors
    /// [`EncodeError`] for a frame that cannot be encoded; the batch is then unchanged.
    pub fn push(&mut self, frame: &Frame<'_>) -> Result<Option<Vec<u8>>, EncodeError> {
        if self.bytes.is_empty() {
            self.bytes.extend_from_slice(&HEADER);
        }
        let before = self.bytes.len();
        if !plain::append(&mut self.bytes, frame)
            && let Err(error) = codec::append(&mut self.bytes, frame)
        {
            self.bytes.truncate(before);
            return Err(error);
        }
        if self.count > 0 && self.bytes.len() > MAX_BATCH {
            let mut next = Vec::with_capacity(MAX_BATCH.min(4 * (self.bytes.len() - before)));
            next.extend_from_slice(&HEADER);
            next.extend(self.bytes.drain(before..));
            let full = self.seal();
            self.bytes = next;
            self.count = 1;
            return Ok(full);
        }
        self.count += 1;
        Ok(None)
    }

    /// Takes the finished message; `None` when it has no frames.
    pub fn seal(&mut self) -> Option<Vec<u8>> {
        if self.count == 0 {
            return None;
        }
        let mut bytes = std::mem::take(&mut self.bytes);
        if let Some(field) = bytes.get_mut(2..6) {
            field.copy_from_slice(&self.count.to_be_bytes());
        }
        self.count = 0;
        Some(bytes)
    }
}

/// Reads any frame. Apart from [`BatchReader::for_each`], so that it is compiled in this crate.
fn read(value: &[u8]) -> Result<Frame<'_>, DecodeError> {
    Ok(Frame::deserialize(&mut codec::decoder(value))?)
}

/// Reads the frames of a batch in order, without collecting them.
#[derive(Debug, Clone, Copy)]
pub struct BatchReader<'a>(&'a [u8]);

impl<'a> BatchReader<'a> {
    /// Checks the size and the format byte of `message`.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn new(message: &'a [u8]) -> Result<Self, DecodeError> {
        codec::payload(message).map(Self)
    }

    /// Calls `each` with every frame, in order, up to the first malformed one.
    ///
    /// # Errors
    /// [`DecodeError`] at the first malformed frame.
    pub fn for_each(self, mut each: impl FnMut(Frame<'a>)) -> Result<(), DecodeError> {
        let (count, mut rest) = plain::array(self.0).ok_or(DecodeError::NoBatch)?;
        for _ in 0..count {
            let frame = match plain::read(rest) {
                Some((frame, behind)) => {
                    rest = behind;
                    frame
                }
                None => {
                    let value = plain::value(rest).ok_or(DecodeError::CutOff)?;
                    rest = rest.get(value.len()..).unwrap_or_default();
                    read(value)?
                }
            };
            each(frame);
        }
        Ok(())
    }
}
