//! The bytes of all request bodies that are in memory, and their bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::http::error::HttpError;
use crate::metrics::Metrics;

/// The bytes of all bodies; clones share their count.
#[derive(Debug, Clone)]
pub struct Bodies(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    held: AtomicUsize,
    most: usize,
    metrics: Metrics,
}

/// The part of one request. Clones are of the same part, which is free again when the last is gone.
#[derive(Debug, Clone)]
pub(crate) struct Held(Arc<Part>);

#[derive(Debug)]
struct Part {
    bytes: AtomicUsize,
    bodies: Bodies,
}

impl Bodies {
    /// At most `most` bytes.
    pub fn new(most: usize, metrics: Metrics) -> Self {
        let held = AtomicUsize::new(0);
        Self(Arc::new(Shared { held, most, metrics }))
    }

    /// The part of a new request, empty at first.
    pub(crate) fn begin(&self) -> Held {
        let bytes = AtomicUsize::new(0);
        let bodies = self.clone();
        Held(Arc::new(Part { bytes, bodies }))
    }

    fn show(&self) {
        let held = i64::try_from(self.0.held.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
        self.0.metrics.connections().bodies.set(held);
    }
}

impl Held {
    /// The request holds `bytes` more.
    ///
    /// # Errors
    /// [`HttpError::BodiesFull`] if all requests together would hold too much.
    pub(crate) fn grow(&self, bytes: usize) -> Result<(), HttpError> {
        let shared = &self.0.bodies.0;
        let more = |held: usize| held.checked_add(bytes).filter(|held| *held <= shared.most);
        if shared
            .held
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .is_err()
        {
            shared.metrics.connections().bodies_refused.inc();
            return Err(HttpError::BodiesFull);
        }
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.0.bodies.show();
        Ok(())
    }

    /// The request holds `bytes` less.
    pub(crate) fn shrink(&self, bytes: usize) {
        self.0.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.0.bodies.0.held.fetch_sub(bytes, Ordering::Relaxed);
        self.0.bodies.show();
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let bytes = *self.bytes.get_mut();
        self.bodies.0.held.fetch_sub(bytes, Ordering::Relaxed);
        self.bodies.show();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn all_requests_share_the_bound_and_give_back_what_they_held() {
        let bodies = Bodies::new(10, Metrics::default());
        let (one, two) = (bodies.begin(), bodies.begin());
        one.grow(6).unwrap();
        assert_eq!(two.grow(5), Err(HttpError::BodiesFull));
        two.grow(4).unwrap();
        one.shrink(1);
        two.grow(1).unwrap();
        let clone = two.clone();
        drop(two);
        assert!(one.grow(1).is_err(), "a part of it is still read");
        drop(clone);
        one.grow(5).unwrap();
        drop(one);
        bodies.begin().grow(10).unwrap();
    }
}
