//! Logging in to NATS, and what NATS does not let a role do.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods
)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokenbus_tests::wait::eventually_in;
use tokenbus_tests::{Client, NatsOptions, NatsServer, Role, eventually};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// A line of a role's log is there this soon.
const SAID: Duration = Duration::from_secs(20);

async fn nats(extra: String) -> NatsServer {
    NatsServer::start_with(NatsOptions {
        extra,
        ..NatsOptions::default()
    })
    .await
}

/// The address of `server` with `login` in it.
fn with(login: &str, server: &NatsServer) -> String {
    format!("nats://{login}@127.0.0.1:{}", server.port())
}

#[tokio::test]
async fn a_login_in_the_address_is_used_at_its_server() {
    let user = nats("authorization { users: [ { user: u, password: \"p@ss/w\" } ] }".to_owned()).await;
    let worker = Role::sim("m", 1).start(&with("u:p%40ss%2Fw", &user)).await;
    drop(worker);
    let token = nats("authorization { token: s3cret }".to_owned()).await;
    // The first server refuses this login: the second is tried.
    let both = format!("{},{}", with("u:wrong", &user), with("s3cret", &token));
    let worker = Role::sim("m", 1).start(&both).await;
    drop(worker);
}

#[tokio::test]
async fn a_worker_joins_through_a_websocket() {
    let port = tokenbus_tests::port::lasting();
    let server = nats(format!("websocket {{ listen: \"127.0.0.1:{port}\", no_tls: true }}")).await;
    let worker = Role::sim("m", 1).start(&format!("ws://127.0.0.1:{port}")).await;
    drop((worker, server));
}

#[tokio::test]
async fn an_address_that_says_tls_gets_no_clear_text() {
    for scheme in ["tls", "wss"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let worker = Role::sim("m", 1).launch(&format!("{scheme}://u:secret@{address}"));
        // The first connection may only find out whether the server speaks first.
        for _ in 0..3 {
            let (mut socket, _) = tokenbus_tests::within("a connection", listener.accept()).await.unwrap();
            let info = b"INFO {\"server_id\":\"x\",\"version\":\"2.10.0\",\"max_payload\":1048576}\r\n";
            socket.write_all(info).await.unwrap();
            let mut came = vec![0; 4096];
            let read = tokio::time::timeout(Duration::from_millis(500), socket.read(&mut came));
            let length = read.await.map_or(0, |read| read.unwrap_or(0));
            let text = String::from_utf8_lossy(&came[..length]).into_owned();
            assert!(
                !text.contains("CONNECT") && !text.contains("secret"),
                "{scheme}: {text}"
            );
        }
        drop(worker);
    }
}

#[tokio::test]
async fn a_role_says_why_it_cannot_reach_nats() {
    let nowhere = format!("nats://127.0.0.1:{}", tokenbus_tests::port::lasting());
    for role in [Role::sim("m", 1), Role::gateway(), Role::coordinator()] {
        let role = role.launch(&nowhere);
        let said = |line: &str| (line.contains("cannot connect to NATS") && line.contains("refused")).then_some(());
        role.logs().wait_for(SAID, "why NATS is away", said).await;
    }
    let server = nats("authorization { users: [ { user: u, password: right } ] }".to_owned()).await;
    let (gateway, page) = with_page("gateway");
    let gateway = gateway.launch(&with("u:wrong", &server));
    let said = |line: &str| (line.contains("refuses the login") && !line.contains("wrong")).then_some(());
    gateway.logs().wait_for(SAID, "that the login is refused", said).await;
    let answer = page.get("/readyz").await;
    assert_eq!(answer.status, 503);
    // The whole reason is in the log: addresses are not for strangers.
    let text = answer.text();
    assert!(
        text.contains("NATS refuses the login") && !text.contains("nats://"),
        "{text}"
    );
}

#[tokio::test]
async fn a_role_says_within_two_seconds_that_nats_does_not_answer_and_where() {
    // It takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = silent.local_addr().unwrap().to_string();
    for address in [format!("nats://{silent}"), format!("tls://u:secret@{silent}")] {
        let begun = Instant::now();
        let role = Role::coordinator().launch(&address);
        let said = |line: &str| (line.contains("cannot connect to NATS") && line.contains(&silent)).then_some(());
        role.logs().wait_for(SAID, "that NATS is silent", said).await;
        // The time limit of an attempt is 3 s.
        assert!(begun.elapsed() < Duration::from_millis(2800), "{:?}", begun.elapsed());
        assert!(!role.logs().lines().iter().any(|line| line.contains("secret")));
    }
}

