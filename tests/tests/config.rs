//! Settings: what is wrong is refused by name, and one precedence rule holds.
#![allow(clippy::unwrap_used)]

use tokenbus_tests::limits::STOP;
use tokenbus_tests::{NatsServer, Role, binary, within};

#[tokio::test]
async fn nonsense_settings_are_refused_before_any_port_is_bound() {
    let folder = tempfile::tempdir().unwrap();
    let config = |text: &str| {
        let path = folder.path().join(format!("{}.toml", text.len()));
        std::fs::write(&path, text).unwrap();
        path.to_string_lossy().into_owned()
    };
    let misspelt = config("namespace = \"tb\"\n[gateway]\nlissten = \"127.0.0.1:0\"\n");
    let mistyped = config("[gateway]\nlisten = 8080\n");
    let broken = config("[gateway\n");
    let cases: [(&[&str], &str); 10] = [
        (&["gateway", "--config", &misspelt], "lissten"),
        (&["gateway", "--config", &mistyped], "listen"),
        (&["gateway", "--config", &broken], ".toml"),
        (
            &["gateway", "--config", "/nonexistent/tokenbus.toml"],
            "/nonexistent/tokenbus.toml",
        ),
        (&["gateway", "--listen", "nowhere"], "listen"),
        (&["gateway", "--nats", "http://127.0.0.1:1"], "http://127.0.0.1:1"),
        (&["coordinator", "--namespace", "a.b"], "namespace"),
        (&["worker", "--engine", "magic"], "magic"),
        (&["worker", "--engine", "sim", "--model", "m", "--slots", "0"], "slots"),
        (
            &[
                "worker",
                "--engine",
                "sim",
                "--model",
                "m",
                "--slots",
                "1",
                "--sim-ttft",
                "soon",
            ],
            "sim-ttft",
        ),
    ];
    for (args, blamed) in cases {
        let said = binary::run(STOP, args).await;
        assert!(said.code.is_some_and(|code| code != 0), "{args:?}: {said:?}");
        assert!(
            said.stderr.contains(blamed),
            "{args:?} does not name {blamed}: {}",
            said.stderr
        );
        assert!(!said.stderr.contains("panicked"), "{args:?}: {}", said.stderr);
    }
}

#[tokio::test]
async fn a_failed_bind_exits_with_an_error_that_names_the_address() {
    let nats = NatsServer::start().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for role in ["gateway", "coordinator"] {
        let said = binary::run(STOP, &[role, "--nats", &nats.url(), "--listen", &address]).await;
        assert!(said.code.is_some_and(|code| code != 0), "{said:?}");
        assert!(said.stderr.contains(&address), "{}", said.stderr);
    }
}

#[tokio::test]
async fn flags_win_over_the_environment_and_the_environment_over_the_file() {
    let nats = NatsServer::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenbus.toml");
    std::fs::write(
        &path,
        "namespace = \"file\"\n[worker]\nengine = \"sim\"\nmodel = [\"m\"]\nslots = 1\n",
    )
    .unwrap();
    let config = path.to_string_lossy().into_owned();
    let bus = nats.client().await;
    let worker = || Role::new("worker").args(&["--config", &config, "--id", "w1"]);
    let cases = [
        (worker(), "file"),
        (worker().env("TOKENBUS_NAMESPACE", "env"), "env"),
        (
            worker().env("TOKENBUS_NAMESPACE", "env").args(&["--namespace", "flag"]),
            "flag",
        ),
    ];
    for (role, namespace) in cases {
        let mut status = bus.subscribe(format!("{namespace}.v1.status.w1")).await.unwrap();
        let _worker = role.start(&nats.url()).await;
        within(
            "a status in the right namespace",
            futures_util::StreamExt::next(&mut status),
        )
        .await
        .unwrap();
    }
}
