//! What a key may do beside asking its models, and which of several keys counts.

use serde_json::{Value, json};
use tokenbus_gateway::KeyTable;
use tokenbus_gateway::testing::{Auth, HttpOptions, Metrics};
use tokenbus_protocol::Name;

use crate::keys::{entry, keyed, send, serve};
use crate::support::*;

#[tokio::test]
async fn workers_hosts_and_loads_are_for_keys_that_may_see_them() {
    let (gateway, _) = keyed(&[entry("alice", ""), entry("op", "cluster = true")]).await;
    let get = |key: &str| send(gateway.client.get(gateway.url("/cluster")).bearer_auth(key));
    let told = get("tb-alice").await;
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(told.status, 200);
    assert_eq!(
        told.json(),
        json!({"object": "cluster", "version": version, "models": []})
    );
    assert!(get("tb-op").await.json()["workers"].is_array());
}

#[tokio::test]
async fn members_that_steer_engines_are_for_keys_that_may_send_them() {
    let (mut gateway, _) = keyed(&[entry("alice", ""), entry("op", "engine-members = true")]).await;
    let mut body = ask(false);
    body["priority"] = json!(-1);
    let refused = send(gateway.post(&body).bearer_auth("tb-alice")).await;
    assert_eq!(refused.status, 400);
    assert_eq!(refused.error()["param"], "priority");
    assert_eq!(refused.error()["code"], "engine_member_not_allowed");
    assert!(gateway.untouched());
    let client = tokenbus_bus::task::spawn("client", send(gateway.post(&body).bearer_auth("tb-op")));
    let call = serve(&mut gateway).await;
    assert_eq!(call.call.body, body.to_string().into_bytes());
    assert_eq!(client.await.unwrap().status, 200);
}

#[tokio::test]
async fn of_several_keys_in_one_request_the_valid_one_counts() {
    let (gateway, _) = keyed(&[entry("alice", "")]).await;
    let all = [("authorization", "Bearer "), ("x-api-key", ""), ("api-key", "")];
    for (valid, scheme) in all {
        for (stale, other) in all.into_iter().filter(|(name, _)| *name != valid) {
            for valid_first in [true, false] {
                let mut headers = [
                    (valid, format!("{scheme}tb-alice")),
                    (stale, format!("{other}tb-stale")),
                ];
                if !valid_first {
                    headers.reverse();
                }
                let request = gateway.client.get(gateway.url("/v1/models"));
                let request = headers
                    .iter()
                    .fold(request, |request, (name, value)| request.header(*name, value));
                assert_eq!(send(request).await.status, 200, "{headers:?}");
            }
        }
    }
}

#[tokio::test]
async fn the_cached_prompts_of_tenants_are_kept_apart_where_that_is_wanted() {
    let auth = Auth::on(Name::new("g1").unwrap(), Metrics::default());
    let keys = [
        entry("alice", "tenant = \"a\""),
        entry("anna", "tenant = \"a\""),
        entry("bob", ""),
    ];
    auth.set(KeyTable::parse(&keys.concat()).unwrap());
    let options = HttpOptions {
        cache_salt: true,
        ..HttpOptions::default()
    };
    let extras = Extras {
        auth,
        ..Extras::default()
    };
    let mut gateway = Gateway::with_extras(options, extras).await;
    let mut body = ask(false);
    body["cache_salt"] = json!("another tenant's");
    let mut salts = Vec::new();
    for key in ["tb-alice", "tb-anna", "tb-bob"] {
        let client = tokenbus_bus::task::spawn("client", send(gateway.post(&body).bearer_auth(key)));
        let sent: Value = serde_json::from_slice(&serve(&mut gateway).await.call.body).unwrap();
        assert_eq!(client.await.unwrap().status, 200);
        assert_eq!(sent["tokenbus_added"], json!(["cache_salt"]));
        salts.push(sent["cache_salt"].as_str().unwrap().to_owned());
    }
    assert!(salts[0] == salts[1] && salts[0] != salts[2], "{salts:?}");
    assert!(!salts.iter().any(|salt| salt.contains("another")));
}
