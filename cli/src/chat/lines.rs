//! What is typed: a line editor in which a question may have several lines.

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Config, Editor, Helper};

use crate::limits;

/// Before and after a question of several lines.
const QUOTES: &str = "\"\"\"";

/// Tells the line editor where a question ends.
#[derive(Debug)]
pub(super) struct SeveralLines;

impl Helper for SeveralLines {}

impl Completer for SeveralLines {
    type Candidate = String;
}

impl Hinter for SeveralLines {
    type Hint = String;
}

impl Highlighter for SeveralLines {}

impl Validator for SeveralLines {
    fn validate(&self, typed: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(match goes_on(typed.input()) {
            true => ValidationResult::Incomplete,
            false => ValidationResult::Valid(None),
        })
    }
}

/// Whether what was typed so far goes on in the next line.
fn goes_on(typed: &str) -> bool {
    match typed.trim_start().strip_prefix(QUOTES) {
        Some(rest) => !rest.trim_end().ends_with(QUOTES),
        None => typed.ends_with('\\'),
    }
}

/// What was typed, without the marks of several lines.
pub(super) fn joined(typed: &str) -> String {
    let quoted = typed
        .trim()
        .strip_prefix(QUOTES)
        .and_then(|rest| rest.strip_suffix(QUOTES));
    match quoted {
        Some(text) => text.trim_matches('\n').to_owned(),
        None => typed.replace("\\\n", "\n"),
    }
}

/// The line editor of a chat.
pub(super) type LineEditor = Editor<SeveralLines, DefaultHistory>;

/// A line editor without earlier lines. What begins with a space is not kept.
///
/// # Errors
/// The terminal cannot be used.
pub(super) fn editor() -> Result<LineEditor, ReadlineError> {
    let config = Config::builder().max_history_size(limits::CHAT_HISTORY_LINES);
    let config = config?.history_ignore_space(true).build();
    let mut editor = LineEditor::with_config(config)?;
    editor.set_helper(Some(SeveralLines));
    Ok(editor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_may_have_several_lines() {
        for (typed, more) in [
            ("one", false),
            ("one\\", true),
            ("one\\\ntwo", false),
            ("\"\"\"", true),
            ("\"\"\"\none\ntwo", true),
            ("\"\"\"\none\\\ntwo\n\"\"\"", false),
        ] {
            assert_eq!(goes_on(typed), more, "{typed:?}");
        }
        assert_eq!(joined("one\\\ntwo"), "one\ntwo");
        assert_eq!(joined("\"\"\"\n  one\\\ntwo\n\"\"\""), "  one\\\ntwo");
        assert_eq!(joined("say \"\"\" twice"), "say \"\"\" twice");
    }
}
