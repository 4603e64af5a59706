//! Output for people: lines and progress on standard error, results on standard output.
//!
//! This is the one place that writes to the terminal; everything else logs.

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{limits, outlet};

/// Standard error as a person reads it: moving bars on a terminal, one line per event elsewhere.
#[derive(Debug, Clone)]
pub(crate) struct Screen {
    bars: Option<MultiProgress>,
}

impl Screen {
    /// A screen on this process's standard error.
    pub(crate) fn stderr() -> Self {
        let bars = io::stderr()
            .is_terminal()
            .then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10)));
        Self { bars }
    }

    /// Prints one line above the bars. A closed standard error is ignored.
    pub(crate) fn line(&self, text: impl Display) {
        let printed = match &self.bars {
            Some(bars) => bars.println(text.to_string()),
            None => {
                outlet::stderr().line(text);
                return;
            }
        };
        drop(printed);
    }

    /// Announces the start of work that takes a while.
    pub(crate) fn step(&self, subject: &str, doing: &str) -> Step {
        let bar = match &self.bars {
            None => {
                self.line(format_args!("{subject}: {doing}"));
                None
            }
            Some(bars) => {
                let bar = bars.add(ProgressBar::new_spinner());
                bar.set_style(style("{spinner} {msg} {elapsed}"));
                bar.set_message(format!("{subject}: {doing}"));
                bar.enable_steady_tick(Duration::from_millis(100));
                Some(bar)
            }
        };
        Step {
            screen: self.clone(),
            subject: subject.to_owned(),
            bar,
            started: Instant::now(),
        }
    }
}

/// Work in progress, shown by a [`Screen`]. Dropping it removes its bar.
#[derive(Debug)]
pub(crate) struct Step {
    screen: Screen,
    subject: String,
    bar: Option<ProgressBar>,
    started: Instant,
}

impl Step {
    /// Shows the progress, bytes.
    pub(crate) fn bytes(&self, done: u64, total: u64) {
        let Some(bar) = &self.bar else { return };
        if bar.length() != Some(total) {
            bar.set_length(total);
            bar.set_style(style(
                "{spinner} {msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}",
            ));
        }
        bar.set_position(done);
    }

    /// Shows another text for the work.
    pub(crate) fn now(&self, doing: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(format!("{}: {doing}", self.subject)),
            None => self.screen.line(format_args!("{}: {doing}", self.subject)),
        }
    }

    /// Ends it with a line: the subject, `outcome` and the time it took.
    pub(crate) fn done(mut self, outcome: &str) {
        self.take_bar_away();
        let seconds = self.started.elapsed().as_secs_f64();
        self.screen
            .line(format_args!("{}: {outcome} ({seconds:.1} s)", self.subject));
    }

    fn take_bar_away(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.take_bar_away();
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are constants of this file; a wrong one would only look plain.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

/// Writes to standard output and flushes, so that streamed text appears as it comes.
///
/// # Errors
/// Standard output is closed, so the caller has no reader left.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// [`print`] with a line end.
///
/// # Errors
/// As for [`print`].
pub(crate) fn println(text: impl Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

/// Writes one line to standard error and waits a moment until it is written. A failure to write is ignored.
pub(crate) fn complain(text: impl Display) {
    outlet::stderr().line(text);
    outlet::stderr().flush(limits::LAST_WORDS);
}
