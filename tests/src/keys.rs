//! API keys: made with `tokenbus keys`, sent to gateways, and a cluster that asks for them.

use std::path::Path;

use crate::ask::ask_for;
use crate::binary::{CommandOutput, run};
use crate::limits::PATIENCE;
use crate::{Client, Cluster, NatsOptions, Process, Role, eventually};

/// Runs `tokenbus keys` with these arguments.
pub async fn keys(args: &[&str]) -> CommandOutput {
    let mut all = vec!["keys"];
    all.extend(args);
    run(PATIENCE, &all).await
}

/// Makes a key and returns it.
pub async fn create(place: &[&str], name: &str, more: &[&str]) -> String {
    let mut args = vec!["create", name];
    args.extend(place);
    args.extend(more);
    let said = keys(&args).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    let key = said.stdout.trim().to_owned();
    assert!(
        key.starts_with("tb-") && key.len() == 46 && !said.stderr.contains(&key),
        "{said:?}"
    );
    key
}

/// The `authorization` header of a key.
pub fn bearer(key: &str) -> String {
    format!("Bearer {key}")
}

/// The status of a request with `key`.
pub async fn status(client: Client, key: &str) -> u16 {
    let headers = [("authorization", &*bearer(key))];
    client.chat_with(&headers, &ask_for("m", 1)).await.status.as_u16()
}

/// Waits until a request with `key` at `gateway` is answered with `expected`.
pub async fn becomes(gateway: &Process, key: &str, expected: u16) {
    eventually(&format!("{expected} at {}", gateway.name()), async || {
        let status = status(gateway.client(), key).await;
        if status == expected { Ok(()) } else { Err(status) }
    })
    .await;
}

/// Two gateways with these keys, and a worker.
pub async fn cluster(source: &str, nats: NatsOptions) -> Cluster {
    let plan = Cluster::plan().nats(nats).gateways(2);
    let mut cluster = plan.gateway_args(&["--keys", source]).start().await;
    cluster.add_worker(Role::sim("m", 64)).await;
    cluster
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
