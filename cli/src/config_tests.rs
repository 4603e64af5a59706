//! Tests of the settings' precedence and of what the file may not say.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Toy {
    #[arg(long, global = true, default_value = "info")]
    log: String,
    #[command(subcommand)]
    sub: Sub,
}

#[derive(Debug, clap::Subcommand)]
enum Sub {
    Worker(Worker),
    Gateway {
        #[arg(long)]
        listen: Option<String>,
        #[arg(long)]
        namespace: Option<String>,
        #[arg(long)]
        models: Option<String>,
    },
    Keys {
        #[command(subcommand)]
        action: Action,
    },
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    List {
        #[arg(long)]
        namespace: Option<String>,
        #[arg(long, required = true)]
        keys: Option<String>,
    },
}

#[derive(Debug, clap::Args)]
struct Worker {
    #[arg(long, default_value_t = 4)]
    slots: u16,
    #[arg(long)]
    model: Vec<String>,
    #[arg(long, value_delimiter = ',')]
    nats: Vec<String>,
    #[arg(long)]
    quiet: bool,
    #[arg(long, required = true)]
    engine: String,
    #[arg(long)]
    rate: Option<f64>,
    #[arg(long)]
    limit: Option<Size>,
    #[arg(long, value_parser = crate::shared::duration, default_value = "1s")]
    sim_ttft: std::time::Duration,
    #[arg(long)]
    namespace: Option<String>,
    #[arg(long, value_enum)]
    log_format: Option<crate::shared::LogFormat>,
}

fn parse(file: &str, environment: &[(&str, &str)], arguments: &[&str]) -> Result<Toy, String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokenbus.toml");
    std::fs::write(&path, file).unwrap();
    let mut arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
    arguments.splice(0..0, ["toy".into(), "--config".into(), path.into_os_string()]);
    let variable = |name: &str| {
        environment
            .iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| OsString::from(value))
    };
    // The command knows no --config itself here; clap's own env look-up is not used either.
    let command =
        fold(<Toy as clap::CommandFactory>::command(), &arguments, variable).map_err(|error| error.to_string())?;
    arguments.drain(1..3);
    let matches = command
        .try_get_matches_from(arguments)
        .map_err(|error| error.to_string())?;
    <Toy as clap::FromArgMatches>::from_arg_matches(&matches).map_err(|error| error.to_string())
}

fn worker(toy: Toy) -> Worker {
    match toy.sub {
        Sub::Worker(worker) => worker,
        Sub::Gateway { .. } | Sub::Keys { .. } => panic!("a worker was asked for"),
    }
}

#[test]
fn the_file_gives_defaults_and_flags_win() {
    let file = "log = 'debug'\nnats = ['nats://a', 'nats://b']\n[worker]\nslots = 9\nengine = 'sim'\n\
                model = ['x', 'y']\nquiet = true\nrate = 2\nsim-ttft = '20ms'\n";
    let toy = parse(file, &[], &["worker", "--slots", "7"]).unwrap();
    assert_eq!(toy.log, "debug");
    let worker = worker(toy);
    assert_eq!(worker.slots, 7);
    assert_eq!(worker.model, ["x", "y"]);
    assert_eq!(worker.nats, ["nats://a", "nats://b"]);
    assert_eq!(worker.engine, "sim");
    assert!(worker.quiet);
    assert_eq!(worker.rate, Some(2.0));
    assert_eq!(worker.sim_ttft, std::time::Duration::from_millis(20));
}

#[test]
fn a_repeatable_flag_replaces_the_files_array() {
    let file = "[worker]\nengine = 'sim'\nmodel = ['x', 'y']\n";
    assert_eq!(
        worker(parse(file, &[], &["worker", "--model", "z"]).unwrap()).model,
        ["z"]
    );
}

#[test]
fn a_subcommands_table_wins_over_the_root() {
    let file = "namespace = 'root'\n[worker]\nengine = 'sim'\nnamespace = 'own'\n";
    assert_eq!(
        worker(parse(file, &[], &["worker"]).unwrap()).namespace.as_deref(),
        Some("own")
    );
    let toy = parse(file, &[], &["gateway"]).unwrap();
    let Sub::Gateway { namespace, listen, .. } = toy.sub else {
        panic!("a gateway was asked for")
    };
    assert_eq!((namespace.as_deref(), listen), (Some("root"), None));
}

#[test]
fn a_subcommand_below_a_subcommand_has_its_settings_too() {
    let file = "namespace = 'root'\n[keys]\nkeys = 'file'\n";
    let listed = |environment: &[(&str, &str)]| match parse(file, environment, &["keys", "list"]).unwrap().sub {
        Sub::Keys {
            action: Action::List { namespace, keys },
        } => (namespace.unwrap(), keys.unwrap()),
        other => panic!("{other:?}"),
    };
    assert_eq!(listed(&[]), ("root".into(), "file".into()));
    let command = variables::attach(<Toy as clap::CommandFactory>::command(), &|_| None);
    let list = command
        .find_subcommand("keys")
        .unwrap()
        .find_subcommand("list")
        .unwrap();
    let keys = list.get_arguments().find(|arg| arg.get_long() == Some("keys")).unwrap();
    assert_eq!(keys.get_env().unwrap(), "TOKENBUS_KEYS");
    let error = parse("[keys]\nkey = 'x'", &[], &["keys", "list"]).unwrap_err();
    assert!(
        error.contains("unknown key keys.key; known here: keys, namespace"),
        "{error}"
    );
}

