//! Waiting with a deadline: no test hangs, and a failure names what it waited for.

use std::future::Future;
use std::panic::Location;
use std::time::{Duration, Instant};

use crate::limits::{LOOK, PATIENCE};

/// Awaits `future` for at most [`PATIENCE`].
///
/// # Panics
/// After that; names `what` and the caller.
#[track_caller]
pub fn within<F: Future>(what: &str, future: F) -> impl Future<Output = F::Output> {
    within_time(PATIENCE, what, future)
}

/// Awaits `future` for at most `limit`.
///
/// # Panics
/// After that; names `what` and the caller.
#[track_caller]
pub fn within_time<F: Future>(limit: Duration, what: &str, future: F) -> impl Future<Output = F::Output> {
    let (what, caller) = (what.to_owned(), Location::caller());
    async move {
        match tokio::time::timeout(limit, future).await {
            Ok(output) => output,
            Err(_) => panic!("{caller}: waited {limit:?} for {what}"),
        }
    }
}

/// Calls `look` again and again until it returns `Ok`. For state that announces no changes.
///
/// # Panics
/// After [`PATIENCE`]; names `what`, the caller and the last `Err`.
#[track_caller]
pub fn eventually<T, E, F, L>(what: &str, look: L) -> impl Future<Output = T>
where
    E: std::fmt::Debug,
    F: Future<Output = Result<T, E>>,
    L: FnMut() -> F,
{
    eventually_in(PATIENCE, what, look)
}

/// Like [`eventually`], for at most `limit`.
///
/// # Panics
/// After `limit`; names `what`, the caller and the last `Err`.
#[track_caller]
pub fn eventually_in<T, E, F, L>(limit: Duration, what: &str, mut look: L) -> impl Future<Output = T>
where
    E: std::fmt::Debug,
    F: Future<Output = Result<T, E>>,
    L: FnMut() -> F,
{
    let (what, caller) = (what.to_owned(), Location::caller());
    async move {
        let deadline = Instant::now() + limit;
        loop {
            let seen = within_time(limit, &what, look()).await;
            match seen {
                Ok(value) => return value,
                Err(seen) if Instant::now() >= deadline => {
                    panic!("{caller}: waited {limit:?} for {what}; last seen: {seen:?}")
                }
                Err(_) => tokio::time::sleep(LOOK).await,
            }
        }
    }
}
