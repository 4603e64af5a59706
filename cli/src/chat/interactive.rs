//! A conversation at the terminal: a line editor, several turns, a few commands.

use std::process::ExitCode;

use rustyline::error::ReadlineError;

use super::api::{Api, Message};
use super::history::Kept;
use super::lines::{LineEditor, editor, joined};
use super::terminal::Printer;
use super::{ChatError, Outcome, ask};
use crate::ui;

const HELP: &str = "/quit or Ctrl-D leaves, /reset starts anew, /model NAME changes the model, \
                    Ctrl-C stops an answer; a line that ends with \\ goes on in the next, and what stands between \
                    \"\"\" and \"\"\" may have many lines";

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
    let mut editor = editor().map_err(|error| ChatError::Editor(error.to_string()))?;
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
