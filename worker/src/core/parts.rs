//! Puts a request body together from its parts.

use bytes::{Bytes, BytesMut};
use tokenbus_protocol::{MAX_BODY, MAX_PARTS, Parts};

/// Why parts make no body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PartsError {
    /// Fewer than two or more than [`MAX_PARTS`].
    #[error("a body comes in 2 to {MAX_PARTS} parts, not {0}")]
    Count(u32),
    /// More than [`MAX_BODY`].
    #[error("a body of {0} bytes is over the limit of {MAX_BODY}")]
    TooLarge(u64),
    /// An index outside the announced count.
    #[error("part {0} was not announced")]
    Index(u32),
    /// The parts have more or fewer bytes than was announced.
    #[error("the parts have {have} bytes, {announced} were announced")]
    Bytes {
        /// Bytes that came.
        have: u64,
        /// Bytes that were announced.
        announced: u64,
    },
}

/// The parts of one body that have come.
#[derive(Debug)]
pub(crate) struct Collector {
    parts: Vec<Option<Bytes>>,
    missing: u32,
    have: u64,
    announced: u64,
}

impl Collector {
    /// Begins with part 0.
    ///
    /// # Errors
    /// [`PartsError`] when what is announced is outside the limits.
    pub(crate) fn new(first: Bytes, parts: Parts) -> Result<Self, PartsError> {
        if !(2..=MAX_PARTS).contains(&parts.count) {
            return Err(PartsError::Count(parts.count));
        }
        if parts.bytes > MAX_BODY {
            return Err(PartsError::TooLarge(parts.bytes));
        }
        let mut collector = Self {
            parts: vec![None; parts.count as usize],
            missing: parts.count,
            have: 0,
            announced: parts.bytes,
        };
        collector.add(0, first)?;
        Ok(collector)
    }

    /// Adds a part; the whole body when it was the last one missing. A part that came before is
    /// passed over.
    ///
    /// # Errors
    /// [`PartsError`]; the body is then lost.
    pub(crate) fn add(&mut self, index: u32, data: Bytes) -> Result<Option<Bytes>, PartsError> {
        let place = self.parts.get_mut(index as usize).ok_or(PartsError::Index(index))?;
        if place.is_some() {
            return Ok(None);
        }
        self.have += data.len() as u64;
        *place = Some(data);
        self.missing -= 1;
        let wrong = if self.missing == 0 {
            self.have != self.announced
        } else {
            self.have > self.announced
        };
        if wrong {
            return Err(PartsError::Bytes {
                have: self.have,
                announced: self.announced,
            });
        }
        if self.missing > 0 {
            return Ok(None);
        }
        let mut body = BytesMut::with_capacity(usize::try_from(self.have).unwrap_or(0));
        for part in self.parts.drain(..).flatten() {
            body.extend_from_slice(&part);
        }
        Ok(Some(body.freeze()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn collector(first: &'static [u8], count: u32, bytes: u64) -> Result<Collector, PartsError> {
        Collector::new(Bytes::from_static(first), Parts { count, bytes })
    }

    #[test]
    fn parts_may_come_in_any_order_and_twice() {
        let mut c = collector(b"ab", 3, 6).unwrap();
        assert_eq!(c.add(2, Bytes::from_static(b"ef")), Ok(None));
        assert_eq!(c.add(2, Bytes::from_static(b"ef")), Ok(None));
        assert_eq!(c.add(0, Bytes::from_static(b"zz")), Ok(None), "part 0 is here already");
        assert_eq!(
            c.add(1, Bytes::from_static(b"cd")),
            Ok(Some(Bytes::from_static(b"abcdef")))
        );
    }

    #[test]
    fn what_is_outside_the_limits_is_refused_before_anything_is_kept() {
        assert_eq!(collector(b"a", 1, 1).unwrap_err(), PartsError::Count(1));
        assert_eq!(collector(b"a", 0, 1).unwrap_err(), PartsError::Count(0));
        assert_eq!(
            collector(b"a", MAX_PARTS + 1, 1).unwrap_err(),
            PartsError::Count(MAX_PARTS + 1)
        );
        assert_eq!(
            collector(b"a", 2, MAX_BODY + 1).unwrap_err(),
            PartsError::TooLarge(MAX_BODY + 1)
        );
    }

    #[test]
    fn the_bytes_must_be_those_announced() {
        assert!(matches!(collector(b"abc", 2, 2), Err(PartsError::Bytes { .. })));
        let mut c = collector(b"ab", 2, 5).unwrap();
        assert_eq!(
            c.add(1, Bytes::from_static(b"cd")),
            Err(PartsError::Bytes { have: 4, announced: 5 })
        );
        let mut c = collector(b"ab", 3, 5).unwrap();
        assert!(matches!(
            c.add(1, Bytes::from_static(b"cdef")),
            Err(PartsError::Bytes { .. })
        ));
        let mut c = collector(b"ab", 2, 5).unwrap();
        assert_eq!(c.add(2, Bytes::new()), Err(PartsError::Index(2)));
    }

    proptest! {
        #[test]
        fn any_cut_in_any_order_gives_the_body(body in prop::collection::vec(any::<u8>(), 0..300), size in 1..50_usize, seed: u64) {
            let mut chunks: Vec<Bytes> = body.chunks(size).map(Bytes::copy_from_slice).collect();
            chunks.resize(chunks.len().max(2), Bytes::new());
            let parts = Parts { count: u32::try_from(chunks.len()).unwrap(), bytes: body.len() as u64 };
            let mut c = Collector::new(chunks[0].clone(), parts).unwrap();
            let mut order: Vec<usize> = (1..chunks.len()).collect();
            fastrand::Rng::with_seed(seed).shuffle(&mut order);
            let mut whole = None;
            for index in order {
                prop_assert!(whole.is_none());
                whole = c.add(u32::try_from(index).unwrap(), chunks[index].clone()).unwrap();
            }
            prop_assert_eq!(whole.as_deref(), Some(&body[..]));
        }
    }
}
