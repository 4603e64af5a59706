//! Colours for Markdown on a terminal, while it comes. Every character is shown as the model wrote it; nothing waits but the
//! marks whose meaning the next character decides.

/// How text looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Plain,
    Bold,
    Code,
    /// Marks of lists, quotes and fences.
    Mark,
}

impl Style {
    fn sequence(self) -> &'static str {
        match self {
            Self::Plain => "\x1b[0m",
            Self::Bold => "\x1b[0;1m",
            Self::Code => "\x1b[0;36m",
            Self::Mark => "\x1b[0;2m",
        }
    }
}

/// What the beginning of a line says of the line.
#[derive(Debug, PartialEq, Eq)]
enum Beginning {
    /// The next character decides.
    Open,
    Fence,
    Heading,
    Mark,
    Text,
}

impl Beginning {
    fn of(line: &str) -> Self {
        let text = line.trim_start_matches(' ');
        let Some(first) = text.chars().next() else {
            return Self::Open;
        };
        let rest = text.trim_start_matches(first);
        let count = text.len() - rest.len();
        match first {
            '`' | '~' if rest.is_empty() => Self::Open,
            '`' | '~' if count >= 3 => Self::Fence,
            '#' if rest.is_empty() && count <= 6 => Self::Open,
            '#' if rest.starts_with(' ') && count <= 6 => Self::Heading,
            '>' => Self::Mark,
            '-' | '*' | '+' if text.len() == 1 => Self::Open,
            '-' | '*' | '+' if count == 1 && rest.starts_with(' ') => Self::Mark,
            '0'..='9' => Self::numbered(text.trim_start_matches(|c: char| c.is_ascii_digit())),
            _ => Self::Text,
        }
    }

    /// `behind` follows digits.
    fn numbered(behind: &str) -> Self {
        match behind {
            "" | "." | ")" => Self::Open,
            ". " | ") " => Self::Mark,
            _ => Self::Text,
        }
    }
}

/// Paints one answer.
#[derive(Debug)]
pub(crate) struct Painter {
    /// The style that the terminal has.
    shown: Style,
    /// The beginning of a line, until it is clear what it is; `None` within a line.
    beginning: Option<String>,
    /// The fence that the code stands in.
    fence: Option<String>,
    /// The fence's own line, behind its mark.
    info: bool,
    heading: bool,
    bold: bool,
    /// Backticks that began a piece of code; 0 outside.
    code: usize,
    /// Equal marks in a row, of which more may come.
    marks: String,
}

impl Default for Painter {
    fn default() -> Self {
        Self {
            shown: Style::Plain,
            beginning: Some(String::new()),
            fence: None,
            info: false,
            heading: false,
            bold: false,
            code: 0,
            marks: String::new(),
        }
    }
}

impl Painter {
    /// `text`, painted, as far as its meaning is known.
    pub(crate) fn paint(&mut self, text: &str) -> String {
        let mut out = String::with_capacity(text.len() + 16);
        for c in text.chars() {
            self.take(c, &mut out);
        }
        out
    }

    /// What was held back, and the terminal's own style.
    pub(crate) fn end(&mut self) -> String {
        let mut out = String::new();
        self.end_line(&mut out);
        self.show(Style::Plain, "", &mut out);
        *self = Self::default();
        out
    }

    fn take(&mut self, c: char, out: &mut String) {
        if c == '\n' {
            self.end_line(out);
            self.show(Style::Plain, "\n", out);
            self.beginning = Some(String::new());
            return;
        }
        let Some(mut line) = self.beginning.take() else {
            self.within(c, out);
            return;
        };
        line.push(c);
        if let Some(fence) = &self.fence {
            if only_marks(&line, fence) {
                self.beginning = Some(line);
            } else {
                self.show(Style::Code, &line, out);
            }
            return;
        }
        match Beginning::of(&line) {
            Beginning::Open => self.beginning = Some(line),
            Beginning::Mark => self.show(Style::Mark, &line, out),
            Beginning::Heading => {
                self.heading = true;
                self.show(Style::Bold, &line, out);
            }
            Beginning::Fence => {
                let text = line.trim_start_matches(' ');
                let mark: String = text.chars().take_while(|mark| text.starts_with(*mark)).collect();
                (self.fence, self.info) = (Some(mark), true);
                self.show(Style::Mark, &line, out);
            }
            Beginning::Text => line.chars().for_each(|c| self.within(c, out)),
        }
    }

    fn end_line(&mut self, out: &mut String) {
        if let Some(line) = self.beginning.take() {
            let mark = line.trim();
            match &self.fence {
                Some(fence) if mark.starts_with(fence.as_str()) && only_marks(mark, fence) => {
                    self.fence = None;
                    self.show(Style::Mark, &line, out);
                }
                Some(_) => self.show(Style::Code, &line, out),
                None if mark.starts_with("```") || mark.starts_with("~~~") => {
                    self.fence = Some(mark.to_owned());
                    self.show(Style::Mark, &line, out);
                }
                None => line.chars().for_each(|c| self.within(c, out)),
            }
        }
        self.settle('\n', out);
        (self.heading, self.bold, self.code, self.info) = (false, false, 0, false);
    }

