//! `tokenbus chat`: talk to a model over the OpenAI API, once or in turns.

pub(crate) mod api;
mod history;
mod interactive;
mod lines;
mod markdown;
mod terminal;

use std::fs::File;
use std::io::{IsTerminal as _, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::PathBuf;
use std::process::ExitCode;

use self::api::{Api, ApiError, Message, Piece, Sampling};
use self::history::Kept;
use self::terminal::Printer;
use crate::limits;
use crate::signals::{self, INTERRUPTED};

/// Talk to a model: one question given here, on standard input or on both, otherwise a conversation
///
/// As in: cat report.txt | tokenbus chat "Summarise this"
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Base URL of any OpenAI-compatible server
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080/v1")]
    pub(crate) url: String,

    /// The model [default: the first one that the server lists]
    #[arg(long, value_name = "NAME")]
    pub(crate) model: Option<String>,

    /// Instructions for the model, sent before the conversation
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,

    /// Randomness of the answer: 0 for none, usually up to 2 [default: the model's own]
    #[arg(long, value_name = "T", value_parser = temperature)]
    pub(crate) temperature: Option<f64>,

    /// Most tokens of an answer [default: the server's own]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_tokens: Option<u32>,

    /// File that keeps the lines of conversations for the next ones; off for none [default:
    /// $XDG_STATE_HOME/tokenbus/chat_history, or ~/.local/state/tokenbus/chat_history]
    #[arg(long, value_name = "FILE")]
    pub(crate) history: Option<PathBuf>,

    /// API key, where the server wants one
    #[arg(long, value_name = "KEY", hide_env_values = true)]
    pub(crate) api_key: Option<String>,

    /// The question. What is piped in follows it, or is the question where none is given here; on a terminal, without a
    /// question, it is a conversation
    #[arg(value_name = "PROMPT")]
    pub(crate) prompt: Vec<String>,
}

/// Why a chat ended badly.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChatError {
    /// The server or its answer.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The server lists no model.
    #[error("no model is being served at {0} yet: start a worker, or name a model with --model")]
    NoModel(String),
    /// The server lists more than one model.
    #[error("choose a model with --model: {0}")]
    Several(String),
    /// Standard input or output.
    #[error("{0}")]
    Terminal(std::io::Error),
    /// Standard input has no question.
    #[error("the question is empty")]
    Empty,
    /// The line editor.
    #[error("the line editor failed: {0}")]
    Editor(String),
}

/// Runs the subcommand. A one-shot chat that is interrupted ends with status 130.
///
/// # Errors
/// [`ChatError`]; in one-shot mode also when the answer broke off.
pub(crate) async fn run(args: Args) -> Result<ExitCode, ChatError> {
    let api = Api::new(&args.url, args.api_key.clone())?.sampling(Sampling {
        temperature: args.temperature,
        max_tokens: args.max_tokens,
    });
    let question = question(&args.prompt)?;
    let model = match args.model {
        Some(model) => model,
        None => first_model(&api, &args.url).await?,
    };
    let system = args.system.map(|text| Message::new("system", text));
    let Some(question) = question else {
        let kept = Kept::at(args.history, |name| std::env::var_os(name));
        return interactive::run(api, model, system, kept).await;
    };
    let messages: Vec<Message> = system.into_iter().chain([Message::new("user", question)]).collect();
    let mut printer = Printer::stdout();
    let outcome = ask(&api, &model, &messages, &mut printer).await;
    printer.end_line();
    match outcome {
        Outcome::Complete(_) => Ok(ExitCode::SUCCESS),
        Outcome::Interrupted(_) => Ok(ExitCode::from(INTERRUPTED)),
        Outcome::Failed(error) => Err(error),
    }
}

