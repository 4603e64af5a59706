//! `tokenbus health`: what a container's health check says of each role.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use tokenbus_tests::binary::run;
use tokenbus_tests::limits::PATIENCE;
use tokenbus_tests::{NatsServer, Role, eventually};

#[tokio::test]
async fn the_health_check_of_the_image_tells_well_from_ill() {
    let nats = NatsServer::start().await;
    let gateway = Role::gateway().start(&nats.url()).await;
    let address = gateway.address();
    let healthy = async |args: &[&str]| run(PATIENCE, &[&["health"], args].concat()).await.code == Some(0);
    let url = |path: &str| format!("http://{address}{path}");
    let look = async || {
        if healthy(&[&url("/readyz")]).await {
            Ok(())
        } else {
            Err("not yet")
        }
    };
    eventually("a healthy gateway", look).await;
    assert!(!healthy(&[&url("/no-such-page")]).await);
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    assert!(!healthy(&[&format!("http://{closed}/readyz")]).await);
}

#[tokio::test]
async fn a_worker_tells_its_health_check_how_its_engine_is() {
    let nats = NatsServer::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("health");
    let file = file.to_str().unwrap();
    let health = async || run(PATIENCE, &["health", "--health-file", file]).await;
    assert_eq!(health().await.code, Some(1));
    let worker = Role::new("worker").args(&["--engine", "sim", "--model", "m", "--health-file", file]);
    let mut worker = worker.start(&nats.url()).await;
    let look = async || match health().await {
        said if said.code == Some(0) => Ok(()),
        said => Err(said.stderr),
    };
    eventually("a healthy worker", look).await;
    assert!(worker.stop_within(PATIENCE).await.success());
    let url = "http://127.0.0.1:1/v1";
    let lame = [
        "--engine",
        "openai",
        "--model",
        "m",
        "--url",
        url,
        "--health-file",
        file,
    ];
    let _worker = Role::new("worker").args(&lame).launch(&nats.url());
    let look = async || match health().await {
        said if said.code == Some(1) && said.stderr.contains("engine") => Ok(()),
        said => Err(format!("{said:?}")),
    };
    eventually("a worker whose engine is away", look).await;
}
