//! How times are written: in error texts, headers and records.

use std::time::Duration;

use crate::http::limits::MAX_RETRY_AFTER;

/// A duration as OpenAI writes it: `0s`, `120ms`, `8.64s`, `6m0s`. Rounded up to milliseconds.
pub(crate) fn go_duration(time: Duration) -> String {
    let millis = time.as_nanos().div_ceil(1_000_000);
    let (minutes, rest) = (millis / 60_000, millis % 60_000);
    let seconds = |millis: u128| {
        let fraction = format!("{:03}", millis % 1000);
        let fraction = fraction.trim_end_matches('0');
        let dot = if fraction.is_empty() { "" } else { "." };
        format!("{}{dot}{fraction}s", millis / 1000)
    };
    match (minutes, rest) {
        (0, 1..1000) => format!("{rest}ms"),
        (0, rest) => seconds(rest),
        (minutes, rest) => format!("{minutes}m{}", seconds(rest)),
    }
}

/// A `Retry-After` in whole seconds: rounded up, at least 1, at most [`MAX_RETRY_AFTER`].
pub(crate) fn retry_seconds(after: Duration) -> u64 {
    let up = u64::from(after.subsec_nanos() > 0);
    after.as_secs().saturating_add(up).clamp(1, MAX_RETRY_AFTER)
}

/// Whole milliseconds.
pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_openai_does() {
        for (millis, text) in [
            (0, "0s"),
            (1, "1ms"),
            (999, "999ms"),
            (1000, "1s"),
            (8640, "8.64s"),
            (59_999, "59.999s"),
            (60_000, "1m0s"),
            (360_000, "6m0s"),
            (90_500, "1m30.5s"),
        ] {
            assert_eq!(go_duration(Duration::from_millis(millis)), text);
        }
        assert_eq!(go_duration(Duration::from_micros(1)), "1ms");
    }
}
