//! Real children: none is left behind, however its parent ends.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

use std::io::BufRead as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::kill;
use nix::unistd::Pid;
use tokenbus_process::{Lines, Process, output};
use tokio::io::AsyncWriteExt as _;
use tokio::process::{ChildStdout, Command};

const PATIENCE: Duration = Duration::from_secs(20);

fn shell(script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    command
}

async fn start(script: &str) -> (Process, Lines<ChildStdout>) {
    let mut process = Process::start(shell(script)).await.unwrap();
    let lines = Lines::new(process.take_stdout().unwrap(), 1000);
    (process, lines)
}

/// The process id that the child writes in its next line.
async fn pid(lines: &mut Lines<ChildStdout>) -> i32 {
    lines.next().await.unwrap().parse().unwrap()
}

/// Whether a process runs; one that waits to be reaped does not.
fn runs(pid: i32) -> bool {
    let zombie = std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        stat.rsplit(") ")
            .next()
            .is_some_and(|rest| rest.starts_with(['Z', 'X']))
    });
    kill(Pid::from_raw(pid), None).is_ok() && !zombie
}

/// Waits for the end of a process that is not our child: it has no event.
fn gone(pid: i32) {
    let since = Instant::now();
    while runs(pid) {
        assert!(since.elapsed() < PATIENCE, "process {pid} is still there");
        #[allow(clippy::disallowed_methods)]
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Starts a child from a thread that ends as soon as it runs.
fn started_by_a_short_lived_thread(script: &'static str) -> (Process, Lines<ChildStdout>) {
    let runtime = tokio::runtime::Handle::current();
    std::thread::spawn(move || runtime.block_on(start(script)))
        .join()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_child_outlives_the_thread_that_asked_for_it() {
    let (mut process, mut lines) = started_by_a_short_lived_thread("read word; echo $word");
    // Had the death signal belonged to the thread, it would have come by now: a child that is killed answers nothing.
    let mut stdin = process.take_stdin().unwrap();
    stdin.write_all(b"alive\n").await.unwrap();
    assert_eq!(lines.next().await.as_deref(), Some("alive"));
    assert!(process.wait().await.unwrap().success());
}

/// Run by the next test in a process of its own, which is then killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "only as a child of the test below"]
async fn parent_to_be_killed() {
    let script = "trap '' TERM HUP; echo $$; while :; do sleep 1000; done";
    let (_first, mut lines) = start(script).await;
    let (_second, mut more) = started_by_a_short_lived_thread(script);
    eprintln!("child {}", pid(&mut lines).await);
    eprintln!("child {}", pid(&mut more).await);
    std::future::pending::<()>().await;
}

#[cfg(target_os = "linux")]
#[test]
fn no_child_outlives_a_parent_that_is_killed() {
    let mut parent = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "parent_to_be_killed", "--ignored", "--nocapture"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = std::io::BufReader::new(parent.stderr.take().unwrap()).lines();
    let children: Vec<i32> = lines
        .map(Result::unwrap)
        .filter_map(|line| Some(line.strip_prefix("child ")?.parse().unwrap()))
        .take(2)
        .collect();
    assert!(children.len() == 2 && children.iter().all(|child| runs(*child)));
    parent.kill().unwrap();
    parent.wait().unwrap();
    children.into_iter().for_each(gone);
}

#[tokio::test]
async fn a_child_that_ignores_sigterm_is_killed() {
    let (process, mut lines) = start("trap '' TERM; echo $$; while :; do sleep 1000; done").await;
    let pid = pid(&mut lines).await;
    process.stop(Duration::from_millis(50)).await;
    assert!(!runs(pid));
}

#[tokio::test]
async fn stop_lets_the_child_end_in_order_and_kills_its_descendants() {
    let descendant = "(trap '' TERM; echo $(exec sh -c 'echo $PPID'); while :; do sleep 1000; done) &";
    let (process, mut lines) = start(&format!("{descendant} trap 'echo in order; exit 0' TERM; wait; wait")).await;
    let descendant = pid(&mut lines).await;
    assert!(runs(descendant));
    process.stop(PATIENCE).await;
    assert_eq!(lines.next().await.as_deref(), Some("in order"));
    gone(descendant);
}

#[tokio::test]
async fn dropping_a_process_kills_its_group() {
    let (process, mut lines) = start("trap '' TERM; sleep 1000 & echo $!; echo $$; wait; sleep 1000").await;
    let (descendant, leader) = (pid(&mut lines).await, pid(&mut lines).await);
    assert!(runs(descendant) && runs(leader));
    drop(process);
    gone(descendant);
    gone(leader);
}

#[tokio::test]
async fn output_is_returned_and_a_missing_program_is_an_error() {
    let output = output(shell("cat; echo out; echo err >&2; exit 3")).await.unwrap();
    assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
    assert_eq!(output.status.code(), Some(3));
    assert!(
        tokenbus_process::output(Command::new("/no/such/program"))
            .await
            .is_err()
    );
}

#[tokio::test]
async fn output_that_nobody_waits_for_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let script = format!("echo $$ > {0}.new; mv {0}.new {0}; sleep 1000", file.display());
    let written = async {
        // The script has no other way to tell that it runs: its output is being collected.
        while !file.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        _ = output(shell(&script)) => panic!("it ended"),
        () = written => {}
    }
    gone(std::fs::read_to_string(&file).unwrap().trim().parse().unwrap());
}

/// Prints what a child inherits; run by the test below in a process with secrets.
#[tokio::test]
#[ignore = "run by another test"]
async fn a_child_that_prints_its_environment() {
    let mut command = Command::new("env");
    command.stdout(Stdio::inherit()).env("TOKENBUS_GIVEN", "on purpose");
    let mut child = Process::start(command).await.unwrap();
    assert!(child.wait().await.unwrap().success());
}

#[test]
fn children_inherit_no_settings_and_no_keys() {
    let secrets = [
        ("TOKENBUS_NATS", "nats://user:s3cret@bus"),
        ("TOKENBUS_ENGINE_API_KEY", "s3cret"),
        ("CREDENTIALS_DIRECTORY", "/run/s3cret"),
        ("OPENAI_API_KEY", "s3cret"),
    ];
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "a_child_that_prints_its_environment",
            "--ignored",
            "--nocapture",
        ])
        .envs(secrets)
        .envs([("HF_TOKEN", "for the engine"), ("TOKENBUS_GIVEN", "by accident")])
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{printed}");
    assert!(
        printed.contains("HF_TOKEN=for the engine") && printed.contains("TOKENBUS_GIVEN=on purpose"),
        "{printed}"
    );
    for (name, _) in secrets {
        assert!(!printed.contains(name), "{name}: {printed}");
    }
    assert!(!printed.contains("s3cret"), "{printed}");
}
