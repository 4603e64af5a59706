//! Refusals as operators see them: one line each, up to a rate.

use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use crate::http::error::Verdict;
use crate::http::limits::{REFUSAL_LINES, REFUSAL_WINDOW};

/// What is known of a refused request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refused<'a> {
    /// The request's id.
    pub(crate) request: &'a str,
    /// The path of the API.
    pub(crate) api: &'a str,
    /// The name of the client's key.
    pub(crate) key: Option<&'a str>,
    /// The model that the client asked for.
    pub(crate) model: Option<&'a str>,
}

/// Lines of the present window, and those that were left out of it.
#[derive(Debug, Default)]
struct Window {
    since: Option<Instant>,
    lines: u32,
    left_out: u64,
}

impl Window {
    /// Whether a line may be written now; how many were left out before it.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if self.since.is_none_or(|since| now >= since + REFUSAL_WINDOW) {
            self.since = Some(now);
            self.lines = 0;
        }
        if self.lines >= REFUSAL_LINES {
            self.left_out += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

/// Writes the line of a request that was refused with `verdict`. A client's faults are no warnings; but an operator who
/// is asked about them must find them.
pub(crate) fn tell(refused: Refused<'_>, verdict: &Verdict) {
    static WINDOW: Mutex<Window> = Mutex::new(Window {
        since: None,
        lines: 0,
        left_out: 0,
    });
    if !verdict.status.is_client_error() {
        return;
    }
    let mut window = WINDOW.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(left_out) = window.admit(Instant::now()) else {
        return;
    };
    drop(window);
    tracing::info!(
        request = refused.request,
        api = refused.api,
        key = refused.key,
        model = refused.model,
        status = verdict.status.as_u16(),
        code = verdict.code.as_deref(),
        field = verdict.param.as_deref(),
        error = verdict.message,
        left_out = (left_out > 0).then_some(left_out),
        "request refused"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_and_those_left_out_are_counted() {
        let (mut window, now) = (Window::default(), Instant::now());
        for _ in 0..REFUSAL_LINES {
            assert_eq!(window.admit(now), Some(0));
        }
        assert_eq!((window.admit(now), window.admit(now)), (None, None));
        assert_eq!(window.admit(now + REFUSAL_WINDOW), Some(2));
        assert_eq!(window.admit(now + REFUSAL_WINDOW), Some(0));
    }
}
