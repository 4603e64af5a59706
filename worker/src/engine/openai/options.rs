//! What an operator says of an HTTP engine.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use tokenbus_protocol::{MAX_MODEL_NAME, SlotsFrom};

use super::supervisor::EngineCommand;
use crate::engine::Overrides;

/// Options of [`super::OpenAiEngine`].
#[derive(Debug, Clone)]
pub struct OpenAiOptions {
    /// Base URL of the API, `/v1` included: `http://127.0.0.1:8000/v1`. May be absent with
    /// [`Self::command`], which then is told a free port on loopback.
    pub url: Option<String>,
    /// Models to serve; empty: all that the server lists.
    pub models: Vec<ModelSpec>,
    /// What the models can do and cannot, where the operator knows better than the server tells.
    pub overrides: Overrides,
    /// Requests at once; absent: what the server tells, otherwise a default by kind of server.
    pub slots: Option<u32>,
    /// Where those come from, as the status tells it.
    pub slots_from: SlotsFrom,
    /// Which requests are asked of the server as streams.
    pub streaming: Streaming,
    /// Longest silence of streams that have begun, beyond which the server counts as hung; absent: by its own
    /// worst gap.
    pub token_timeout: Option<Duration>,
    /// Longest wait for a first token from a server that brings nothing else meanwhile, beyond which it counts as hung;
    /// absent: a prefill may take any time.
    pub first_token_timeout: Option<Duration>,
    /// How the worker proves itself to the server.
    pub api_key: ApiKey,
    /// A server process to start and supervise.
    pub command: Option<EngineCommand>,
    /// Name of the engine in the status: `openai`, or that of the engine built over this one.
    pub engine: &'static str,
    /// How long a supervised server may take from its start until it is healthy, before it is
    /// started again; a large model takes minutes to load.
    pub start_timeout: Duration,
}

impl Default for OpenAiOptions {
    fn default() -> Self {
        Self {
            url: None,
            models: Vec::new(),
            overrides: Overrides::default(),
            slots: None,
            slots_from: SlotsFrom::Flag,
            streaming: Streaming::Auto,
            token_timeout: None,
            first_token_timeout: None,
            api_key: ApiKey::None,
            command: None,
            engine: "openai",
            start_timeout: Duration::from_secs(30 * 60),
        }
    }
}

/// Which requests are asked of the server as streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Streaming {
    /// Those that its kind is known to stream well, until it refuses one.
    #[default]
    Auto,
    /// All.
    Always,
    /// None: each answer comes in one piece.
    Never,
}

impl FromStr for Streaming {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            _ => Err("expected auto, always or never".to_owned()),
        }
    }
}

/// Where the key to the server comes from.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum ApiKey {
    /// The server asks for none.
    #[default]
    None,
    /// The key itself.
    Value(String),
    /// A file that holds it; read again when the server answers 401, so that keys can be rotated
    /// without a restart.
    File(PathBuf),
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Value(_) => f.write_str("Value([hidden])"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

/// Why options are refused, or an engine does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Neither a URL nor a command.
    #[error("an engine needs the URL of a server or a command that starts one")]
    NoServer,
    /// The URL cannot be used.
    #[error("{url:?} is no base URL of an OpenAI API: {reason}")]
    Url {
        /// The URL.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Two models under one name.
    #[error("two models are named {0:?}")]
    DuplicateModel(String),
    /// The API key's file cannot be read.
    #[error("the API key in {path} cannot be used: {reason}")]
    ApiKey {
        /// The file, or where else it came from.
        path: String,
        /// Why; never the key.
        reason: String,
    },
    /// The server process cannot be started.
    #[error("{0}")]
    Command(#[from] super::supervisor::SpawnError),
    /// TLS or another part of the HTTP client cannot be set up.
    #[error("the HTTP client cannot be set up: {0}")]
    Client(String),
    /// The model's file cannot be read (engine `llama`).
    #[error("the model file {path} cannot be read: {reason}")]
    ModelFile {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// A model to serve: `NAME`, or `NAME=UPSTREAM` where the server calls it otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelSpec {
    /// The name for clients.
    pub name: String,
    /// The name at the server.
    pub upstream: String,
}

/// The text is no model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelSpecError {
    /// A name is missing.
    #[error("{0:?} is no model: expected NAME or NAME=UPSTREAM")]
    Empty(String),
    /// A name is too long.
    #[error("a model's name has at most {MAX_MODEL_NAME} bytes: {0:?}")]
    TooLong(String),
}

impl FromStr for ModelSpec {
    type Err = ModelSpecError;
    fn from_str(text: &str) -> Result<Self, ModelSpecError> {
        let (name, upstream) = text.split_once('=').unwrap_or((text, text));
        let (name, upstream) = (name.trim(), upstream.trim());
        if name.is_empty() || upstream.is_empty() {
            return Err(ModelSpecError::Empty(text.to_owned()));
        }
        if name.len() > MAX_MODEL_NAME {
            return Err(ModelSpecError::TooLong(name.to_owned()));
        }
        Ok(Self {
            name: name.to_owned(),
            upstream: upstream.to_owned(),
        })
    }
}

impl OpenAiOptions {
    /// Checks what can be checked without a server.
    pub(super) fn check(&self) -> Result<(), StartError> {
        if self.url.is_none() && self.command.is_none() {
            return Err(StartError::NoServer);
        }
        let mut names = BTreeSet::new();
        for model in &self.models {
            if !names.insert(model.name.as_str()) {
                return Err(StartError::DuplicateModel(model.name.clone()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn models_may_have_another_name_upstream() {
        let spec: ModelSpec = "small=meta/llama:8b".parse().unwrap();
        assert_eq!((spec.name.as_str(), spec.upstream.as_str()), ("small", "meta/llama:8b"));
        let spec: ModelSpec = " qwen2.5:0.5b ".parse().unwrap();
        assert_eq!(
            (spec.name.as_str(), spec.upstream.as_str()),
            ("qwen2.5:0.5b", "qwen2.5:0.5b")
        );
        let spec: ModelSpec = "a=b=c".parse().unwrap();
        assert_eq!((spec.name.as_str(), spec.upstream.as_str()), ("a", "b=c"));
    }

    #[test]
    fn no_name_and_an_endless_name_are_refused() {
        for bad in ["", "=", "a=", "=b", "  "] {
            assert_eq!(bad.parse::<ModelSpec>(), Err(ModelSpecError::Empty(bad.to_owned())));
        }
        let long = "x".repeat(MAX_MODEL_NAME + 1);
        assert_eq!(long.parse::<ModelSpec>(), Err(ModelSpecError::TooLong(long.clone())));
    }

    #[test]
    fn options_without_a_server_and_with_a_name_twice_are_refused() {
        assert!(matches!(OpenAiOptions::default().check(), Err(StartError::NoServer)));
        let options = OpenAiOptions {
            url: Some("http://h/v1".to_owned()),
            models: vec!["a=x".parse().unwrap(), "a=y".parse().unwrap()],
            ..OpenAiOptions::default()
        };
        assert!(matches!(options.check(), Err(StartError::DuplicateModel(name)) if name == "a"));
    }
}