#[test]
fn a_table_of_models_makes_its_file_the_file_of_models() {
    let models = |file: &str, arguments: &[&str]| match parse(file, &[], arguments).unwrap().sub {
        Sub::Gateway { models, .. } => models,
        other => panic!("{other:?}"),
    };
    let file = "[models.a]\ntargets = ['b']\n[gateway]\nlisten = 'x'\n";
    assert!(models(file, &["gateway"]).unwrap().ends_with("tokenbus.toml"));
    assert_eq!(models(file, &["gateway", "--models", "m"]).as_deref(), Some("m"));
    assert_eq!(
        models("[gateway]\nmodels = 'n'\n[models.a]\n", &["gateway"]).as_deref(),
        Some("n")
    );
    assert_eq!(models("[gateway]\n", &["gateway"]), None);
    let error = parse("models = 'x'", &[], &["gateway"]).unwrap_err();
    assert!(error.contains("models must be a table"), "{error}");
}

#[test]
fn unknown_keys_are_named_with_the_file() {
    for (file, key) in [
        ("slots = 3", "unknown key slots;"),
        ("[worker]\nslotz = 3", "unknown key worker.slotz;"),
        ("[gateway]\nslots = 3", "unknown key gateway.slots;"),
        ("[wrker]\nslots = 3", "unknown key wrker;"),
    ] {
        let error = parse(file, &[], &["gateway"]).unwrap_err();
        assert!(error.contains(key) && error.contains("tokenbus.toml"), "{error}");
    }
    let error = parse("[worker]\nslotz = 3", &[], &["gateway"]).unwrap_err();
    assert!(error.contains("slots"), "{error}");
}

#[test]
fn wrong_types_and_values_are_named_even_for_another_subcommand() {
    for (file, part) in [
        (
            "[worker]\nslots = 'many'",
            "worker.slots must be a whole number, not a string",
        ),
        (
            "[worker]\nslots = 70000",
            "worker.slots cannot be \"70000\": 70000 is not in 0..=65535",
        ),
        ("[worker]\nslots = [1]", "worker.slots takes one value, not an array"),
        (
            "[worker]\nmodel = [1]",
            "worker.model must be a string, not a whole number",
        ),
        (
            "[worker]\nquiet = 'yes'",
            "worker.quiet must be true or false, not a string",
        ),
        ("[worker]\nsim-ttft = 'soon'", "worker.sim-ttft cannot be \"soon\""),
        (
            "log-format = 'xml'",
            "log-format cannot be \"xml\": [possible values: text, json]",
        ),
        ("worker = 3", "worker must be a table"),
        ("log = 3", "log must be a string, not a whole number"),
        ("log = ", "line 1"),
    ] {
        let error = parse(file, &[], &["gateway"]).unwrap_err();
        assert!(error.contains(part) && error.contains("tokenbus.toml"), "{error}");
    }
}

#[test]
fn a_zero_duration_needs_no_unit() {
    for zero in ["0", "'0'", "'0s'"] {
        let file = format!("[worker]\nengine = 'sim'\nsim-ttft = {zero}");
        assert!(worker(parse(&file, &[], &["worker"]).unwrap()).sim_ttft.is_zero());
    }
}

#[test]
fn a_missing_file_is_an_error() {
    let arguments = ["toy".into(), "--config=/nonexistent/x.toml".into()];
    let command = <Toy as clap::CommandFactory>::command();
    let error = fold(command, &arguments, |_| None).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/x.toml"), "{error}");
}

#[test]
fn the_file_can_be_named_by_the_environment_and_the_last_flag_counts() {
    let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
    assert_eq!(
        file_argument(&words(&["x", "--config", "a", "--config=b"])),
        Some("b".into())
    );
    assert_eq!(file_argument(&words(&["x", "--", "--config", "a"])), None);
    let command = <Toy as clap::CommandFactory>::command();
    let error = fold(command, &[], |name| {
        (name == "TOKENBUS_CONFIG").then(|| "/nonexistent/y.toml".into())
    });
    assert!(error.unwrap_err().to_string().contains("/nonexistent/y.toml"));
}

#[test]
fn a_size_is_written_alike_in_the_file_and_in_flags() {
    let limit = |value: &str| {
        let file = format!("[worker]\nengine = 'sim'\nlimit = {value}\n");
        parse(&file, &[], &["worker"]).map(|toy| worker(toy).limit.unwrap().0)
    };
    assert_eq!(limit("'32MiB'"), Ok(32 << 20));
    assert_eq!(limit("33554432"), Ok(32 << 20));
    assert!(limit("'much'").unwrap_err().contains("512KiB"));
    assert!(limit("1.5").unwrap_err().contains("32MiB"));
}
