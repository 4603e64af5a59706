//! How the server's streams flow: their worst gap, and how long all of them have been silent. The jobs keep
//! it without locks, the monitor reads it.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::hang::Patience;
use crate::engine::openai::limits::SILENCE_MOST;
use crate::engine::openai::target::ServerKind;

/// The streams that have begun, all together.
#[derive(Debug)]
pub(crate) struct Pulse {
    /// The operator's longest silence.
    fixed: Option<Duration>,
    /// The operator's longest wait for a first token.
    first: Option<Duration>,
    epoch: Instant,
    /// Longest time between two chunks of one stream, milliseconds.
    worst_gap: AtomicU64,
    /// When the last chunk came, milliseconds after `epoch`.
    last_chunk: AtomicU64,
    /// Streams that have begun and are open: all, and those whose server holds nothing back.
    begun: AtomicUsize,
    telling: AtomicUsize,
    /// Streams that have not begun, and since when there are any, milliseconds after `epoch`.
    waiting: AtomicUsize,
    waiting_since: AtomicU64,
    suspected: AtomicBool,
    suspicion: Notify,
    hung: AtomicBool,
}

impl Pulse {
    /// `fixed` is the operator's longest silence, where the engine is not to be measured, and `first` the longest wait for
    /// a first token.
    pub(crate) fn new(fixed: Option<Duration>, first: Option<Duration>) -> Self {
        Self {
            fixed,
            first,
            epoch: Instant::now(),
            worst_gap: AtomicU64::new(0),
            last_chunk: AtomicU64::new(0),
            begun: AtomicUsize::new(0),
            telling: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            waiting_since: AtomicU64::new(0),
            suspected: AtomicBool::new(false),
            suspicion: Notify::new(),
            hung: AtomicBool::new(false),
        }
    }

    /// A stream that is asked for at `now`. `holds_back`: its server may keep a tool call until it is complete.
    pub(crate) fn stream(&self, holds_back: bool, now: Instant) -> Flow<'_> {
        if self.waiting.fetch_add(1, Ordering::Relaxed) == 0 {
            self.waiting_since.store(self.millis(now), Ordering::Relaxed);
        }
        Flow {
            pulse: self,
            holds_back,
            last: None,
        }
    }

    /// How much silence means what, for a server of this kind.
    pub(crate) fn patience(&self, kind: ServerKind) -> Patience {
        let worst = Duration::from_millis(self.worst_gap.load(Ordering::Relaxed));
        Patience::new(worst, kind, self.fixed)
    }

    /// How long no stream has brought anything at `now`.
    pub(crate) fn quiet(&self, now: Instant) -> Duration {
        let last = Duration::from_millis(self.last_chunk.load(Ordering::Relaxed));
        now.saturating_duration_since(self.epoch).saturating_sub(last)
    }

    /// Whether a stream has begun and is open.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed) > 0
    }

    /// Whether one of these is of a server that holds nothing back, so that its silence means something.
    pub(crate) fn tells(&self) -> bool {
        self.telling.load(Ordering::Relaxed) > 0 || (self.fixed.is_some() && self.has_begun())
    }

    /// Whether a stream waits for its first token longer than the operator allows, while the server brings nothing else.
    pub(crate) fn is_overdue(&self, now: Instant) -> bool {
        let waits = || {
            let since = Duration::from_millis(self.waiting_since.load(Ordering::Relaxed));
            now.saturating_duration_since(self.epoch).saturating_sub(since)
        };
        self.waiting.load(Ordering::Relaxed) > 0
            && self.first.is_some_and(|first| waits().min(self.quiet(now)) >= first)
    }

    /// Whether the streams that have begun are silent for too long, or others do not begin.
    pub(crate) fn is_suspect(&self, now: Instant) -> bool {
        let silent = self.has_begun() && self.quiet(now) >= self.patience(ServerKind::Unknown).suspect;
        silent || self.is_overdue(now)
    }

    /// Looks whether they are; the monitor is woken once.
    pub(crate) fn check(&self, now: Instant) {
        if self.is_suspect(now) && !self.suspected.swap(true, Ordering::Relaxed) {
            self.suspicion.notify_one();
        }
    }

    /// Waits for a suspicion.
    pub(crate) async fn suspicion(&self) {
        self.suspicion.notified().await;
    }

    /// The suspicion is over.
    pub(crate) fn trust(&self) {
        self.suspected.store(false, Ordering::Relaxed);
    }

    /// Whether the server generates nothing any more.
    pub(crate) fn is_hung(&self) -> bool {
        self.hung.load(Ordering::Relaxed)
    }

    pub(crate) fn set_hung(&self, hung: bool) {
        self.hung.store(hung, Ordering::Relaxed);
    }

    /// The server counted as hung, and has generated again after it was silent for `stall`. A short one was slow: that
    /// is no hang the next time.
    pub(crate) fn recovered(&self, stall: Duration) {
        if stall <= SILENCE_MOST {
            let stall = u64::try_from(stall.as_millis()).unwrap_or(u64::MAX);
            self.worst_gap.fetch_max(stall, Ordering::Relaxed);
        }
    }

    fn millis(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.epoch).as_millis();
        u64::try_from(since).unwrap_or(u64::MAX)
    }
}

