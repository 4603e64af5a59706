//! Settings: one definition each (the clap argument), read from flag, environment, TOML file and
//! default, in this order.
//!
//! The file and the environment are folded into the clap command before it parses: a TOML value
//! becomes the argument's default, a variable its `env`. So `--help` shows what would apply, and
//! there is no second list of settings to keep in step.

use std::any::TypeId;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, Command};
use toml::{Table, Value};

use crate::size::Size;
use crate::variables;

/// The table at the root with the meaning of model names. Its file becomes the default of the flag with that name.
const MODELS: &str = "models";

/// Keys at the root of the file, for every subcommand that has them.
pub(crate) const SHARED: [&str; 9] = [
    "log",
    "log-format",
    "nats",
    "nats-creds",
    "nats-ca",
    "nats-tls-first",
    "namespace",
    "js-replicas",
    "js-domain",
];

/// Errors in the settings.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file is missing or cannot be read.
    #[error("cannot read the configuration {file}: {source}", file = file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{file}: not TOML: {reason}", file = file.display())]
    Syntax {
        /// The file.
        file: PathBuf,
        /// Line and cause.
        reason: String,
    },
    /// An unknown key.
    #[error("{file}: unknown key {key}; known here: {known}", file = file.display())]
    UnknownKey {
        /// The file.
        file: PathBuf,
        /// The key, with its table.
        key: String,
        /// The known keys in its place.
        known: String,
    },
    /// A value that the setting does not take.
    #[error("{file}: {key} {reason}", file = file.display())]
    Value {
        /// The file.
        file: PathBuf,
        /// The key, with its table.
        key: String,
        /// The fault of the value.
        reason: String,
    },
}

/// Returns `command` with environment variables and the TOML file, if `arguments` or the
/// environment name one, folded in.
///
/// # Errors
/// [`ConfigError`], naming the file and the key.
pub(crate) fn fold(
    command: Command,
    arguments: &[OsString],
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Command, ConfigError> {
    let file = file_argument(arguments).or_else(|| variable("TOKENBUS_CONFIG").filter(|value| !value.is_empty()));
    let command = variables::attach(command, &variable);
    let Some(file) = file.map(PathBuf::from) else {
        return Ok(command);
    };
    let text = std::fs::read_to_string(&file).map_err(|source| ConfigError::Read {
        file: file.clone(),
        source,
    })?;
    let table: Table = text.parse().map_err(|error: toml::de::Error| ConfigError::Syntax {
        file: file.clone(),
        reason: syntax_error(&text, &error),
    })?;
    with_file(command, &table, &file)
}

/// The value of the last `--config` among the arguments.
fn file_argument(arguments: &[OsString]) -> Option<OsString> {
    let mut found = None;
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument == "--" {
            break;
        }
        if argument == "--config" {
            found = rest.next().cloned();
        } else if let Some(value) = argument.to_str().and_then(|text| text.strip_prefix("--config=")) {
            found = Some(value.into());
        }
    }
    found
}

fn with_file(mut command: Command, table: &Table, file: &Path) -> Result<Command, ConfigError> {
    let subcommands: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    // Shared keys first, so that a subcommand's own table wins whatever the order in the file.
    for (key, value) in table.iter().filter(|(key, _)| !subcommands.contains(key)) {
        let value = if key == MODELS {
            &models_file(value, file)?
        } else {
            value
        };
        if key != MODELS && !SHARED.contains(&key.as_str()) {
            return Err(ConfigError::UnknownKey {
                file: file.to_owned(),
                key: key.clone(),
                known: known(
                    SHARED
                        .into_iter()
                        .chain([MODELS])
                        .chain(subcommands.iter().map(String::as_str)),
                ),
            });
        }
        command = set(command, key, value, key, file)?;
        for name in &subcommands {
            command = within(command, name, |sub| set_within(sub, key, value, key, file))?;
        }
    }
    for (name, value) in table.iter().filter(|(key, _)| subcommands.contains(key)) {
        let Value::Table(entries) = value else {
            return Err(ConfigError::Value {
                file: file.to_owned(),
                key: name.clone(),
                reason: format!("must be a table: write [{name}]"),
            });
        };
        command = within(command, name, |mut sub| {
            for (key, value) in entries {
                let full = format!("{name}.{key}");
                let longs = longs(&sub);
                if !longs.iter().any(|long| long == key) {
                    let known = known(longs.iter().map(String::as_str));
                    return Err(ConfigError::UnknownKey {
                        file: file.to_owned(),
                        key: full,
                        known,
                    });
                }
                sub = set_within(sub, key, value, &full, file)?;
            }
            Ok(sub)
        })?;
    }
    Ok(command)
}

