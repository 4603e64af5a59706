//! A conversation at the terminal: a line editor, several turns, a few commands.

use std::process::ExitCode;

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Config, Editor, Helper};

use super::api::{Api, Message};
use super::history::Kept;
use super::terminal::Printer;
use super::{ChatError, Outcome, ask};
use crate::{limits, ui};

const HELP: &str = "/quit or Ctrl-D leaves, /reset starts anew, /model NAME changes the model, \
                    Ctrl-C stops an answer; a line that ends with \\ goes on in the next, and what stands between \
                    \"\"\" and \"\"\" may have many lines";

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
fn joined(typed: &str) -> String {
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
/// [`ChatError::Editor`].
pub(super) fn editor() -> Result<LineEditor, ChatError> {
    let wrong = |error: ReadlineError| ChatError::Editor(error.to_string());
    let config = Config::builder().max_history_size(limits::CHAT_HISTORY_LINES);
    let config = config.map_err(wrong)?.history_ignore_space(true).build();
    let mut editor = LineEditor::with_config(config).map_err(wrong)?;
    editor.set_helper(Some(SeveralLines));
    Ok(editor)
}

/// What a person typed.
#[derive(Debug, PartialEq, Eq)]
enum Input<'a> {
    Nothing,
    Quit,
    Reset,
    Help,
    /// `/model`, with a name or without.
    Model(Option<&'a str>),
    Unknown(&'a str),
    Say(&'a str),
}

impl<'a> Input<'a> {
    fn read(line: &'a str) -> Self {
        let line = line.trim();
        let Some(command) = line.strip_prefix('/') else {
            return if line.is_empty() {
                Self::Nothing
            } else {
                Self::Say(line)
            };
        };
        let (word, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        match (word, rest.trim()) {
            ("quit" | "exit" | "q", "") => Self::Quit,
            ("reset" | "clear", "") => Self::Reset,
            ("help" | "?", "") => Self::Help,
            ("model" | "models", "") => Self::Model(None),
            ("model", name) => Self::Model(Some(name)),
            _ => Self::Unknown(line),
        }
    }
}

/// Talks until the person leaves.
pub(super) async fn run(
    api: Api,
    mut model: String,
    system: Option<Message>,
    kept: Kept,
) -> Result<ExitCode, ChatError> {
    let mut editor = editor()?;
    kept.load(&mut editor);
    let mut messages: Vec<Message> = system.clone().into_iter().collect();
    ui::complain(format_args!("{model}. {HELP}."));
    loop {
        let (returned, line) = read_line(editor).await?;
        editor = returned;
        let line = match line {
            Ok(line) => {
                kept.add(&line, &mut editor);
                line
            }
            Err(ReadlineError::Interrupted) => {
                ui::complain(HELP);
                continue;
            }
            Err(ReadlineError::Eof) => return Ok(ExitCode::SUCCESS),
            Err(error) => return Err(ChatError::Editor(error.to_string())),
        };
        let line = joined(&line);
        match Input::read(&line) {
            Input::Nothing => {}
            Input::Quit => return Ok(ExitCode::SUCCESS),
            Input::Reset => messages = system.clone().into_iter().collect(),
            Input::Help => ui::complain(HELP),
            Input::Unknown(command) => ui::complain(format_args!("unknown: {command}. {HELP}")),
            Input::Model(None) => list_models(&api, &model).await,
            Input::Model(Some(name)) => name.clone_into(&mut model),
            Input::Say(text) => turn(&api, &model, &mut messages, text).await?,
        }
    }
}

/// One question and its answer; what fails is shown and leaves the conversation as it was.
async fn turn(api: &Api, model: &str, messages: &mut Vec<Message>, text: &str) -> Result<(), ChatError> {
    messages.push(Message::new("user", text));
    let mut printer = Printer::stdout();
    let outcome = ask(api, model, messages, &mut printer).await;
    printer.end_line();
    match outcome {
        Outcome::Complete(answer) => messages.push(Message::new("assistant", answer)),
        Outcome::Interrupted(answer) if !answer.is_empty() => {
            messages.push(Message::new("assistant", answer));
        }
        Outcome::Interrupted(_) => drop(messages.pop()),
        Outcome::Failed(ChatError::Terminal(error)) => return Err(ChatError::Terminal(error)),
        Outcome::Failed(error) => {
            messages.pop();
            ui::complain(format_args!("error: {error}"));
        }
    }
    Ok(())
}

async fn list_models(api: &Api, current: &str) {
    match api.models().await {
        Ok(models) => {
            for model in models {
                let mark = if model == current { '*' } else { ' ' };
                ui::complain(format_args!("{mark} {model}"));
            }
        }
        Err(error) => ui::complain(format_args!("error: {error}")),
    }
}

/// The editor waits for keys, so it does that on a thread where waiting harms nobody.
async fn read_line(mut editor: LineEditor) -> Result<(LineEditor, Result<String, ReadlineError>), ChatError> {
    let read = tokio::task::spawn_blocking(move || {
        let line = editor.readline("> ");
        (editor, line)
    });
    read.await.map_err(|error| ChatError::Editor(error.to_string()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
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

    #[test]
    fn commands_and_questions() {
        assert_eq!(Input::read("  "), Input::Nothing);
        assert_eq!(Input::read("/quit"), Input::Quit);
        assert_eq!(Input::read("/reset "), Input::Reset);
        assert_eq!(Input::read("/model"), Input::Model(None));
        assert_eq!(Input::read("/model  a/b:c "), Input::Model(Some("a/b:c")));
        assert_eq!(Input::read("/quit now"), Input::Unknown("/quit now"));
        assert_eq!(Input::read("what is /quit?"), Input::Say("what is /quit?"));
    }
}
