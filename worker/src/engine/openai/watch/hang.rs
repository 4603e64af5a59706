//! Whether a server that says that it is healthy generates nothing any more. Pure.

use std::time::{Duration, Instant};

use crate::engine::openai::limits::{
    HANG_CONFIRM, SILENCE_ALONE_LEAST, SILENCE_ALONE_SLOW, SILENCE_FACTOR, SILENCE_LEAST, SILENCE_MOST, STILL_MOST,
};
use crate::engine::openai::target::ServerKind;

/// What a metrics page says of the work: as long as it is the same, nothing is done.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Work {
    /// Requests that run.
    pub(crate) running: u32,
    /// Tokens generated since the server's start.
    pub(crate) generated: f64,
    /// Tokens of prompts that were read since then.
    pub(crate) prompts: f64,
    /// Part of the KV cache in use: a prefill fills it piece by piece.
    pub(crate) kv_used: Option<f64>,
}

/// How much silence of the streams that have begun means what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Patience {
    /// The server is suspect: its metrics page is read.
    pub(crate) suspect: Duration,
    /// The silence alone says that it hangs.
    pub(crate) alone: Duration,
    /// Both are the operator's word: it holds whatever a page says.
    pub(crate) fixed: bool,
}

impl Patience {
    /// By the `worst` gap seen in a stream, or by the operator's word.
    pub(crate) fn new(worst: Duration, kind: ServerKind, fixed: Option<Duration>) -> Self {
        if let Some(fixed) = fixed {
            return Self {
                suspect: fixed,
                alone: fixed,
                fixed: true,
            };
        }
        let suspect = worst.saturating_mul(SILENCE_FACTOR).clamp(SILENCE_LEAST, SILENCE_MOST);
        let alone = match kind {
            ServerKind::LlamaServer | ServerKind::Ollama | ServerKind::Unknown => SILENCE_ALONE_SLOW,
            ServerKind::Vllm | ServerKind::Sglang => (suspect * 3).max(SILENCE_ALONE_LEAST),
        };
        Self {
            suspect,
            alone,
            fixed: false,
        }
    }
}

/// What is known at one time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    pub(crate) patience: Patience,
    /// Time since output last came.
    pub(crate) quiet: Duration,
    /// Whether streams that have begun are open.
    pub(crate) begun: bool,
    /// Whether one of them is of a server that holds nothing back.
    pub(crate) tells: bool,
    /// Whether a stream that has not begun waits longer than the operator allows.
    pub(crate) overdue: bool,
    /// The work, where the page was read and tells it.
    pub(crate) work: Option<Work>,
    /// Whether the server has generated something for the monitor just now.
    pub(crate) generates: bool,
}

/// Decides whether it hangs.
#[derive(Debug, Default)]
pub(crate) struct Hang {
    /// Since when, and the tokens that it had generated then.
    hung: Option<(Instant, Option<f64>)>,
    /// What the page said last, and since when.
    still: Option<(Work, Instant)>,
    /// First of the looks in a row that found the silence too long.
    silent_since: Option<Instant>,
}

impl Hang {
    pub(crate) fn is_hung(&self) -> bool {
        self.hung.is_some()
    }

    /// Takes a look at `now`.
    pub(crate) fn look(&mut self, look: &Look, now: Instant) {
        if let Some(work) = look.work
            && self.still.is_none_or(|(before, _)| before != work)
        {
            self.still = Some((work, now));
        }
        match self.hung {
            Some((since, generated)) => {
                let output = look.quiet < now.saturating_duration_since(since);
                let counted = generated.zip(look.work).is_some_and(|(had, work)| work.generated > had);
                if output || counted || look.generates {
                    *self = Self::default();
                }
            }
            None => {
                if self.stands_still(look, now) || self.is_silent(look, now) {
                    self.hung = Some((now, self.still.map(|(work, _)| work.generated)));
                }
            }
        }
    }

    /// The page says that requests run, and that nothing is done.
    fn stands_still(&self, look: &Look, now: Instant) -> bool {
        let Some((work, since)) = self.still else {
            return false;
        };
        let long = now.saturating_duration_since(since);
        let suspect = look.begun && look.quiet >= look.patience.suspect;
        // A server of embeddings generates nothing, ever.
        let works = look.work.is_some() && work.running > 0 && work.generated > 0.0;
        works && (long >= STILL_MOST.max(look.patience.suspect) || (suspect && long >= HANG_CONFIRM))
    }