/// The value that `models` at the root stands for: the file that holds it.
fn models_file(value: &Value, file: &Path) -> Result<Value, ConfigError> {
    let wrong = |reason: &str| ConfigError::Value {
        file: file.to_owned(),
        key: MODELS.to_owned(),
        reason: reason.to_owned(),
    };
    if !value.is_table() {
        return Err(wrong("must be a table: write [models.\"NAME\"]"));
    }
    let path = file.to_str();
    path.map(Value::from)
        .ok_or_else(|| wrong("cannot be in a file whose name is not UTF-8"))
}

/// The flags of a command and of its subcommands.
fn longs(command: &Command) -> Vec<String> {
    let own = command.get_arguments().filter_map(Arg::get_long).map(str::to_owned);
    let below = command.get_subcommands().flat_map(longs);
    own.chain(below).collect()
}

fn known<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut names: Vec<&str> = names.filter(|name| *name != "config").collect();
    names.sort_unstable();
    names.dedup();
    names.join(", ")
}

/// Applies a fallible change to one subcommand.
fn within(
    command: Command,
    name: &str,
    change: impl FnOnce(Command) -> Result<Command, ConfigError>,
) -> Result<Command, ConfigError> {
    let mut failed = None;
    let command = command.mut_subcommand(name, |sub| {
        let unchanged = sub.clone();
        change(sub).unwrap_or_else(|error| {
            failed = Some(error);
            unchanged
        })
    });
    failed.map_or(Ok(command), Err)
}

/// [`set`] for a command and all below it.
fn set_within(command: Command, flag: &str, value: &Value, key: &str, file: &Path) -> Result<Command, ConfigError> {
    let mut command = set(command, flag, value, key, file)?;
    let below: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    for name in &below {
        command = within(command, name, |sub| set_within(sub, flag, value, key, file))?;
    }
    Ok(command)
}

/// Makes `value` the default of the argument whose flag is `flag`, if the command has it.
fn set(command: Command, flag: &str, value: &Value, key: &str, file: &Path) -> Result<Command, ConfigError> {
    let Some(arg) = command.get_arguments().find(|arg| arg.get_long() == Some(flag)) else {
        return Ok(command);
    };
    let wrong = |reason| ConfigError::Value {
        file: file.to_owned(),
        key: key.to_owned(),
        reason,
    };
    let values = values_of(arg, value).map_err(wrong)?;
    for value in &values {
        check(arg, value).map_err(wrong)?;
    }
    let id = arg.get_id().clone();
    Ok(command.mut_arg(id, |arg| arg.required(false).default_values(values)))
}

/// The texts that a flag would get for `value`; an error if its type is wrong.
fn values_of(arg: &Arg, value: &Value) -> Result<Vec<String>, String> {
    if let Value::Array(items) = value {
        if !matches!(arg.get_action(), ArgAction::Append) {
            return Err("takes one value, not an array".to_owned());
        }
        return items.iter().map(|item| value_of(arg, item)).collect();
    }
    value_of(arg, value).map(|value| vec![value])
}