#[tokio::test]
async fn a_role_warns_of_clear_text_beyond_its_machine() {
    let clear = |line: &str| line.contains("clear text").then_some(());
    let role = Role::coordinator().launch("nats://u:secret@192.0.2.1:4222");
    role.logs().wait_for(SAID, "the warning", clear).await;
    assert!(!role.logs().lines().iter().any(|line| line.contains("secret")));
    let server = nats(String::new()).await;
    let role = Role::coordinator().start(&server.url()).await;
    assert!(!role.logs().lines().iter().any(|line| clear(line).is_some()));
}

/// Passes connections on to `server`, as a server of version `version`.
async fn dressed_as(version: &'static str, server: &NatsServer) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, port) = (listener.local_addr().unwrap(), server.port());
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut server = BufReader::new(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
            let mut info = String::new();
            server.read_line(&mut info).await.unwrap();
            let mut info: Value = serde_json::from_str(info.strip_prefix("INFO ").unwrap()).unwrap();
            info["version"] = json!(version);
            client.write_all(format!("INFO {info}\r\n").as_bytes()).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut server).await });
        }
    });
    format!("nats://{address}")
}

#[tokio::test]
async fn a_role_warns_once_of_a_server_with_known_holes() {
    let server = nats(String::new()).await;
    for (version, is_old) in [("2.12.6", true), ("2.12.7", false)] {
        let address = dressed_as(version, &server).await;
        let gateway = Role::gateway().start(&address).await;
        let told = || {
            gateway
                .logs()
                .lines()
                .iter()
                .filter(|line| line.contains("known holes"))
                .count()
        };
        eventually("the warning", async || {
            if told() == usize::from(is_old) {
                Ok(())
            } else {
                Err(told())
            }
        })
        .await;
    }
}

/// A role with a page that can be asked before it is ready, and the page's client.
fn with_page(role: &str) -> (Role, Client) {
    let address = SocketAddr::from(([127, 0, 0, 1], tokenbus_tests::port::lasting()));
    let role = Role::new(role).args(&["--listen", &address.to_string()]);
    (role, Client::new(address))
}

/// A server where `user` may do what `permissions` say, and `all` everything.
fn users(user: &str, permissions: &str) -> String {
    format!(
        "authorization {{ users: [ {{ user: all, password: x }}, \
         {{ user: {user}, password: x, permissions: {{ publish: \">\", subscribe: {permissions} }} }} ] }}"
    )
}

#[tokio::test]
async fn a_worker_that_may_not_hear_requests_is_not_announced() {
    let deafening = users("deaf", "{ allow: [\"_INBOX.>\", \"tb.v1.ctl.>\", \"$SRV.>\"] }");
    let server = nats(deafening.clone()).await;
    let coordinator = Role::coordinator().start(&with("all:x", &server)).await;
    let mut deaf = Role::sim("m", 1)
        .args(&["--id", "deaf"])
        .launch(&with("deaf:x", &server));
    let named =
        |line: &str| (line.contains("NATS refuses a subscription") && line.contains("tb.v1.req.m")).then_some(());
    deaf.logs().wait_for(SAID, "the refused subject", named).await;
    let state = async || {
        let capacity = coordinator.client().get("/capacity").await.ok();
        let workers = capacity["workers"].as_array().cloned().unwrap_or_default();
        let deaf = workers.iter().find(|worker| worker["worker"] == "deaf").cloned();
        deaf.map(|deaf| deaf["state"].clone())
    };
    eventually("the worker is known as one that cannot serve", async || {
        match state().await {
            Some(state) if state == json!("unavailable") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert!(!deaf.logs().lines().iter().any(|line| line.contains("worker ready")));
    // Its permissions are changed while it is connected.
    server.reconfigure(&deafening, &users("deaf", "\">\""));
    eventually_in(Duration::from_secs(40), "the worker is ready", async || {
        match state().await {
            Some(state) if state == json!("ready") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    deaf.stop().await;
}

#[tokio::test]
async fn a_gateway_or_coordinator_with_a_dead_ear_is_not_ready() {
    for (role, denied) in [
        ("gateway", "tb.v1.out.>"),
        ("gateway", "tb.v1.capacity"),
        ("gateway", "_INBOX.>"),
        ("coordinator", "tb.v1.status.*"),
    ] {
        let server = nats(users("half", &format!("{{ deny: [\"{denied}\"] }}"))).await;
        let (role, page) = with_page(role);
        let role = role.launch(&with("half:x", &server));
        let named = |line: &str| line.contains("NATS refuses a subscription").then_some(());
        role.logs().wait_for(SAID, denied, named).await;
        let answer = page.get("/readyz").await;
        assert_eq!(answer.status, 503, "{denied}");
        assert!(
            answer.text().contains("NATS refuses the subscription"),
            "{denied}: {}",
            answer.text()
        );
        assert!(
            !role.logs().lines().iter().any(|line| line.contains(" ready")),
            "{denied}"
        );
    }
}
