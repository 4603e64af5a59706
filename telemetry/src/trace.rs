//! The ids of one request in one process: where its trace comes from, and what the next process is told.

use std::fmt::Write as _;
use std::sync::Arc;

use tokenbus_protocol::TraceContext;

use crate::limits::PARENT;

/// The flag of `traceparent` that says that the caller records the trace.
const SAMPLED: u8 = 1;

/// The trace of one request in this process; clones share it. Empty where there is none.
#[derive(Debug, Clone, Default)]
pub struct Trace(Option<Arc<Way>>);

#[derive(Debug)]
enum Way {
    /// This process makes no spans and hands on what it got.
    HandedOn(TraceContext),
    /// This process has spans of its own in the trace.
    Own(Ids),
}

/// The ids of this process's spans of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ids {
    pub(crate) trace: u128,
    /// The span of the request as a whole.
    pub(crate) span: u64,
    /// The caller's span.
    pub(crate) parent: Option<u64>,
    pub(crate) flags: u8,
    /// `tracestate`.
    pub(crate) state: Option<String>,
}

/// What a `traceparent` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parent {
    pub(crate) trace: u128,
    pub(crate) span: u64,
    pub(crate) flags: u8,
}

impl Trace {
    pub(crate) fn handed_on(incoming: Option<TraceContext>) -> Self {
        Self(incoming.map(|context| Arc::new(Way::HandedOn(context))))
    }

    pub(crate) fn own(ids: Ids) -> Self {
        Self(Some(Arc::new(Way::Own(ids))))
    }

    /// The ids of this process's spans, if it makes any.
    pub fn ids(&self) -> Option<&Ids> {
        match self.0.as_deref()? {
            Way::Own(ids) => Some(ids),
            Way::HandedOn(_) => None,
        }
    }

    /// What the receiver of this process's call `number` is told.
    pub fn for_call(&self, number: u32) -> Option<TraceContext> {
        match self.0.as_deref()? {
            Way::Own(ids) => Some(ids.for_call(number)),
            Way::HandedOn(context) => Some(context.clone()),
        }
    }
}

impl Ids {
    /// The span of the request as a whole.
    pub fn span(&self) -> u64 {
        self.span
    }

    /// The caller's span, in another process.
    pub fn parent(&self) -> Option<u64> {
        self.parent
    }

    /// Whether the trace is recorded whatever becomes of the request.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The span of this process's call `number`. It follows from the request's span, so nobody must remember it: the
    /// numbers of one span's calls give different ids, because the mix is one to one.
    pub fn call(&self, number: u32) -> u64 {
        let id = mixed(self.span.wrapping_add(u64::from(number) + 1));
        if id == 0 { mixed(self.span) } else { id }
    }

    fn for_call(&self, number: u32) -> TraceContext {
        let mut parent = String::with_capacity(55);
        // Writing to a string cannot fail.
        let _ = write!(
            parent,
            "00-{:032x}-{:016x}-{:02x}",
            self.trace,
            self.call(number),
            self.flags
        );
        TraceContext {
            parent,
            state: self.state.clone(),
        }
    }

    /// Ids for a request that came with `incoming`; `sampled` decides whether its trace is recorded.
    pub(crate) fn begin(incoming: Option<TraceContext>, sampled: impl FnOnce(u128, Option<Parent>) -> bool) -> Self {
        let known = incoming.and_then(|context| Some((Parent::read(&context.parent)?, context.state)));
        let parent = known.as_ref().map(|(parent, _)| *parent);
        let trace = parent.map_or_else(|| drawn(|| fastrand::u128(..)), |parent| parent.trace);
        // Of the other flags, those that the caller set stay true of the trace.
        let others = parent.map_or(0, |parent| parent.flags & !SAMPLED);
        Self {
            trace,
            span: drawn(|| fastrand::u64(..)),
            parent: parent.map(|parent| parent.span),
            flags: others | u8::from(sampled(trace, parent)),
            state: known.and_then(|(_, state)| state),
        }
    }
}