/// One stream of the server. It begins with its first chunk, and is over when it is dropped.
#[derive(Debug)]
pub(crate) struct Flow<'p> {
    pulse: &'p Pulse,
    holds_back: bool,
    /// When its last chunk came.
    last: Option<u64>,
}

impl Flow<'_> {
    /// Whether its first chunk has come.
    pub(crate) fn has_begun(&self) -> bool {
        self.last.is_some()
    }

    /// Output has come.
    pub(crate) fn chunk(&mut self, now: Instant) {
        let (pulse, now) = (self.pulse, self.pulse.millis(now));
        match self.last {
            Some(last) => {
                let gap = now.saturating_sub(last);
                if gap > pulse.worst_gap.load(Ordering::Relaxed) {
                    pulse.worst_gap.fetch_max(gap, Ordering::Relaxed);
                }
            }
            None => {
                pulse.waiting.fetch_sub(1, Ordering::Relaxed);
                pulse.begun.fetch_add(1, Ordering::Relaxed);
                pulse
                    .telling
                    .fetch_add(usize::from(!self.holds_back), Ordering::Relaxed);
            }
        }
        pulse.last_chunk.store(now, Ordering::Relaxed);
        self.last = Some(now);
    }
}

impl Drop for Flow<'_> {
    fn drop(&mut self) {
        if self.last.is_some() {
            self.pulse.begun.fetch_sub(1, Ordering::Relaxed);
            self.pulse
                .telling
                .fetch_sub(usize::from(!self.holds_back), Ordering::Relaxed);
        } else {
            self.pulse.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::openai::limits::SILENCE_LEAST;

    #[test]
    fn only_streams_that_have_begun_are_suspect_by_their_silence() {
        let pulse = Pulse::new(None, None);
        let start = Instant::now();
        let later = start + Duration::from_secs(600);
        let mut flow = pulse.stream(false, start);
        assert!(!pulse.is_suspect(later), "a prefill may be long");
        flow.chunk(start);
        assert!(!pulse.is_suspect(start) && pulse.is_suspect(later));
        let mut other = pulse.stream(false, start);
        other.chunk(later);
        assert!(!pulse.is_suspect(later), "the server generates");
        drop((flow, other));
        assert!(!pulse.is_suspect(later + Duration::from_secs(600)));
    }

    #[test]
    fn a_first_token_is_overdue_only_by_the_operators_word_and_while_nothing_else_comes() {
        let pulse = Pulse::new(None, Some(Duration::from_secs(30)));
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(!pulse.is_overdue(at(600)), "nobody waits");
        let mut flow = pulse.stream(true, at(100));
        let other = pulse.stream(false, at(125));
        assert!(!pulse.is_overdue(at(129)));
        assert!(pulse.is_overdue(at(131)) && pulse.is_suspect(at(131)));
        flow.chunk(at(132));
        assert!(!pulse.is_overdue(at(161)), "the server works for others");
        assert!(pulse.is_overdue(at(163)));
        drop(other);
        assert!(!pulse.is_overdue(at(163)));
    }

    #[test]
    fn the_bound_follows_the_worst_gap_of_a_stream() {
        let pulse = Pulse::new(None, None);
        let start = Instant::now();
        let (mut slow, mut fast) = (pulse.stream(false, start), pulse.stream(true, start));
        let suspect = |pulse: &Pulse| pulse.patience(ServerKind::Vllm).suspect;
        slow.chunk(start);
        fast.chunk(start);
        assert_eq!(suspect(&pulse), SILENCE_LEAST);
        for second in 1..=5 {
            fast.chunk(start + Duration::from_secs(second));
        }
        assert_eq!(suspect(&pulse), SILENCE_LEAST);
        slow.chunk(start + Duration::from_secs(5));
        assert_eq!(suspect(&pulse), Duration::from_secs(20));
        slow.chunk(start + Duration::from_secs(500));
        assert_eq!(suspect(&pulse), SILENCE_MOST);
        drop(slow);
        assert!(pulse.has_begun() && !pulse.tells(), "the other may hold back a call");
    }

    #[test]
    fn a_server_that_was_slow_is_given_more_time_and_one_that_hung_is_not() {
        let pulse = Pulse::new(None, None);
        let suspect = |pulse: &Pulse| pulse.patience(ServerKind::Vllm).suspect;
        pulse.recovered(Duration::from_secs(600));
        assert_eq!(suspect(&pulse), SILENCE_LEAST);
        pulse.recovered(Duration::from_secs(14));
        assert_eq!(suspect(&pulse), Duration::from_secs(56));
    }

    #[tokio::test]
    async fn the_monitor_is_woken_once_for_each_suspicion() {
        let pulse = Pulse::new(Some(Duration::from_secs(1)), None);
        let start = Instant::now();
        let mut flow = pulse.stream(true, start);
        flow.chunk(start);
        assert!(pulse.tells(), "the operator's word holds for all");
        for _ in 0..2 {
            pulse.check(start + Duration::from_secs(2));
            pulse.suspicion().await;
            pulse.check(start + Duration::from_secs(3));
            assert!(futures_util::FutureExt::now_or_never(pulse.suspicion()).is_none());
            pulse.trust();
        }
    }
}
