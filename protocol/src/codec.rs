//! Bytes to messages and back: a format byte, then MessagePack with struct fields by name.

use serde::{Deserialize, Serialize};

use crate::limits::{FORMAT, MAX_DEPTH, MAX_MESSAGE};

/// Why bytes from the bus are no message. Never fatal: the receiver counts it and goes on.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// No bytes at all.
    #[error("empty message")]
    Empty,
    /// The sender speaks another format.
    #[error("message format {0:#04x} is not supported, this peer speaks {FORMAT:#04x}")]
    Format(u8),
    /// Larger than anything this protocol sends, in bytes.
    #[error("message of {0} bytes is over the limit of {MAX_MESSAGE}")]
    TooLarge(usize),
    /// A batch that is no array.
    #[error("malformed message: a batch of frames is an array")]
    NoBatch,
    /// A batch that ends before its frames do, or has no MessagePack in it.
    #[error("malformed message: a frame is cut off or no MessagePack")]
    CutOff,
    /// Not the MessagePack of the expected type.
    #[error("malformed message: {0}")]
    Malformed(#[from] rmp_serde::decode::Error),
}

/// Why a message cannot be put into bytes. Only a value that serde cannot express does that.
#[derive(Debug, thiserror::Error)]
#[error("cannot encode message: {0}")]
pub struct EncodeError(#[from] rmp_serde::encode::Error);

/// Encodes one message, format byte first.
///
/// # Errors
/// [`EncodeError`] when serde cannot express the value as MessagePack.
pub fn encode<T: Serialize + ?Sized>(message: &T) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = Vec::with_capacity(256);
    bytes.push(FORMAT);
    append(&mut bytes, message)?;
    Ok(bytes)
}

/// Appends the MessagePack of `value` to `bytes`, without a format byte.
///
/// # Errors
/// As [`encode`]; `bytes` may then end with a part of the value.
pub(crate) fn append<T: Serialize + ?Sized>(bytes: &mut Vec<u8>, value: &T) -> Result<(), EncodeError> {
    value.serialize(&mut rmp_serde::Serializer::new(bytes).with_struct_map())?;
    Ok(())
}

/// Decodes one message. What it borrows, it borrows from `bytes`. Bytes behind the message are
/// ignored, so that a newer peer may append to it.
///
/// # Errors
/// [`DecodeError`]; whatever the bytes are, this does not panic and does not allocate more than a
/// small multiple of their length.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, DecodeError> {
    Ok(T::deserialize(&mut decoder(payload(bytes)?))?)
}

/// A decoder over MessagePack with our depth limit.
pub(crate) fn decoder(payload: &[u8]) -> SliceDecoder<'_> {
    let mut decoder = rmp_serde::Deserializer::from_read_ref(payload);
    decoder.set_max_depth(MAX_DEPTH);
    decoder
}

/// rmp-serde's decoder that borrows from a slice.
pub(crate) type SliceDecoder<'a> = rmp_serde::Deserializer<rmp_serde::decode::ReadRefReader<'a, [u8]>>;

/// Checks size and format byte; the rest is what the format byte announced.
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