impl Parent {
    /// Reads `version-trace-parent-flags`, in lower-case hex; later versions may append more.
    fn read(text: &str) -> Option<Self> {
        let hex = |part: Option<&str>, length: usize| {
            let of_hex = |part: &&str| part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            let part = part.filter(|part| part.len() == length).filter(of_hex)?;
            u128::from_str_radix(part, 16).ok()
        };
        let mut parts = text.split('-');
        let (version, trace, span, flags) = (parts.next(), parts.next(), parts.next(), parts.next());
        let version = hex(version, 2)?;
        let more = parts.next().is_some();
        if version == 0xff || (version == 0 && more) || text.len() > PARENT {
            return None;
        }
        let flags = u8::try_from(hex(flags, 2)?).ok()?;
        Some(Self {
            trace: hex(trace, 32).filter(|id| *id != 0)?,
            span: u64::try_from(hex(span, 16)?).ok().filter(|id| *id != 0)?,
            // Only version 0 says what its flags mean.
            flags: if version == 0 { flags } else { flags & SAMPLED },
        })
    }
}

/// Whether `text` is a `traceparent`. W3C demands that another one is ignored.
pub fn is_traceparent(text: &str) -> bool {
    Parent::read(text).is_some()
}

/// A number that is not 0, which is no id.
fn drawn<N: Default + PartialEq>(draw: impl Fn() -> N) -> N {
    loop {
        let number = draw();
        if number != N::default() {
            return number;
        }
    }
}

/// Spreads the bits of a number, one to one (the finaliser of SplitMix64).
fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn context(parent: &str) -> TraceContext {
        TraceContext {
            parent: parent.to_owned(),
            state: Some("v=1".to_owned()),
        }
    }

    #[test]
    fn a_call_continues_the_trace_with_a_span_of_its_own() {
        let ids = Ids::begin(Some(context(PARENT)), |_, parent| parent.unwrap().flags == SAMPLED);
        assert_eq!(ids.parent, Some(0x00f0_67aa_0ba9_02b7));
        let trace = Trace::own(ids.clone());
        let told = trace.for_call(0).unwrap();
        assert_eq!(
            told.parent,
            format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{:016x}-01", ids.call(0))
        );
        assert_eq!(told.state.as_deref(), Some("v=1"));
        let spans: HashSet<u64> = (0..1000).map(|number| ids.call(number)).chain([ids.span]).collect();
        assert_eq!(spans.len(), 1001, "each call has its own span");
    }

    #[test]
    fn the_sampler_decides_and_the_next_process_is_told() {
        let off = Ids::begin(Some(context(PARENT)), |_, _| false);
        assert!(!off.is_sampled() && Trace::own(off).for_call(3).unwrap().parent.ends_with("-00"));
        let random = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-02";
        let on = Ids::begin(Some(context(random)), |_, _| true);
        assert!(Trace::own(on).for_call(3).unwrap().parent.ends_with("-03"));
        let new = Ids::begin(None, |trace, parent| trace != 0 && parent.is_none());
        assert!(new.is_sampled() && new.parent.is_none() && new.state.is_none());
        let broken = Ids::begin(Some(context("nonsense")), |_, parent| parent.is_none());
        assert!(
            broken.is_sampled() && broken.state.is_none(),
            "a state without a parent means nothing"
        );
    }

    #[test]
    fn a_process_without_spans_hands_on_what_it_got() {
        assert_eq!(Trace::handed_on(None).for_call(0), None);
        let trace = Trace::handed_on(Some(context(PARENT)));
        assert_eq!(trace.for_call(7), Some(context(PARENT)));
        assert_eq!(trace.ids(), None);
    }

    #[test]
    fn only_what_w3c_allows_is_a_traceparent() {
        assert!(is_traceparent(PARENT));
        assert!(is_traceparent(
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-new"
        ));
        for bad in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert!(!is_traceparent(bad), "{bad}");
        }
    }
}
