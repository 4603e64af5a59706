//! Encoding and decoding of messages: a format byte, then MessagePack with struct fields by name.

use serde::Serialize;

use crate::limits::{FORMAT, MAX_DEPTH, MAX_MESSAGE};

/// Why bytes from the bus are not a message. Never fatal: the receiver counts it and continues.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The message is empty.
    #[error("empty message")]
    Empty,
    /// The sender uses another format.
    #[error("message format {0:#04x} is not supported, this peer speaks {FORMAT:#04x}")]
    Format(u8),
    /// The message has this many bytes, more than this protocol ever sends.
    #[error("message of {0} bytes is over the limit of {MAX_MESSAGE}")]
    TooLarge(usize),
    /// The batch is not an array.
    #[error("malformed message: a batch of frames is an array")]
    NoBatch,
    /// The batch ends in the middle of a frame, or a frame is not MessagePack.
    #[error("malformed message: a frame is cut off or no MessagePack")]
    CutOff,
    /// The bytes are not MessagePack of the expected type.
    #[error("malformed message: {0}")]
    Malformed(#[from] rmp_serde::decode::Error),
}

/// A message cannot be encoded, because serde cannot express its value.
#[derive(Debug, thiserror::Error)]
#[error("cannot encode message: {0}")]
pub struct EncodeError(#[from] rmp_serde::encode::Error);

/// Encodes one message, with the format byte.
///
/// # Errors
/// [`EncodeError`] when serde cannot express the value as MessagePack.
pub fn encode<T: Serialize + ?Sized>(message: &T) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = Vec::with_capacity(256);
    bytes.push(FORMAT);
    append(&mut bytes, message)?;
    Ok(bytes)
}

/// Appends `value` as MessagePack to `bytes`, without a format byte.
///
/// # Errors
/// As [`encode`]; `bytes` may then end with a part of the value.
pub(crate) fn append<T: Serialize + ?Sized>(bytes: &mut Vec<u8>, value: &T) -> Result<(), EncodeError> {
    value.serialize(&mut rmp_serde::Serializer::new(bytes).with_struct_map())?;
    Ok(())
}

/// Decodes one message, which may borrow from `bytes`. Bytes behind the message are ignored, so that a newer peer
/// may append to it.
///
/// # Errors
/// [`DecodeError`]. Whatever the bytes are, this neither panics nor allocates more than a small multiple of their
/// length.
pub fn decode<'a, T: Message<'a>>(bytes: &'a [u8]) -> Result<T, DecodeError> {
    T::read(payload(bytes)?)
}

/// A type of message. Its decoder is compiled in this crate, once, and not in each crate that reads it.
pub trait Message<'a>: Sized {
    /// Reads the message behind its format byte.
    ///
    /// # Errors
    /// As [`decode`].
    fn read(payload: &'a [u8]) -> Result<Self, DecodeError>;
}

/// A decoder of MessagePack with our depth limit.
pub(crate) fn decoder(payload: &[u8]) -> SliceDecoder<'_> {
    let mut decoder = rmp_serde::Deserializer::from_read_ref(payload);
    decoder.set_max_depth(MAX_DEPTH);
    decoder
}

/// rmp-serde's decoder that borrows from a slice.
pub(crate) type SliceDecoder<'a> = rmp_serde::Deserializer<rmp_serde::decode::ReadRefReader<'a, [u8]>>;

/// Checks the size and the format byte, and returns the bytes behind it.
pub(crate) fn payload(bytes: &[u8]) -> Result<&[u8], DecodeError> {
    if bytes.len() > MAX_MESSAGE {
        return Err(DecodeError::TooLarge(bytes.len()));
    }
    match bytes.split_first() {
        None => Err(DecodeError::Empty),
        Some((&FORMAT, rest)) => Ok(rest),
        Some((&other, _)) => Err(DecodeError::Format(other)),
    }
}
