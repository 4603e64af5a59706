//! The page of all settings, docs/configuration.md, from the command line's own definition: every flag with its variable, its
//! TOML key, its default and its meaning. Writing to a string cannot fail.

use std::fmt::Write as _;

use clap::{Arg, ArgAction, Command};

use crate::config::SHARED;

const HEAD: &str = "\
# Configuration

Every setting has one definition, from which its flag, its environment variable, its TOML key, its help and this page come.
A flag wins over its variable, that over the TOML file (`--config FILE` or `TOKENBUS_CONFIG`), that over the default. An
empty variable counts as not set. A file with an unknown key, or a value that a setting does not take, ends the process with
exit status 2 and a message that names it.

```toml
nats = [\"nats://10.0.0.5:4222\"]     # what several subcommands share is at the root

[gateway]                            # the rest is in the subcommand's table
listen = \"0.0.0.0:8080\"
body-limit = \"32MiB\"

[worker]
engine = \"openai\"
url = \"http://127.0.0.1:8000/v1\"
```

Durations are written as in `500ms`, `30s`, `10m`, `24h`; sizes as bytes or as in `64KiB`, `32MiB`, `1GiB`. Flags that can be
repeated are arrays in TOML; in a variable, where a list is possible, the values are separated by commas. Switches are
`true` or `false` there.

Aliases, defaults, workers and prices of models are in tables `[models.\"NAME\"]` ([models](models.md)). The variables of OpenTelemetry are in
[traces](tracing.md).

`tokenbus man --markdown FOLDER` writes this page; a test fails when it is old.
";

/// The rows of one subcommand and of those below it.
fn describe(page: &mut String, path: &[&str], command: &Command) {
    let own = |arg: &&Arg| !arg.is_hide_set() && !is_shared(arg) && !is_builtin(arg);
    let args: Vec<&Arg> = command.get_arguments().filter(own).collect();
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    if !path.is_empty() {
        let _ = write!(page, "\n## {}\n\n{about}.\n", path.join(" "));
        if command.get_arguments().any(is_shared) {
            page.push_str("Takes the settings of the bus.\n");
        }
        rows(page, &args, path.first().copied());
    }
    for sub in command
        .get_subcommands()
        .filter(|sub| !sub.is_hide_set() && sub.get_name() != "help")
    {
        let path: Vec<&str> = path.iter().copied().chain([sub.get_name()]).collect();
        describe(page, &path, sub);
    }
}

fn rows(page: &mut String, args: &[&Arg], table: Option<&str>) {
    if args.is_empty() {
        return;
    }
    page.push_str("\n| flag | variable | TOML | default | meaning |\n|---|---|---|---|---|\n");
    for arg in args {
        let variable = arg.get_env().map(|name| format!("`{}`", name.to_string_lossy()));
        let key = arg.get_long().map(|flag| match table {
            Some(table) => format!("`[{table}]` `{flag}`"),
            None => format!("`{flag}`"),
        });
        let (meaning, noted) = meaning(arg);
        let given: Vec<String> = arg
            .get_default_values()
            .iter()
            .map(|value| value.to_string_lossy().into_owned())
            .collect();
        let default = if given.is_empty() {
            noted
        } else {
            format!("`{}`", given.join(","))
        };
        let _ = writeln!(
            page,
            "| {} | {} | {} | {default} | {meaning} |",
            spelled(arg),
            variable.unwrap_or_default(),
            key.unwrap_or_default(),
        );
    }
}

/// The flag with what it takes.
fn spelled(arg: &Arg) -> String {
    let takes = !matches!(arg.get_action(), ArgAction::SetTrue | ArgAction::Count);
    let names = arg.get_value_names().unwrap_or_default();
    let value = names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    match arg.get_long() {
        None => format!("`{value}`"),
        Some(flag) if takes && !value.is_empty() => format!("`--{flag} {}`", value.replace('|', "\\|")),
        Some(flag) => format!("`--{flag}`"),
    }
}

/// What it means, and the default that its help tells in words.
fn meaning(arg: &Arg) -> (String, String) {
    let help = arg
        .get_long_help()
        .or(arg.get_help())
        .map(ToString::to_string)
        .unwrap_or_default();
    let help = help
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .replace('|', "\\|")
        .replace('<', "\\<");
    let (mut meaning, default) = match help.split_once(" [default: ") {
        Some((before, rest)) => (before.to_owned(), rest.trim_end_matches(']').to_owned()),
        None => (help, String::new()),
    };
    let values: Vec<String> = arg
        .get_possible_values()
        .iter()
        .map(|value| format!("`{}`", value.get_name()))
        .collect();
    if !values.is_empty() && !matches!(arg.get_action(), ArgAction::SetTrue) {
        let _ = write!(meaning, ": {}", values.join(", "));
    }
    (meaning, default)
}

fn is_shared(arg: &Arg) -> bool {
    arg.get_long().is_some_and(|flag| SHARED.contains(&flag))
}

fn is_builtin(arg: &Arg) -> bool {
    matches!(arg.get_long(), Some("help" | "version"))
}

/// One of each shared flag, wherever it is first defined.
fn shared<'c>(command: &'c Command, found: &mut Vec<&'c Arg>) {
    for arg in command.get_arguments().filter(|arg| is_shared(arg)) {
        if !found.iter().any(|known| known.get_long() == arg.get_long()) {
            found.push(arg);
        }
    }
    command.get_subcommands().for_each(|sub| shared(sub, found));
}

/// The page of all settings of `command`, whose flags have their variables.
pub(crate) fn page(command: &Command) -> String {
    let mut page = HEAD.to_owned();
    page.push_str("\n## The bus and the log, for every subcommand that has them\n");
    let mut everywhere = Vec::new();
    shared(command, &mut everywhere);
    rows(&mut page, &everywhere, None);
    describe(&mut page, &[], command);
    page
}
