//! The progress bar on a terminal. Elsewhere nothing is drawn.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::limits::PROGRESS;
use super::load::ProgressCounts;

/// The progress bar, drawn until this is dropped. indicatif draws only on a terminal.
pub(crate) async fn show(live: &ProgressCounts, requests: Option<u64>, duration: Option<Duration>) {
    let length = requests.or_else(|| duration.map(millis));
    let bar = length.map_or_else(ProgressBar::no_length, ProgressBar::new);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {msg}") {
        bar.set_style(style);
    }
    let _clear = Clear(bar.clone());
    let start = Instant::now();
    let mut last = (start, 0);
    let mut ticks = tokio::time::interval(PROGRESS);
    loop {
        ticks.tick().await;
        let [ended, failed, tokens] = [&live.ended, &live.failed, &live.tokens].map(|n| n.load(Ordering::Relaxed));
        let now = Instant::now();
        let seconds = now.duration_since(last.0).as_secs_f64();
        let rate = if seconds > 0.0 {
            tokens.saturating_sub(last.1) as f64 / seconds
        } else {
            0.0
        };
        last = (now, tokens);
        bar.set_position(if requests.is_some() {
            ended
        } else {
            millis(start.elapsed())
        });
        bar.set_message(format!("{ended} requests, {failed} failed, {rate:.0} tokens/s"));
    }
}

/// Clears the bar, so that the report begins on an empty line.
struct Clear(ProgressBar);

impl Drop for Clear {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
