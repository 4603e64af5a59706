//! A hand-written codec for the most frequent frame: a delta with text and nothing else.
//!
//! It writes the same bytes as serde (a property test compares them) and leaves every other frame to serde. It
//! takes a fifth of serde's instructions per frame, on both ends; see `docs/performance.md`.
//!
//! MessagePack: <https://github.com/msgpack/msgpack/blob/master/spec.md>.

use std::borrow::Cow;

use crate::frame::{Body, Delta, Frame};

/// The delta of `frame`, if it has only text.
fn plain<'f>(frame: &'f Frame<'_>) -> Option<&'f Delta<'f>> {
    match &frame.body {
        Body::Delta(delta) if delta.extra.is_none() && delta.finish_reason.is_none() && delta.token_ids.is_empty() => {
            Some(delta)
        }
        _ => None,
    }
}

/// Appends the frame if it is a delta with only text. Otherwise returns false and appends nothing.
pub(crate) fn append(bytes: &mut Vec<u8>, frame: &Frame<'_>) -> bool {
    let Some(delta) = plain(frame) else { return false };
    let Ok(length) = u32::try_from(delta.text.len()) else {
        return false;
    };
    bytes.reserve(48 + delta.text.len());
    let optional = |value: u32| u8::from(value != 0);
    bytes.push(0x82 + optional(frame.attempt) + optional(frame.seq));
    key(bytes, b's');
    uint(bytes, frame.stream);
    if frame.attempt != 0 {
        key(bytes, b'a');
        uint(bytes, frame.attempt.into());
    }
    if frame.seq != 0 {
        key(bytes, b'q');
        uint(bytes, frame.seq.into());
    }
    key(bytes, b'b');
    bytes.push(0x81);
    key(bytes, b'd');
    bytes.push(0x80 + optional(delta.choice) + u8::from(length > 0) + optional(delta.tokens));
    if delta.choice != 0 {
        key(bytes, b'c');
        uint(bytes, delta.choice.into());
    }
    if length > 0 {
        key(bytes, b't');
        text(bytes, length, &delta.text);
    }
    if delta.tokens != 0 {
        key(bytes, b'n');
        uint(bytes, delta.tokens.into());
    }
    true
}

fn key(bytes: &mut Vec<u8>, name: u8) {
    bytes.extend_from_slice(&[0xa1, name]);
}