fn value_of(arg: &Arg, value: &Value) -> Result<String, String> {
    match (kind_of(arg), value) {
        (Kind::Bool, Value::Boolean(value)) => Ok(value.to_string()),
        (Kind::Integer | Kind::Float | Kind::Size, Value::Integer(value)) => Ok(value.to_string()),
        (Kind::Float, Value::Float(value)) => Ok(value.to_string()),
        (Kind::Text | Kind::Size, Value::String(value)) => Ok(value.clone()),
        // `0` needs no unit, and so no quotes.
        (Kind::Text, Value::Integer(0)) if is_duration(arg) => Ok("0".to_owned()),
        (kind, other) => Err(format!("must be {}, not {}", kind.described(), described(other))),
    }
}

/// Lets the argument's own parser judge the value.
fn check(arg: &Arg, value: &str) -> Result<(), String> {
    let alone = Arg::new("value")
        .long("value")
        .action(ArgAction::Append)
        .allow_hyphen_values(true)
        .value_parser(arg.get_value_parser().clone());
    let alone = match arg.get_value_delimiter() {
        Some(delimiter) => alone.value_delimiter(delimiter),
        None => alone,
    };
    let parsed = Command::new("value")
        .no_binary_name(true)
        .arg(alone)
        .try_get_matches_from([OsStr::new("--value"), OsStr::new(value)]);
    parsed.map(|_| ()).map_err(|error| {
        // "error: invalid value 'x' for '--value <value>': the parser's own words", or then
        // "[possible values: …]" on a line of its own.
        let text = error.to_string();
        let mut lines = text.lines().map(str::trim);
        let said = lines.next().unwrap_or_default();
        let words = said.rsplit_once("<value>': ").map(|(_, words)| words);
        let words = words.or_else(|| lines.find(|line| line.starts_with("[possible")));
        format!("cannot be {value:?}: {}", words.unwrap_or(said))
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bool,
    Integer,
    Float,
    Size,
    Text,
}

impl Kind {
    fn described(self) -> &'static str {
        match self {
            Self::Bool => "true or false",
            Self::Integer => "a whole number",
            Self::Float => "a number",
            Self::Size => "a size, as in \"32MiB\"",
            Self::Text => "a string",
        }
    }
}

fn kind_of(arg: &Arg) -> Kind {
    use std::num::{NonZeroU16, NonZeroU32, NonZeroU64, NonZeroUsize};
    if matches!(arg.get_action(), ArgAction::SetTrue | ArgAction::SetFalse) {
        return Kind::Bool;
    }
    let id = arg.get_value_parser().type_id();
    let is_one_of = |types: &[TypeId]| types.iter().any(|one| id == *one);
    let integers = [
        TypeId::of::<u8>(),
        TypeId::of::<u16>(),
        TypeId::of::<u32>(),
        TypeId::of::<u64>(),
        TypeId::of::<usize>(),
        TypeId::of::<i32>(),
        TypeId::of::<i64>(),
        TypeId::of::<NonZeroU16>(),
        TypeId::of::<NonZeroU32>(),
        TypeId::of::<NonZeroU64>(),
        TypeId::of::<NonZeroUsize>(),
    ];
    if is_one_of(&[TypeId::of::<bool>()]) {
        Kind::Bool
    } else if is_one_of(&[TypeId::of::<Size>()]) {
        Kind::Size
    } else if is_one_of(&integers) {
        Kind::Integer
    } else if is_one_of(&[TypeId::of::<f32>(), TypeId::of::<f64>()]) {
        Kind::Float
    } else {
        Kind::Text
    }
}

fn is_duration(arg: &Arg) -> bool {
    arg.get_value_parser().type_id() == TypeId::of::<std::time::Duration>()
}

fn described(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a string",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "an array",
        Value::Table(_) => "a table",
    }
}

/// toml's message is a picture of several lines; this is its line number and its cause.
fn syntax_error(text: &str, error: &toml::de::Error) -> String {
    let line = error
        .span()
        .and_then(|span| text.get(..span.start))
        .map_or(1, |before| before.matches('\n').count() + 1);
    format!("line {line}: {}", error.message())
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
