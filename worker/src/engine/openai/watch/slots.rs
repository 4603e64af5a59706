//! How many requests a vLLM runs at once, where it does not tell: from its cache, then from its work. Pure.

use super::hang::Work;
use crate::engine::openai::limits::DEFAULT_SLOTS_VLLM;

/// What a metrics page says of running and waiting requests.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Load {
    /// Part of the KV cache in use, 0 to 1.
    pub(crate) kv_used: Option<f64>,
    pub(crate) running: u32,
    /// Requests that wait because the engine is full.
    pub(crate) waiting: u32,
    /// What is done, where the page counts tokens.
    pub(crate) work: Option<Work>,
}

/// Slots by the KV cache: requests of a quarter of the context, of which few are longer.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub(crate) fn of_cache(max_concurrency: f64) -> Option<u32> {
    let fit = (max_concurrency * 4.0).floor();
    (fit >= 1.0).then(|| (fit as u32).min(DEFAULT_SLOTS_VLLM))
}

/// The limit that an engine shows at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct AtWork(Option<u32>);

impl AtWork {
    /// Takes a look at the load; `slots` are those without it.
    pub(crate) fn look(&mut self, load: &Load, slots: u32) {
        if load.waiting > 0 && load.running > 0 {
            let most = self.0.unwrap_or(0).max(load.running);
            self.0 = (most < slots).then_some(most);
        } else if let Some(most) = self.0.filter(|most| load.running >= *most) {
            // All slots run and nothing waits: it may take more than it once did, as when the requests are shorter.
            let more = most + (most / 4).max(1);
            self.0 = (more < slots).then_some(more);
        }
    }

    /// The slots that it shows, where those are fewer.
    pub(crate) fn slots(self) -> Option<u32> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(running: u32, waiting: u32) -> Load {
        Load {
            kv_used: None,
            running,
            waiting,
            work: None,
        }
    }

    #[test]
    fn an_engine_shows_its_slots_when_it_is_full() {
        let mut seen = AtWork::default();
        seen.look(&load(20, 0), 256);
        assert_eq!(seen.slots(), None);
        seen.look(&load(8, 3), 256);
        assert_eq!(seen.slots(), Some(8));
        seen.look(&load(7, 1), 256);
        assert_eq!(seen.slots(), Some(8), "the most counts");
        seen.look(&load(5, 0), 256);
        assert_eq!(seen.slots(), Some(8));
    }

    #[test]
    fn it_may_take_more_when_all_slots_run_and_none_waits() {
        let mut seen = AtWork::default();
        seen.look(&load(8, 1), 12);
        for more in [Some(10), None] {
            seen.look(&load(seen.slots().unwrap_or(12), 0), 12);
            assert_eq!(seen.slots(), more);
        }
    }

    #[test]
    fn a_cache_holds_more_short_requests_than_long_ones() {
        assert_eq!(of_cache(2.5), Some(10));
        assert_eq!(of_cache(1000.0), Some(256));
        assert_eq!((of_cache(0.1), of_cache(f64::NAN)), (None, None));
    }
}
