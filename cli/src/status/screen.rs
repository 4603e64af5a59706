//! The terminal while `top` has it, given back however `top` ends.

use std::io::{self, BufWriter, IsTerminal as _, Stdout, Write as _};

use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::style::{Attribute, Print, SetAttribute};
use crossterm::terminal::{
    BeginSynchronizedUpdate, Clear, ClearType, EndSynchronizedUpdate, EnterAlternateScreen, LeaveAlternateScreen,
    disable_raw_mode, enable_raw_mode, size,
};
use crossterm::{execute, queue};

/// Whether standard output is a terminal.
pub(super) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// The alternate screen in raw mode; dropping it restores what was there before, also when the
/// stack unwinds.
#[derive(Debug)]
pub(super) struct Screen {
    out: BufWriter<Stdout>,
}

impl Screen {
    /// Takes the terminal.
    pub(super) fn take() -> io::Result<Self> {
        enable_raw_mode()?;
        // From here on the drop restores, whatever fails.
        let mut screen = Self {
            out: BufWriter::new(io::stdout()),
        };
        execute!(screen.out, EnterAlternateScreen, Hide)?;
        Ok(screen)
    }

    /// Draws `lines`, as many as there is room for, and `footer` in the last line.
    pub(super) fn draw(&mut self, lines: &[String], footer: &str) -> io::Result<()> {
        let (width, height) = size()?;
        let room = usize::from(height).saturating_sub(1);
        queue!(self.out, BeginSynchronizedUpdate, MoveTo(0, 0))?;
        for line in fit(lines, room, usize::from(width)) {
            queue!(self.out, Print(line), Clear(ClearType::UntilNewLine), Print("\r\n"))?;
        }
        queue!(
            self.out,
            Clear(ClearType::FromCursorDown),
            MoveTo(0, height.saturating_sub(1)),
            SetAttribute(Attribute::Reverse),
            Print(cut(footer, usize::from(width))),
            SetAttribute(Attribute::Reset),
            EndSynchronizedUpdate
        )?;
        self.out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Nothing more can be done about a terminal that does not take its own restoration.
        let _ = execute!(self.out, EndSynchronizedUpdate, Show, LeaveAlternateScreen);
        let _ = disable_raw_mode();
    }
}

/// The lines that fit, the last one saying how many do not.
fn fit(lines: &[String], room: usize, width: usize) -> Vec<String> {
    let shown = if lines.len() <= room {
        lines.len()
    } else {
        room.saturating_sub(1)
    };
    let mut fitting: Vec<String> = lines.iter().take(shown).map(|line| cut(line, width)).collect();
    let hidden = lines.len() - shown;
    if hidden > 0 && room > 0 {
        fitting.push(cut(&format!("… {hidden} more lines"), width));
    }
    fitting
}

fn cut(line: &str, width: usize) -> String {
    line.chars().take(width).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("line {n}")).collect()
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        assert_eq!(fit(&lines(3), 3, 80), lines(3));
        assert_eq!(fit(&lines(5), 3, 80), ["line 0", "line 1", "… 3 more lines"]);
        assert_eq!(fit(&lines(5), 1, 6), ["… 5 mo"]);
        assert!(fit(&lines(5), 0, 80).is_empty());
    }

    #[test]
    fn lines_are_cut_at_the_edge_by_characters() {
        assert_eq!(cut("äöüß", 2), "äö");
    }
}