    /// A character that is not at the beginning of a line.
    fn within(&mut self, c: char, out: &mut String) {
        if self.fence.is_some() {
            if self.info && c == '`' {
                // What has a mark behind it on the same line is a piece of code and no fence.
                self.fence = None;
            }
            let style = if self.info { Style::Mark } else { Style::Code };
            self.show(style, c.encode_utf8(&mut [0; 4]), out);
            return;
        }
        if !self.marks.starts_with(c) {
            self.settle(c, out);
        }
        if matches!(c, '`' | '*') {
            self.marks.push(c);
        } else {
            self.show(self.style(), c.encode_utf8(&mut [0; 4]), out);
        }
    }

    fn style(&self) -> Style {
        match self {
            Self { code: 1.., .. } => Style::Code,
            Self { bold: true, .. } | Self { heading: true, .. } => Style::Bold,
            _ => Style::Plain,
        }
    }

    /// The marks are complete: `next` follows them.
    fn settle(&mut self, next: char, out: &mut String) {
        let marks = std::mem::take(&mut self.marks);
        let before = self.style();
        match marks.chars().next() {
            Some('`') if self.code == 0 && next != '\n' => self.code = marks.len(),
            Some('`') if self.code == marks.len() => self.code = 0,
            Some('*') if self.code == 0 && marks.len() >= 2 => self.bold = !self.bold && !next.is_whitespace(),
            Some(_) => {}
            None => return,
        }
        // Marks look like what they enclose.
        let style = if before == Style::Plain { self.style() } else { before };
        self.show(style, &marks, out);
    }

    fn show(&mut self, style: Style, text: &str, out: &mut String) {
        // Nothing needs no style, but the end of a line gives the terminal its own back.
        if self.shown != style && (style == Style::Plain || !text.is_empty()) {
            self.shown = style;
            out.push_str(style.sequence());
        }
        out.push_str(text);
    }
}

/// Whether a line in code may be the fence that ends it.
fn only_marks(line: &str, fence: &str) -> bool {
    line.trim().chars().all(|c| fence.starts_with(c))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;

    /// The painted text, with a letter in angle brackets for each change of style.
    fn painted(pieces: &[&str]) -> String {
        let mut painter = Painter::default();
        let mut all: String = pieces.iter().map(|piece| painter.paint(piece)).collect();
        all.push_str(&painter.end());
        [
            (Style::Plain, "<>"),
            (Style::Bold, "<b>"),
            (Style::Code, "<c>"),
            (Style::Mark, "<m>"),
        ]
        .iter()
        .fold(all, |text, (style, letter)| text.replace(style.sequence(), letter))
    }

    #[test]
    fn marks_are_painted_with_what_they_enclose() {
        for (text, want) in [
            ("plain\n", "plain\n"),
            ("a **b** c", "a <b>**b**<> c"),
            ("a `b*` c", "a <c>`b*`<> c"),
            ("``a`b`` c", "<c>``a`b``<> c"),
            ("# Title `x` y\nz", "<b># Title `<c>x`<b> y<>\nz"),
            ("- item **b**", "<m>- <>item <b>**b**<>"),
            ("12. item", "<m>12. <>item"),
            ("> said", "<m>><> said"),
            ("2 * 3 ** 4 #5", "2 * 3 ** 4 #5"),
            ("#tag and 12 months", "#tag and 12 months"),
            ("never **closed\nnext", "never <b>**closed<>\nnext"),
            ("**bold** first", "<b>**bold**<> first"),
            ("---\n", "---\n"),
        ] {
            assert_eq!(painted(&[text]), want, "{text:?}");
        }
    }

    #[test]
    fn code_between_fences_is_code_up_to_its_own_fence() {
        let text = "```rust\nlet a = 1;\n# no **title**\n\n  ``\n```\nafter";
        let want = "<m>```rust<>\n<c>let a = 1;<>\n<c># no **title**<>\n\n<c>  ``<>\n<m>```<>\nafter";
        assert_eq!(painted(&[text]), want);
        assert_eq!(
            painted(&["````\n```\n````\n**b**"]),
            "<m>````<>\n<c>```<>\n<m>````<>\n<b>**b**<>"
        );
        assert_eq!(painted(&["```\n```x\n"]), "<m>```<>\n<c>```x<>\n");
        assert_eq!(painted(&["~~~\nx"]), "<m>~~~<>\n<c>x<>");
    }

    #[test]
    fn a_piece_at_a_time_looks_as_at_once_and_loses_nothing() {
        let text = "# A\n\n1. **x** `y`\n   ```js\n   `\n   ```\n> *q*\n- \n``` a`b\nend `";
        let once = painted(&[text]);
        let mut buffer = [0; 4];
        let mut painter = Painter::default();
        let mut pieces = String::new();
        for c in text.chars() {
            pieces.push_str(&painter.paint(c.encode_utf8(&mut buffer)));
        }
        pieces.push_str(&painter.end());
        let plain = [Style::Plain, Style::Bold, Style::Code, Style::Mark];
        let bare = plain
            .iter()
            .fold(pieces, |text, style| text.replace(style.sequence(), ""));
        assert_eq!(bare, text);
        let singles: Vec<String> = text.chars().map(String::from).collect();
        let singles: Vec<&str> = singles.iter().map(String::as_str).collect();
        assert_eq!(painted(&singles), once);
    }
}