#[allow(clippy::cast_possible_truncation)] // each is of the size that its range has
fn uint(bytes: &mut Vec<u8>, value: u64) {
    match value {
        0..=0x7f => bytes.push(value as u8),
        0x80..=0xff => bytes.extend_from_slice(&[0xcc, value as u8]),
        0x100..=0xffff => {
            bytes.push(0xcd);
            bytes.extend_from_slice(&(value as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            bytes.push(0xce);
            bytes.extend_from_slice(&(value as u32).to_be_bytes());
        }
        _ => {
            bytes.push(0xcf);
            bytes.extend_from_slice(&value.to_be_bytes());
        }
    }
}

#[allow(clippy::cast_possible_truncation)] // each is of the size that its range has
fn text(bytes: &mut Vec<u8>, length: u32, text: &str) {
    match length {
        0..=31 => bytes.push(0xa0 | length as u8),
        32..=0xff => bytes.extend_from_slice(&[0xd9, length as u8]),
        0x100..=0xffff => {
            bytes.push(0xda);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            bytes.push(0xdb);
            bytes.extend_from_slice(&length.to_be_bytes());
        }
    }
    bytes.extend_from_slice(text.as_bytes());
}

/// Reads a delta with only text from the start of `bytes`, and returns the rest. `None` for any other frame, and
/// for bytes that are not a frame.
pub(crate) fn read(bytes: &[u8]) -> Option<(Frame<'_>, &[u8])> {
    let mut at = Cursor(bytes);
    let members = at.byte()?.wrapping_sub(0x80);
    if !(2..=4).contains(&members) {
        return None;
    }
    at.key(b's')?;
    let stream = at.uint()?;
    let (attempt, seq) = (at.number(b'a')?, at.number(b'q')?);
    at.key(b'b')?;
    if 2 + attempt.members + seq.members != members || at.byte()? != 0x81 {
        return None;
    }
    at.key(b'd')?;
    let members = at.byte()?.wrapping_sub(0x80);
    let choice = at.number(b'c')?;
    let mut delta = Delta {
        choice: choice.value,
        ..Delta::default()
    };
    let mut seen = choice.members;
    if at.begins(b't') {
        at.key(b't')?;
        delta.text = Cow::Borrowed(at.text()?);
        seen += 1;
    }
    let tokens = at.number(b'n')?;
    delta.tokens = tokens.value;
    if seen + tokens.members != members {
        return None;
    }
    let frame = Frame {
        stream,
        attempt: attempt.value,
        seq: seq.value,
        body: Body::Delta(delta),
    };
    Some((frame, at.0))
}

/// A number, or an absent member.
struct Number {
    value: u32,
    members: u8,
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn begins(&self, name: u8) -> bool {
        self.0.starts_with(&[0xa1, name])
    }

    fn key(&mut self, name: u8) -> Option<()> {
        (self.array::<2>()? == [0xa1, name]).then_some(())
    }

    fn number(&mut self, name: u8) -> Option<Number> {
        if !self.begins(name) {
            return Some(Number { value: 0, members: 0 });
        }
        self.key(name)?;
        let value = u32::try_from(self.uint()?).ok()?;
        Some(Number { value, members: 1 })
    }

    fn uint(&mut self) -> Option<u64> {
        Some(match self.byte()? {
            small @ 0..=0x7f => small.into(),
            0xcc => self.byte()?.into(),
            0xcd => u16::from_be_bytes(self.array()?).into(),
            0xce => u32::from_be_bytes(self.array()?).into(),
            0xcf => u64::from_be_bytes(self.array()?),
            _ => return None,
        })
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = match self.byte()? {
            fix @ 0xa0..=0xbf => usize::from(fix & 0x1f),
            0xd9 => usize::from(self.byte()?),
            0xda => usize::from(u16::from_be_bytes(self.array()?)),
            0xdb => usize::try_from(u32::from_be_bytes(self.array()?)).ok()?,
            _ => return None,
        };
        std::str::from_utf8(self.take(length)?).ok()
    }
}

/// The bytes of the first MessagePack value in `bytes`. `None` if it is cut off or not MessagePack. Does not
/// recurse, however deep the value is.
pub(crate) fn value(bytes: &[u8]) -> Option<&[u8]> {
    let mut at = Cursor(bytes);
    // Each value takes at least one byte, so a count that exceeds the data ends the loop.
    let mut open: u64 = 1;
    while open > 0 {
        let marker = at.byte()?;
        let (skipped, inside) = extent(marker, &mut at)?;
        at.take(skipped)?;
        open = open.saturating_sub(1).saturating_add(inside);
    }
    bytes.get(..bytes.len() - at.0.len())
}

/// Bytes that follow a marker, and the number of values inside it.
fn extent(marker: u8, at: &mut Cursor<'_>) -> Option<(usize, u64)> {
    Some(match marker {
        0x00..=0x7f | 0xc0 | 0xc2 | 0xc3 | 0xe0..=0xff => (0, 0),
        0x80..=0x8f => (0, 2 * u64::from(marker & 0x0f)),
        0x90..=0x9f => (0, u64::from(marker & 0x0f)),
        0xa0..=0xbf => (usize::from(marker & 0x1f), 0),
        0xcc | 0xd0 => (1, 0),
        0xcd | 0xd1 => (2, 0),
        0xca | 0xce | 0xd2 => (4, 0),
        0xcb | 0xcf | 0xd3 => (8, 0),
        // Fixed extensions: a type and 1 to 16 bytes.
        0xd4..=0xd8 => (1 + (1 << (marker - 0xd4)), 0),
        0xc4 | 0xd9 => (usize::from(at.byte()?), 0),
        0xc5 | 0xda => (usize::from(u16::from_be_bytes(at.array()?)), 0),
        0xc6 | 0xdb => (usize::try_from(u32::from_be_bytes(at.array()?)).ok()?, 0),
        0xc7 => (1 + usize::from(at.byte()?), 0),
        0xc8 => (1 + usize::from(u16::from_be_bytes(at.array()?)), 0),
        0xc9 => (
            usize::try_from(u32::from_be_bytes(at.array()?)).ok()?.checked_add(1)?,
            0,
        ),
        0xdc => (0, u16::from_be_bytes(at.array()?).into()),
        0xdd => (0, u32::from_be_bytes(at.array()?).into()),
        0xde => (0, 2 * u64::from(u16::from_be_bytes(at.array()?))),
        0xdf => (0, 2 * u64::from(u32::from_be_bytes(at.array()?))),
        0xc1 => return None,
    })
}

/// The number of elements of an array, and the bytes behind its header.
pub(crate) fn array(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let mut at = Cursor(bytes);
    let count = match at.byte()? {
        fix @ 0x90..=0x9f => u32::from(fix & 0x0f),
        0xdc => u16::from_be_bytes(at.array()?).into(),
        0xdd => u32::from_be_bytes(at.array()?),
        _ => return None,
    };
    Some((count, at.0))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec;

    fn frame(numbers: (u64, u32, u32, u32, u32), text: &str) -> Frame<'_> {
        let (stream, attempt, seq, choice, tokens) = numbers;
        let delta = Delta {
            choice,
            text: text.into(),
            tokens,
            ..Delta::default()
        };
        Frame {
            stream,
            attempt,
            seq,
            body: Body::Delta(delta),
        }
    }

    fn number() -> impl Strategy<Value = u32> {
        prop_oneof![Just(0), 0..300_u32, any::<u32>()]
    }

    proptest! {
        #[test]
        fn the_bytes_are_those_of_serde_and_come_back(
            stream in prop_oneof![0..300_u64, any::<u64>()],
            numbers in (number(), number(), number(), number()),
            text in prop_oneof!["\\PC{0,40}", "[a-z]{250,260}", "x{65530,65540}"],
        ) {
            let (attempt, seq, choice, tokens) = numbers;
            let frame = frame((stream, attempt, seq, choice, tokens), &text);
            let (mut ours, mut serdes) = (Vec::new(), Vec::new());
            prop_assert!(append(&mut ours, &frame));
            codec::append(&mut serdes, &frame).unwrap();
            prop_assert_eq!(&ours, &serdes);
            prop_assert_eq!(value(&ours).unwrap().len(), ours.len());
            ours.push(0xc0);
            let (back, rest) = read(&ours).unwrap();
            prop_assert_eq!((back, rest), (frame, &[0xc0][..]));
        }

        /// If both decoders accept the bytes, they read the same.
        #[test]
        fn damaged_bytes_are_never_read_otherwise_than_by_serde(
            at in any::<prop::sample::Index>(), byte in any::<u8>(), text in "[a-z]{0,3}",
        ) {
            let mut bytes = Vec::new();
            append(&mut bytes, &frame((7, 1, 300, 2, 1), &text));
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Some((frame, rest)) = read(&bytes) {
                let whole = value(&bytes).unwrap();
                prop_assert_eq!(whole.len() + rest.len(), bytes.len());
                let theirs: Frame<'_> = serde::Deserialize::deserialize(&mut codec::decoder(whole)).unwrap();
                prop_assert_eq!(frame, theirs);
            }
        }

        #[test]
        fn any_bytes_are_measured_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = value(&bytes);
            let _ = read(&bytes);
            let _ = array(&bytes);
        }
    }

    #[test]
    fn what_is_more_than_text_is_left_to_serde() {
        let mut ended = frame((1, 0, 0, 0, 0), "x");
        if let Body::Delta(delta) = &mut ended.body {
            delta.finish_reason = Some("stop".to_owned());
        }
        let mut bytes = Vec::new();
        assert!(!append(&mut bytes, &ended) && bytes.is_empty());
        codec::append(&mut bytes, &ended).unwrap();
        assert!(read(&bytes).is_none());
        assert_eq!(value(&bytes).unwrap().len(), bytes.len());
    }
}
