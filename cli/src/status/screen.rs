//! The terminal while `top` has it, given back however `top` ends.

use std::io::{self, BufWriter, IsTerminal as _, Stdout, Write as _};

use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::style::{Attribute, Color, Print, ResetColor, SetAttribute, SetForegroundColor};
use crossterm::terminal::{
    BeginSynchronizedUpdate, Clear, ClearType, EndSynchronizedUpdate, EnterAlternateScreen, LeaveAlternateScreen,
    disable_raw_mode, enable_raw_mode, size,
};
use crossterm::{execute, queue};

use super::table::{Line, Tone};

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

    /// How many columns it has.
    pub(super) fn width() -> usize {
        size().map_or(usize::MAX, |(width, _)| usize::from(width))
    }

    /// Draws `lines`, as many as there is room for, and `footer` in the last line.
    pub(super) fn draw(&mut self, lines: &[Line], footer: &str) -> io::Result<()> {
        let (width, height) = size()?;
        let room = usize::from(height).saturating_sub(1);
        queue!(self.out, BeginSynchronizedUpdate, MoveTo(0, 0))?;
        for line in fit(lines, room, usize::from(width)) {
            paint(&mut self.out, &line)?;
            queue!(self.out, Clear(ClearType::UntilNewLine), Print("\r\n"))?;
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

/// Writes a line in the colour of its tone. Where NO_COLOR is set, the library writes no colours.
fn paint(out: &mut impl io::Write, Line { text, tone }: &Line) -> io::Result<()> {
    match tone {
        Tone::Plain => return queue!(out, Print(text)),
        Tone::Head => queue!(out, SetAttribute(Attribute::Bold))?,
        Tone::Notice => queue!(out, SetForegroundColor(Color::Yellow))?,
        Tone::Alarm => queue!(out, SetForegroundColor(Color::Red))?,
    }
    queue!(out, Print(text), ResetColor, SetAttribute(Attribute::Reset))
}

/// The lines that fit, the last one saying how many do not.
fn fit(lines: &[Line], room: usize, width: usize) -> Vec<Line> {
    let shown = if lines.len() <= room {
        lines.len()
    } else {
        room.saturating_sub(1)
    };
    let fitted = |line: &Line| Line::new(line.tone, cut(&line.text, width));
    let mut fitting: Vec<Line> = lines.iter().take(shown).map(fitted).collect();
    let hidden = lines.len() - shown;
    if hidden > 0 && room > 0 {
        fitting.push(Line::new(Tone::Plain, cut(&format!("… {hidden} more lines"), width)));
    }
    fitting
}

fn cut(line: &str, width: usize) -> String {
    line.chars().take(width).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(count: usize) -> Vec<Line> {
        (0..count)
            .map(|n| Line::new(Tone::Plain, format!("line {n}")))
            .collect()
    }

    fn texts(lines: Vec<Line>) -> Vec<String> {
        lines.into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn only_what_stands_out_has_a_style() {
        let painted = |tone| {
            let mut out = Vec::new();
            paint(&mut out, &Line::new(tone, "w1")).ok();
            String::from_utf8_lossy(&out).into_owned()
        };
        assert_eq!(painted(Tone::Plain), "w1");
        assert!(painted(Tone::Head).starts_with("\u{1b}[1mw1\u{1b}["));
        for tone in [Tone::Notice, Tone::Alarm] {
            assert!(painted(tone).contains("w1\u{1b}["), "the style ends with the line");
        }
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        assert_eq!(fit(&lines(3), 3, 80), lines(3));
        assert_eq!(texts(fit(&lines(5), 3, 80)), ["line 0", "line 1", "… 3 more lines"]);
        assert_eq!(texts(fit(&lines(5), 1, 6)), ["… 5 mo"]);
        assert!(fit(&lines(5), 0, 80).is_empty());
    }

    #[test]
    fn lines_are_cut_at_the_edge_by_characters() {
        assert_eq!(cut("äöüß", 2), "äö");
    }
}
