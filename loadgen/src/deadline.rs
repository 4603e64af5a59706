//! A time limit that costs nothing until it is reached.

use std::future::Future;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

/// Runs `future` for at most `limit`; `None` if it has not ended by then.
///
/// Unlike tokio's time-out it does not poll its timer on each arrival: the timer wakes the task by itself.
pub(crate) async fn within<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    let start = Instant::now();
    let mut future = pin!(future);
    let mut timer = pin!(tokio::time::sleep(limit));
    let mut armed = false;
    std::future::poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        if armed && start.elapsed() < limit {
            return Poll::Pending;
        }
        armed = true;
        timer.as_mut().poll(cx).map(|()| None)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_ends_in_time_is_returned_and_what_does_not_is_not() {
        let limit = Duration::from_millis(20);
        assert_eq!(within(limit, async { 7 }).await, Some(7));
        let start = Instant::now();
        // The future is polled many times before the limit.
        let busy = async {
            loop {
                tokio::task::yield_now().await;
            }
        };
        assert_eq!(within(limit, busy).await, None::<()>);
        assert_eq!(within(limit, std::future::pending::<()>()).await, None);
        assert!(start.elapsed() >= 2 * limit);
    }
}
