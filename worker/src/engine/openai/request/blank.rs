//! White space at the end of the client's text. Many chat templates trim each message, so it is not
//! handed over; an engine then says it again, or does not. What comes is compared. Pure.

use std::borrow::Cow;

use tokenbus_protocol::Delta;

use super::seam::Seam;

/// The white space that the client has and the engine was not given.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Blank {
    /// What of it has not come again.
    rest: String,
    /// Tokens that came again.
    repeated: u64,
    /// What the output passes first.
    inner: Seam,
}

impl Blank {
    pub(super) fn new(blank: &str, inner: Seam) -> Self {
        Self {
            rest: blank.to_owned(),
            repeated: 0,
            inner,
        }
    }

    pub(super) fn repeated(&self) -> u64 {
        self.repeated
    }

    /// The seam for the next output. This one stays, for its count, unless the answer is to end.
    pub(super) fn next(self: Box<Self>) -> Seam {
        match self.inner {
            inner @ (Seam::Stopped(_) | Seam::Differs { .. }) => inner,
            _ => Seam::Blank(self),
        }
    }

    pub(super) fn take(&mut self, delta: Delta<'_>) -> Vec<Delta<'static>> {
        let mut out = self.inner.take(delta);
        out.retain_mut(|delta| self.is_new(delta));
        out
    }

    /// Takes off what the client has; whether something is left.
    fn is_new(&mut self, delta: &mut Delta<'static>) -> bool {
        if self.rest.is_empty() || delta.text.is_empty() {
            return true;
        }
        let same = equal_beginning(&self.rest, &delta.text);
        if same > 0 {
            self.repeated += u64::from(delta.tokens);
        }
        if same < delta.text.len() {
            // Other output has begun.
            self.rest.clear();
        } else {
            self.rest.drain(..same);
        }
        delta.text = Cow::Owned(delta.text.get(same..).unwrap_or_default().to_owned());
        !delta.text.is_empty() || delta.finish_reason.is_some()
    }
}

/// Bytes at the beginning of both texts that are equal, in whole characters.
fn equal_beginning(one: &str, other: &str) -> usize {
    let pairs = one.chars().zip(other.chars());
    pairs.take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum()
}
