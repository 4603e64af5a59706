//! The environment variable of each flag.
//!
//! A flag has the variable `TOKENBUS_` and its name in capitals. Where subcommands use one name for different things, the
//! subcommand is in the variable too: `TOKENBUS_WORKER_URL` is the engine, `TOKENBUS_CHAT_URL` the gateway.

use std::ffi::OsString;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};

/// Flags that mean different things in different subcommands. The variable without the subcommand is still read, with a
/// warning.
pub(crate) const AMBIGUOUS: [&str; 11] = [
    "grace", "id", "json", "label", "listen", "model", "prompt", "slots", "threads", "timeout", "url",
];

/// Gives each flag its variable. An empty variable counts as not set (a compose file's `${X:-}`), where clap would parse
/// an empty value.
pub(crate) fn attach(command: Command, variable: &dyn Fn(&str) -> Option<OsString>) -> Command {
    within(command, None, variable)
}

fn within(command: Command, subcommand: Option<&str>, variable: &dyn Fn(&str) -> Option<OsString>) -> Command {
    let set = |arg: Arg| {
        let Some(flag) = arg.get_long() else { return arg };
        let own = own(flag, subcommand);
        let old = plain(flag);
        let is = |name: &str, empty: bool| variable(name).is_some_and(|value| value.is_empty() == empty);
        let name = if is(&own, false) || !is(&old, false) { own } else { old };
        let arg = if matches!(arg.get_action(), ArgAction::SetTrue) {
            arg.value_parser(clap::builder::BoolishValueParser::new())
        } else {
            arg
        };
        if is(&name, true) { arg } else { arg.env(name) }
    };
    let command = command.mut_args(set);
    command.mut_subcommands(|sub| {
        let name = subcommand.unwrap_or(sub.get_name()).to_owned();
        within(sub, Some(&name), variable)
    })
}

/// `sim-ttft` is `TOKENBUS_SIM_TTFT`.
fn plain(flag: &str) -> String {
    format!("TOKENBUS_{}", flag.to_ascii_uppercase().replace('-', "_"))
}

/// The variable of a flag of a subcommand.
fn own(flag: &str, subcommand: Option<&str>) -> String {
    match subcommand.filter(|_| AMBIGUOUS.contains(&flag)) {
        Some(subcommand) => plain(&format!("{subcommand}-{flag}")),
        None => plain(flag),
    }
}

/// The variables that gave a value and whose name says too little, each with the name that it should have.
pub(crate) fn old_names(command: &Command, matches: &ArgMatches) -> Vec<(String, String)> {
    let Some((subcommand, matches)) = matches.subcommand() else {
        return Vec::new();
    };
    let flags = command.find_subcommand(subcommand).into_iter();
    flags
        .flat_map(Command::get_arguments)
        .filter(|arg| matches.try_contains_id(arg.get_id().as_str()).unwrap_or(false))
        .filter(|arg| matches.value_source(arg.get_id().as_str()) == Some(ValueSource::EnvVariable))
        .filter_map(|arg| {
            let (flag, used) = (arg.get_long()?, arg.get_env()?.to_str()?.to_owned());
            let own = own(flag, Some(subcommand));
            (used != own).then_some((used, own))
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn toy() -> Command {
        let sub = |name: &'static str| {
            Command::new(name)
                .arg(Arg::new("url").long("url"))
                .arg(Arg::new("sim-ttft").long("sim-ttft"))
        };
        Command::new("toy").subcommand(sub("worker")).subcommand(sub("chat"))
    }

    /// The variable of a flag, where these variables are set.
    fn variable(subcommand: &str, flag: &str, set: &[(&str, &str)]) -> Option<String> {
        let command = attach(toy(), &|name| {
            let found = set.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| value.into())
        });
        let sub = command.find_subcommand(subcommand).unwrap();
        let arg = sub.get_arguments().find(|arg| arg.get_long() == Some(flag)).unwrap();
        arg.get_env().map(|name| name.to_str().unwrap().to_owned())
    }

    #[test]
    fn every_flag_has_its_variable_and_an_empty_one_is_none() {
        assert_eq!(
            variable("worker", "sim-ttft", &[]).as_deref(),
            Some("TOKENBUS_SIM_TTFT")
        );
        assert_eq!(variable("worker", "sim-ttft", &[("TOKENBUS_SIM_TTFT", "")]), None);
    }

    #[test]
    fn a_flag_with_several_meanings_has_a_variable_for_each_subcommand_and_the_old_one_is_still_read() {
        let url = |subcommand, set: &[(&str, &str)]| variable(subcommand, "url", set);
        assert_eq!(url("worker", &[]).as_deref(), Some("TOKENBUS_WORKER_URL"));
        assert_eq!(url("chat", &[]).as_deref(), Some("TOKENBUS_CHAT_URL"));
        let old = ("TOKENBUS_URL", "http://old");
        assert_eq!(url("worker", &[old]).as_deref(), Some("TOKENBUS_URL"));
        let both = [old, ("TOKENBUS_WORKER_URL", "http://new")];
        assert_eq!(url("worker", &both).as_deref(), Some("TOKENBUS_WORKER_URL"));
        assert_eq!(url("worker", &[("TOKENBUS_WORKER_URL", "")]), None);
    }
}
