//! Prints a streamed answer: text as it comes, without control characters on a terminal.

use std::borrow::Cow;
use std::io::{self, IsTerminal as _};

use super::markdown::Painter;
use crate::ui;

/// Where an answer is printed.
#[derive(Debug)]
pub(crate) struct Printer {
    terminal: bool,
    at_line_start: bool,
    dim: bool,
    /// Paints Markdown, where there are colours.
    painter: Option<Painter>,
}

impl Printer {
    /// Standard output.
    pub(crate) fn stdout() -> Self {
        let terminal = io::stdout().is_terminal();
        let colours = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self {
            terminal,
            at_line_start: true,
            dim: false,
            painter: colours.then(Painter::default),
        }
    }

    /// Text of the answer.
    pub(crate) fn text(&mut self, text: &str) -> io::Result<()> {
        self.dimmed(false)?;
        match &mut self.painter {
            Some(painter) => {
                let painted = painter.paint(&harmless(text));
                self.moved(text);
                ui::print(&painted)
            }
            None => self.put(text),
        }
    }

    /// The model's thinking: dim on a terminal, left out of a pipe.
    pub(crate) fn reasoning(&mut self, text: &str) -> io::Result<()> {
        if !self.terminal {
            return Ok(());
        }
        self.unpainted()?;
        self.dimmed(true)?;
        self.put(text)
    }

    /// A remark of ours, on a terminal only: a pipe gets the answer alone.
    pub(crate) fn note(&mut self, text: &str) -> io::Result<()> {
        if !self.terminal {
            return Ok(());
        }
        self.unpainted()?;
        self.dimmed(true)?;
        self.put(" ")?;
        self.put(text)
    }

    /// Ends a line that was begun.
    pub(crate) fn end_line(&mut self) {
        drop(self.dimmed(false));
        drop(self.unpainted());
        if !self.at_line_start {
            // What cannot be written now was reported when the text before it could not.
            drop(ui::print("\n"));
            self.at_line_start = true;
        }
    }

    /// Marks that were held back, and the terminal's own colours.
    fn unpainted(&mut self) -> io::Result<()> {
        match self.painter.as_mut().map(Painter::end) {
            Some(rest) if !rest.is_empty() => ui::print(&rest),
            _ => Ok(()),
        }
    }

    fn moved(&mut self, text: &str) {
        if let Some(last) = text.chars().next_back() {
            self.at_line_start = last == '\n';
        }
    }

    fn put(&mut self, text: &str) -> io::Result<()> {
        self.moved(text);
        ui::print(&if self.terminal {
            harmless(text)
        } else {
            Cow::Borrowed(text)
        })
    }

    fn dimmed(&mut self, dim: bool) -> io::Result<()> {
        if self.terminal && self.dim != dim {
            self.dim = dim;
            ui::print(if dim { "\x1b[2m" } else { "\x1b[0m" })?;
            if !dim && !self.at_line_start {
                self.at_line_start = true;
                return ui::print("\n");
            }
        }
        Ok(())
    }
}

/// `text` without the control characters by which a model could move the cursor or the colours.
fn harmless(text: &str) -> Cow<'_, str> {
    let harmful = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if text.contains(harmful) {
        Cow::Owned(text.chars().filter(|c| !harmful(*c)).collect())
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(harmless("a\tb\nc é 🙂"), "a\tb\nc é 🙂");
        assert_eq!(harmless("\x1b[31mred\x07\r\u{9b}0m"), "[31mred0m");
    }
}