/// The question from the arguments or a pipe; `None` for a conversation.
fn question(words: &[String]) -> Result<Option<String>, ChatError> {
    let stdin = std::io::stdin();
    let asked = words.join(" ");
    if asked.is_empty() && stdin.is_terminal() {
        return Ok(None);
    }
    if !asked.is_empty() && !is_piped(&stdin) {
        return Ok(Some(asked));
    }
    let mut text = String::new();
    stdin
        .lock()
        .take(limits::STDIN_PROMPT_BYTES)
        .read_to_string(&mut text)
        .map_err(ChatError::Terminal)?;
    match (asked, text.trim()) {
        (asked, "") if asked.is_empty() => Err(ChatError::Empty),
        (asked, "") => Ok(Some(asked)),
        (asked, text) if asked.is_empty() => Ok(Some(text.to_owned())),
        (asked, text) => Ok(Some(format!("{asked}\n\n{text}"))),
    }
}

/// Whether somebody gave this process a pipe or a file to read. A script's own input, such as /dev/null or a socket, is
/// neither.
fn is_piped(stdin: &std::io::Stdin) -> bool {
    let kind = stdin.as_fd().try_clone_to_owned().map(File::from);
    let kind = kind.and_then(|file| file.metadata()).map(|about| about.file_type());
    kind.is_ok_and(|kind| kind.is_fifo() || kind.is_file())
}

/// # Errors
/// A sentence for the user.
fn temperature(text: &str) -> Result<f64, String> {
    let number = text.trim().parse::<f64>().ok();
    number
        .filter(|number| number.is_finite() && *number >= 0.0)
        .ok_or_else(|| "write a number from 0, like 0.7".to_owned())
}

/// The benchmark's flags, with the server's only model where none is named.
///
/// # Errors
/// [`ChatError`], where the server has none, or several.
pub(crate) async fn only_model(mut args: tokenbus_loadgen::Args) -> Result<tokenbus_loadgen::Args, ChatError> {
    if args.model.is_none() {
        let models = Api::new(&args.url, args.api_key.clone())?.models().await?;
        args.model = match models.as_slice() {
            [] => return Err(ChatError::NoModel(args.url)),
            [only] => Some(only.clone()),
            several => return Err(ChatError::Several(several.join(", "))),
        };
    }
    Ok(args)
}

async fn first_model(api: &Api, url: &str) -> Result<String, ChatError> {
    let models = api.models().await?;
    models
        .into_iter()
        .next()
        .ok_or_else(|| ChatError::NoModel(url.to_owned()))
}

/// How an answer ended, with its text as far as it came.
#[derive(Debug)]
enum Outcome {
    Complete(String),
    Interrupted(String),
    Failed(ChatError),
}

/// Streams one answer to `printer` until it ends or Ctrl-C is pressed.
async fn ask(api: &Api, model: &str, messages: &[Message], printer: &mut Printer) -> Outcome {
    let mut interrupt = match signals::interrupts() {
        Ok(interrupt) => interrupt,
        Err(error) => return Outcome::Failed(ChatError::Terminal(error)),
    };
    let (mut answer, mut write_error) = (String::new(), None);
    let streamed = {
        let show = |piece: Piece| {
            let shown = match &piece {
                Piece::Text(text) => {
                    answer.push_str(text);
                    printer.text(text)
                }
                Piece::Reasoning(text) => printer.reasoning(text),
                Piece::Finish(reason) if reason == "length" => printer.note("[cut: length limit]"),
                Piece::Finish(_) => Ok(()),
            };
            if let Err(error) = shown {
                write_error.get_or_insert(error);
            }
        };
        tokio::select! {
            ended = api.chat(model, messages, show) => Some(ended),
            _ = interrupt.recv() => None,
        }
    };
    match (streamed, write_error) {
        (_, Some(error)) => Outcome::Failed(ChatError::Terminal(error)),
        (Some(Ok(())), None) => Outcome::Complete(answer),
        (Some(Err(error)), None) => Outcome::Failed(error.into()),
        (None, None) => Outcome::Interrupted(answer),
    }
}
