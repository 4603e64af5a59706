//! A loop that sleeps until there is something to watch. Those who make work for it ring; that costs them one load while
//! it is awake.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Wakes one loop.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    asleep: AtomicBool,
    rung: Notify,
}

impl Bell {
    /// There is work now. To be called after that can be seen by the loop.
    pub(crate) fn ring(&self) {
        if self.asleep.load(Ordering::SeqCst) {
            self.rung.notify_one();
        }
    }

    /// Sleeps until somebody rings, unless `has_work`. It may wake up without work.
    pub(crate) async fn sleep_unless(&self, has_work: impl FnOnce() -> bool) {
        // In this order: who made work before it was looked for is seen, and who does so afterwards sees the sleeper.
        self.asleep.store(true, Ordering::SeqCst);
        if !has_work() {
            self.rung.notified().await;
        }
        self.asleep.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn it_sleeps_until_there_is_work_and_misses_none() {
        let bell = Bell::default();
        assert!(bell.sleep_unless(|| true).now_or_never().is_some(), "there is work");
        bell.ring();
        assert!(
            bell.sleep_unless(|| false).now_or_never().is_none(),
            "nobody rang while it slept"
        );
        let mut sleeper = Box::pin(bell.sleep_unless(|| {
            // Between the look and the sleep.
            bell.ring();
            false
        }));
        assert!(sleeper.as_mut().now_or_never().is_some());
    }
}
