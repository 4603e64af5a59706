//! A real nats-server (on PATH, or provisioned into this machine's cache) under our supervision.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::net::TcpListener;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::net::TcpStream;

use super::*;
use crate::up::provision::Provisioner;

async fn program() -> PathBuf {
    let provisioner = Provisioner::from_env(Screen::stderr()).unwrap();
    provisioner.nats_server().await.expect("these tests need nats-server")
}

/// Connects and reads the server's greeting.
async fn try_greet(port: u16) -> std::io::Result<String> {
    let socket = TcpStream::connect(("127.0.0.1", port)).await?;
    let mut line = String::new();
    BufReader::new(socket).read_line(&mut line).await?;
    Ok(line)
}

async fn greet(port: u16) -> String {
    try_greet(port).await.unwrap()
}

/// The server's process: the one with our folder on its command line.
#[cfg(target_os = "linux")]
fn pid_in(folder: &Path) -> i32 {
    let own = folder.to_str().unwrap();
    let found = std::fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).into_owned();
        (line.contains("nats-server") && line.contains(own)).then_some(pid)
    });
    found.expect("the server runs")
}

#[tokio::test]
async fn it_starts_with_our_settings_and_is_gone_when_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let server = NatsServer::start(program().await, folder.path().to_owned(), Screen::stderr())
        .await
        .unwrap();
    let info = greet(server.port).await;
    assert!(
        info.contains("\"max_payload\":8000000") || info.contains("\"max_payload\":8388608"),
        "{info}"
    );
    assert!(info.contains("\"jetstream\":true"), "{info}");
    let connect = |credentials: Option<PathBuf>| async {
        let options = tokenbus_bus::BusOptions {
            urls: vec![server.url()],
            credentials,
            ..tokenbus_bus::BusOptions::default()
        };
        let bus = tokenbus_bus::Bus::connect(&options).await.unwrap();
        let connected = tokio::time::timeout(Duration::from_secs(2), bus.connected()).await;
        connected.is_ok()
    };
    assert!(connect(Some(server.credentials().to_owned())).await, "who has the key");
    assert!(!connect(None).await, "a stranger on this machine");
    // One cluster, one folder, one server.
    let second = NatsServer::start(program().await, folder.path().to_owned(), Screen::stderr()).await;
    assert!(matches!(second.unwrap_err(), NatsError::InUse(_)));
    let port = server.port;
    server.stop().await;
    assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err());
}

#[tokio::test]
async fn a_taken_port_means_another_one() {
    let folder = tempfile::tempdir().unwrap();
    let server = loop {
        // Whoever has it instead, another test maybe, may also give it back.
        let taken = TcpListener::bind(("127.0.0.1", USUAL_PORT));
        let server = NatsServer::start(program().await, folder.path().to_owned(), Screen::stderr())
            .await
            .unwrap();
        if server.port != USUAL_PORT {
            break server;
        }
        assert!(taken.is_err(), "a server on a port that is ours");
        server.stop().await;
    };
    assert!(greet(server.port).await.starts_with("INFO "));
    server.stop().await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_killed_server_comes_back_on_its_port() {
    let folder = tempfile::tempdir().unwrap();
    let server = NatsServer::start(program().await, folder.path().to_owned(), Screen::stderr())
        .await
        .unwrap();
    let socket = TcpStream::connect(("127.0.0.1", server.port)).await.unwrap();
    kill(Pid::from_raw(pid_in(folder.path())), Signal::SIGKILL).unwrap();
    // Read to the end of the old connection, then wait for the new server.
    let mut rest = Vec::new();
    drop(BufReader::new(socket).read_to_end(&mut rest).await);
    // A connection may be made before the server reads its configuration to the end and is then
    // reset: it is back when it greets.
    let back = async {
        while !try_greet(server.port).await.is_ok_and(|line| line.starts_with("INFO ")) {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), back)
        .await
        .unwrap();
    server.stop().await;
}

#[tokio::test]
async fn a_program_that_is_no_nats_server_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let error = NatsServer::start("/bin/false".into(), folder.path().join("x"), Screen::stderr()).await;
    assert!(matches!(error.unwrap_err(), NatsError::NotReady(_)));
    let error = NatsServer::start("/nonexistent".into(), folder.path().join("y"), Screen::stderr()).await;
    assert!(matches!(error.unwrap_err(), NatsError::Spawn { .. }));
}

#[test]
fn the_configuration_quotes_its_paths() {
    let text = configuration(None, Path::new("/a \"b\"/c"), "U");
    assert!(text.contains("port: -1\n"), "{text}");
    assert!(text.contains(r#"store_dir: "/a \"b\"/c""#), "{text}");
}
