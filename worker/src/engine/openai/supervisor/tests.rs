//! The supervisor with real processes.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use nix::sys::signal::kill;
use nix::unistd::Pid;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

fn shell(script: &str, folder: &Path) -> EngineCommand {
    EngineCommand::new(vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()], folder)
}

/// Waits for a state; each change is an event.
async fn state(states: &mut watch::Receiver<ProcessState>, wanted: impl Fn(&ProcessState) -> bool) -> ProcessState {
    tokio::time::timeout(PATIENCE, states.wait_for(|state| wanted(state)))
        .await
        .unwrap()
        .unwrap()
        .clone()
}

/// Waits for a line in the log. The log has no event for it, so this looks again and again.
async fn line(supervisor: &Supervisor, wanted: impl Fn(&str) -> bool) -> String {
    let looking = async {
        loop {
            if let Some(line) = supervisor.log_tail().into_iter().find(|line| wanted(line)) {
                return line;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.unwrap()
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

async fn gone(pid: i32) {
    let looking = async {
        while runs(pid) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.unwrap();
}

#[tokio::test]
async fn a_program_that_is_not_there_is_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let command = EngineCommand::new(vec!["/no/such/program".to_owned()], folder.path());
    let error = Supervisor::start(command, Address::FreePort).await.err().unwrap();
    assert!(matches!(error, SpawnError::Failed { .. }), "{error}");
    assert!(error.to_string().contains("/no/such/program"));
    let nothing = EngineCommand::new(Vec::new(), folder.path());
    assert!(matches!(
        Supervisor::start(nothing, Address::FreePort).await,
        Err(SpawnError::Empty)
    ));
}

#[tokio::test]
async fn host_and_port_are_told_in_words_and_environment() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = shell("echo $0 $HOST:$PORT $EXTRA; read wait", folder.path());
    command.words.push("{host}:{port}".to_owned());
    command.env.push(("EXTRA".to_owned(), "x{port}".to_owned()));
    let supervisor = Supervisor::start(command, Address::FreePort).await.unwrap();
    let port = supervisor.port();
    let told = line(&supervisor, |line| line.contains("127.0.0.1")).await;
    assert_eq!(told, format!("127.0.0.1:{port} 127.0.0.1:{port} x{port}"));
    assert!(std::fs::read_to_string(supervisor.log_path()).unwrap().contains(&told));
    supervisor.stop().await;
}

#[tokio::test]
async fn a_dead_server_is_started_again_and_its_death_explained() {
    let folder = tempfile::tempdir().unwrap();
    let script = "echo life >> lives; echo last words >&2; [ $(wc -l < lives) -ge 3 ] && read wait; exit 7";
    let mut command = shell(script, folder.path());
    command.words[2] = format!("cd {}; {script}", folder.path().display());
    let supervisor = Supervisor::start(command, Address::FreePort).await.unwrap();
    let mut states = supervisor.handle().states();
    let ProcessState::Gone { reason } = state(&mut states, |state| matches!(state, ProcessState::Gone { .. })).await
    else {
        panic!("not gone");
    };
    assert!(reason.contains('7'), "{reason}");
    assert_eq!(supervisor.log_tail(), ["last words"]);
    let lives = || {
        std::fs::read_to_string(folder.path().join("lives"))
            .unwrap_or_default()
            .lines()
            .count()
    };
    let third = async {
        // The script has no other way to tell that it lives.
        while lives() < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, third).await.unwrap();
    state(&mut states, |state| matches!(state, ProcessState::Running { .. })).await;
    supervisor.stop().await;
}

#[tokio::test]
async fn stopping_leaves_nobody_behind_and_returns_when_they_are_gone() {
    let folder = tempfile::tempdir().unwrap();
    let script = "trap 'echo asked; exit 0' TERM; sleep 1000 & echo child $!; echo self $$; wait";
    let supervisor = Supervisor::start(shell(script, folder.path()), Address::FreePort)
        .await
        .unwrap();
    let pid = |line: &str| line.split(' ').nth(1).unwrap().parse::<i32>().unwrap();
    let child = pid(&line(&supervisor, |line| line.starts_with("child")).await);
    let leader = pid(&line(&supervisor, |line| line.starts_with("self")).await);
    assert!(runs(child) && runs(leader));
    supervisor.stop().await;
    assert!(!runs(leader), "stop returned too early");
    assert_eq!(
        supervisor.log_tail().last().map(String::as_str),
        Some("asked"),
        "its last words are kept"
    );
    gone(child).await;
    supervisor.stop().await;
}

#[tokio::test]
async fn dropping_the_supervisor_kills_the_group() {
    let folder = tempfile::tempdir().unwrap();
    let script = "trap '' TERM; sleep 1000 & echo child $!; wait; sleep 1000";
    let supervisor = Supervisor::start(shell(script, folder.path()), Address::FreePort)
        .await
        .unwrap();
    let child = line(&supervisor, |line| line.starts_with("child")).await;
    let child: i32 = child.split(' ').nth(1).unwrap().parse().unwrap();
    drop(supervisor);
    gone(child).await;
}

#[tokio::test]
async fn an_order_to_restart_ends_the_process_and_starts_another() {
    let folder = tempfile::tempdir().unwrap();
    let script = "echo self $$; exec sleep 1000";
    let supervisor = Supervisor::start(shell(script, folder.path()), Address::FreePort)
        .await
        .unwrap();
    let first = line(&supervisor, |line| line.starts_with("self")).await;
    let mut states = supervisor.handle().states();
    supervisor.handle().restart();
    state(&mut states, |state| matches!(state, ProcessState::Gone { .. })).await;
    let second = line(&supervisor, |line| line.starts_with("self") && line != first).await;
    gone(first.split(' ').nth(1).unwrap().parse().unwrap()).await;
    assert!(runs(second.split(' ').nth(1).unwrap().parse().unwrap()));
    supervisor.stop().await;
}

#[test]
fn addresses_of_urls() {
    let fixed = |host: &str, port| Address::Fixed {
        host: host.to_owned(),
        port,
    };
    assert_eq!(Address::fixed("localhost:8000"), fixed("localhost", 8000));
    assert_eq!(Address::fixed("h"), fixed("h", 80));
    assert_eq!(Address::fixed("[::1]:8000"), fixed("::1", 8000));
    assert_eq!(Address::fixed("[::1]"), fixed("::1", 80));
}
