//! The command line as its users meet it: help, settings, errors.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub
)]

mod common;

use common::{only_line, run, tokenbus};

const SUBCOMMANDS: [&str; 11] = [
    "up",
    "gateway",
    "worker",
    "coordinator",
    "chat",
    "drain",
    "health",
    "status",
    "top",
    "bench",
    "provision",
];

#[test]
fn help_lists_every_subcommand_and_each_has_its_own() {
    let home = tempfile::tempdir().unwrap();
    let help = run(tokenbus(home.path()).arg("--help"));
    assert_eq!(help.status, 0);
    for name in SUBCOMMANDS {
        assert!(
            help.stdout.contains(&format!("\n  {name} ")),
            "{name} in {}",
            help.stdout
        );
        let own = run(tokenbus(home.path()).args([name, "--help"]));
        assert_eq!(own.status, 0, "{name}: {}", own.stderr);
        assert!(own.stdout.contains("TOKENBUS_LOG"), "{name}: {}", own.stdout);
    }
    for part in ["flag wins over", "environment variable", "TOML"] {
        assert!(help.stdout.contains(part), "{part}");
    }
}

#[test]
fn the_flags_that_others_script_against_exist() {
    let home = tempfile::tempdir().unwrap();
    for (name, flags) in [
        (
            "gateway",
            &[
                "--nats",
                "--nats-creds",
                "--namespace",
                "--listen",
                "--log",
                "--log-format",
            ][..],
        ),
        (
            "coordinator",
            &["--nats", "--nats-creds", "--namespace", "--listen"][..],
        ),
        (
            "worker",
            &[
                "--nats",
                "--engine",
                "--url",
                "--model",
                "--slots",
                "--sim-ttft",
                "--sim-itl",
                "--model-path",
                "--engine-command",
            ][..],
        ),
        (
            "up",
            &[
                "--nats",
                "--listen",
                "--model",
                "--slots",
                "--ctx",
                "--threads",
                "--no-prompt",
                "--prompt",
            ][..],
        ),
        ("status", &["--nats", "--namespace"][..]),
    ] {
        let help = run(tokenbus(home.path()).args([name, "--help"])).stdout;
        for flag in flags {
            assert!(
                help.contains(&format!("{flag} ")) || help.contains(&format!("{flag}\n")),
                "{name} {flag}: {help}"
            );
            // Where subcommands differ in what a flag means, the variable names the subcommand.
            let plain = flag.trim_start_matches('-').to_uppercase().replace('-', "_");
            let several = ["LISTEN", "MODEL", "PROMPT", "SLOTS", "THREADS", "URL"].contains(&plain.as_str());
            let own = if several {
                format!("{}_", name.to_uppercase())
            } else {
                String::new()
            };
            let variable = format!("TOKENBUS_{own}{plain}");
            assert!(help.contains(&variable), "{name} {variable}");
        }
    }
}

#[test]
fn nothing_said_is_help_and_nonsense_is_status_2() {
    let home = tempfile::tempdir().unwrap();
    let nothing = run(&mut tokenbus(home.path()));
    assert_eq!(nothing.status, 2);
    assert!(nothing.stderr.contains("Usage: tokenbus"), "{}", nothing.stderr);
    let version = run(tokenbus(home.path()).arg("--version"));
    assert_eq!(version.stdout.trim(), concat!("tokenbus ", env!("CARGO_PKG_VERSION")));
    assert_eq!(run(tokenbus(home.path()).arg("nonsense")).status, 2);
}

#[test]
fn a_wrong_file_is_named_before_anything_starts() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("tokenbus.toml");
    for (text, part) in [
        ("nats = 'nats://127.0.0.1:1'\nslotz = 3\n", "unknown key slotz"),
        (
            "[gateway]\nlisten = 8080\n",
            "gateway.listen must be a string, not a whole number",
        ),
        (
            "[worker]\nslots = 'x'\n",
            "worker.slots must be a whole number, not a string",
        ),
        (
            "[worker]\nengine = 'cuda'\n",
            "worker.engine cannot be \"cuda\": [possible values: ",
        ),
        ("namespace = 'a.b'\n", "namespace cannot be \"a.b\""),
        ("[gateway\n", "not TOML"),
    ] {
        std::fs::write(&file, text).unwrap();
        let ended = run(tokenbus(home.path()).args(["gateway", "--config"]).arg(&file));
        assert_eq!(ended.status, 2, "{ended:?}");
        let line = only_line(&ended.stderr);
        assert!(
            line.starts_with("error: ") && line.contains(part) && line.contains("tokenbus.toml"),
            "{line}"
        );
    }
}

/// Flag, environment, file, default: each is seen in the address that the chat cannot reach.
#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("tokenbus.toml");
    std::fs::write(&file, "[chat]\nurl = 'http://127.0.0.1:3/file'\n").unwrap();
    let tried = |flag: Option<&str>, variable: Option<&str>, config: bool| {
        let mut command = tokenbus(home.path());
        command.args(["chat", "hello", "--model", "m"]);
        if let Some(url) = flag {
            command.args(["--url", url]);
        }
        if let Some(url) = variable {
            command.env("TOKENBUS_CHAT_URL", url);
        }
        if config {
            command.env("TOKENBUS_CONFIG", &file);
        }
        let ended = run(&mut command);
        assert_eq!(ended.status, 1, "{ended:?}");
        only_line(&ended.stderr).to_owned()
    };
    let (flag, variable) = ("http://127.0.0.1:1/flag", "http://127.0.0.1:2/env");
    assert!(tried(Some(flag), Some(variable), true).contains(flag));
    assert!(tried(None, Some(variable), true).contains(variable));
    assert!(tried(None, None, true).contains("http://127.0.0.1:3/file"));
    assert!(tried(None, Some(""), true).contains("http://127.0.0.1:3/file"));
}

#[test]
fn a_variable_whose_name_says_too_little_is_read_with_a_warning() {
    let home = tempfile::tempdir().unwrap();
    let mut command = tokenbus(home.path());
    command.args(["chat", "hello", "--model", "m"]);
    command.env("TOKENBUS_URL", "http://127.0.0.1:1/old");
    let ended = run(&mut command);
    let (warning, error) = ended.stderr.trim_end().split_once('\n').unwrap();
    assert!(
        warning.contains("TOKENBUS_URL") && warning.contains("TOKENBUS_CHAT_URL"),
        "{warning}"
    );
    assert!(error.contains("http://127.0.0.1:1/old"), "{error}");
}

#[test]
fn completions_and_manual_pages_are_made() {
    let home = tempfile::tempdir().unwrap();
    let shell = run(tokenbus(home.path()).args(["completions", "bash"]));
    assert!(shell.status == 0 && shell.stdout.contains("nats-config"), "{shell:?}");
    let pages = home.path().join("man");
    let man = run(tokenbus(home.path()).arg("man").arg(&pages));
    assert_eq!(man.status, 0, "{man:?}");
    for page in ["tokenbus.1", "tokenbus-worker.1"] {
        assert!(
            std::fs::read_to_string(pages.join(page)).unwrap().contains(".TH"),
            "{page}"
        );
    }
}

#[test]
fn a_log_filter_that_makes_no_sense_is_an_error() {
    let home = tempfile::tempdir().unwrap();
    let ended = run(tokenbus(home.path()).args(["chat", "x", "--log", "=x="]));
    assert_eq!(ended.status, 2);
    assert!(only_line(&ended.stderr).starts_with("error: --log"), "{}", ended.stderr);
}