    /// The silence alone says it. More than one look has found it, as this worker itself may have stood still.
    fn is_silent(&mut self, look: &Look, now: Instant) -> bool {
        let nothing_better = look.work.is_none() || look.patience.fixed;
        let silent = look.overdue || (look.tells && nothing_better && look.quiet >= look.patience.alone);
        self.silent_since = silent.then(|| self.silent_since.unwrap_or(now));
        self.silent_since
            .is_some_and(|since| now.saturating_duration_since(since) >= HANG_CONFIRM)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORK: Work = Work {
        running: 2,
        generated: 100.0,
        prompts: 900.0,
        kv_used: Some(0.5),
    };

    fn look(kind: ServerKind, quiet: u64, work: Option<Work>) -> Look {
        Look {
            patience: Patience::new(Duration::from_millis(50), kind, None),
            quiet: Duration::from_secs(quiet),
            begun: true,
            tells: true,
            overdue: false,
            work,
            generates: false,
        }
    }

    /// Looks once a second, each with one second more of silence; the second in which it hangs.
    fn hangs_at(seconds: u64, at: impl Fn(u64) -> Look) -> Option<u64> {
        let (start, mut hang) = (Instant::now(), Hang::default());
        (0..seconds).find(|second| {
            hang.look(&at(*second), start + Duration::from_secs(*second));
            hang.is_hung()
        })
    }

    #[test]
    fn a_counter_that_stands_still_confirms_a_silence() {
        let vllm = |quiet, work| look(ServerKind::Vllm, quiet, Some(work));
        assert_eq!(hangs_at(100, |second| vllm(second, WORK)), Some(10));
        // The page is read only now.
        assert_eq!(hangs_at(100, |second| vllm(30 + second, WORK)), Some(3));
        let moves = |second: u64| Work {
            generated: 100.0 + f64::from(u32::try_from(second).unwrap_or(0)),
            ..WORK
        };
        assert_eq!(hangs_at(1000, |second| vllm(second, moves(second))), None);
        let idle = Work { running: 0, ..WORK };
        assert_eq!(hangs_at(1000, |second| vllm(second, idle)), None);
        assert_eq!(hangs_at(100, |_| vllm(1, WORK)), None, "output comes");
    }

    #[test]
    fn a_long_prefill_is_no_hang() {
        let waits = |second, work| Look {
            begun: false,
            tells: false,
            ..look(ServerKind::Vllm, 60 + second, work)
        };
        assert_eq!(hangs_at(1000, |second| waits(second, None)), None);
        assert_eq!(hangs_at(60, |second| waits(second, Some(WORK))), None);
        assert_eq!(
            hangs_at(1000, |second| waits(second, Some(WORK))),
            Some(STILL_MOST.as_secs())
        );
        let embeds = Work { generated: 0.0, ..WORK };
        assert_eq!(hangs_at(1000, |second| waits(second, Some(embeds))), None);
        let fills = |second: u64| Work {
            kv_used: Some(f64::from(u32::try_from(second / 60).unwrap_or(0))),
            ..WORK
        };
        assert_eq!(hangs_at(1000, |second| waits(second, Some(fills(second)))), None);
    }

    #[test]
    fn a_first_token_that_is_overdue_confirms_itself() {
        let overdue = |second| Look {
            begun: false,
            tells: false,
            overdue: second >= 5,
            ..look(ServerKind::LlamaServer, second, None)
        };
        assert_eq!(hangs_at(100, overdue), Some(5 + HANG_CONFIRM.as_secs()));
    }

    #[test]
    fn without_a_counter_a_longer_silence_confirms_itself() {
        let confirm = HANG_CONFIRM.as_secs();
        for (kind, alone) in [
            (ServerKind::Sglang, SILENCE_ALONE_LEAST),
            (ServerKind::Vllm, SILENCE_ALONE_LEAST),
            (ServerKind::Unknown, SILENCE_ALONE_SLOW),
        ] {
            let silent = |second| look(kind, second, None);
            assert_eq!(hangs_at(1000, silent), Some(alone.as_secs() + confirm), "{kind:?}");
            let holds_back = |second| Look {
                tells: false,
                ..silent(second)
            };
            assert_eq!(hangs_at(1000, holds_back), None);
        }
        // This worker itself stood still: then the output that waited comes.
        let resumed = |second| look(ServerKind::Sglang, if second == 0 { 500 } else { 1 }, None);
        assert_eq!(hangs_at(10, resumed), None);
    }

    #[test]
    fn the_operators_word_holds_whatever_the_page_says() {
        let fixed = |second| Look {
            patience: Patience::new(Duration::ZERO, ServerKind::Vllm, Some(Duration::from_secs(2))),
            ..look(ServerKind::Vllm, second, Some(Work { running: 0, ..WORK }))
        };
        assert_eq!(hangs_at(100, fixed), Some(2 + HANG_CONFIRM.as_secs()));
        let patient = |second| Look {
            patience: Patience::new(Duration::ZERO, ServerKind::Vllm, Some(Duration::from_secs(500))),
            ..look(ServerKind::Vllm, second, Some(WORK))
        };
        assert_eq!(hangs_at(1000, patient), Some(500));
    }

    #[test]
    fn a_hung_server_is_well_again_when_it_generates() {
        let start = Instant::now();
        let hung = || {
            let mut hang = Hang::default();
            for second in [0, 20] {
                hang.look(
                    &look(ServerKind::Vllm, 20 + second, Some(WORK)),
                    start + Duration::from_secs(second),
                );
            }
            assert!(hang.is_hung());
            hang
        };
        let later = start + Duration::from_secs(30);
        // Its streams have moved, and no page of it comes: that is no sign of life.
        let nothing = Look {
            begun: false,
            ..look(ServerKind::Vllm, 50, None)
        };
        let gone = Some(Work { running: 0, ..WORK });
        let counted = Some(Work {
            generated: 101.0,
            ..WORK
        });
        for (sign, life) in [
            (nothing, false),
            (Look { work: gone, ..nothing }, false),
            (
                Look {
                    work: counted,
                    ..nothing
                },
                true,
            ),
            (
                Look {
                    generates: true,
                    ..nothing
                },
                true,
            ),
            (
                Look {
                    quiet: Duration::from_secs(1),
                    ..nothing
                },
                true,
            ),
        ] {
            let mut hang = hung();
            hang.look(&sign, later);
            assert_eq!(hang.is_hung(), !life, "{sign:?}");
        }
    }
}
