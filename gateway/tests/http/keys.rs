//! API keys at the edge: who is let in, what each may do, and what each is told of its limits.

use reqwest::Method;
use serde_json::{Value, json};
use tokenbus_api::ListedModel;
use tokenbus_gateway::testing::{Auth, CallError, HttpOptions, Metrics};
use tokenbus_gateway::{KeyHash, KeyTable};
use tokenbus_protocol::{Capabilities, Name, UsageOutcome};

use crate::support::*;

pub(crate) fn entry(name: &str, more: &str) -> String {
    let hash = KeyHash::of(format!("tb-{name}").as_bytes());
    format!("[keys.{name}]\nhash = \"{hash}\"\n{more}\n")
}

pub(crate) async fn keyed(keys: &[String]) -> (Gateway, Auth) {
    let auth = Auth::on(Name::new("g1").unwrap(), Metrics::default());
    auth.set(KeyTable::parse(&keys.concat()).unwrap());
    let extras = Extras {
        auth: auth.clone(),
        ..Extras::default()
    };
    (Gateway::with_extras(HttpOptions::default(), extras).await, auth)
}

pub(crate) async fn send(request: reqwest::RequestBuilder) -> Answer {
    Answer::of(soon(request.send()).await.unwrap()).await
}

/// Answers the next call with a word.
pub(crate) async fn serve(gateway: &mut Gateway) -> Opened {
    let call = gateway.call().await;
    call.say(Name::new("w1").unwrap()).await;
    call.say("hi").await;
    call.say(reason("stop")).await;
    call.say(counted(10, 4)).await;
    call
}

#[tokio::test]
async fn without_a_key_nothing_is_answered_but_that_the_gateway_is_there() {
    let (mut gateway, _) = keyed(&[entry("alice", "")]).await;
    for (method, path) in [
        (Method::POST, "/v1/chat/completions"),
        (Method::POST, "/v1/embeddings"),
        (Method::GET, "/v1/models"),
        (Method::GET, "/v1/models/m"),
        (Method::GET, "/metrics"),
        (Method::GET, "/nothing/here"),
        (Method::GET, "/healthz/x"),
        (Method::DELETE, "/v1/models"),
    ] {
        for (header, value, code) in [
            ("x-nothing", "", "invalid_api_key"),
            ("authorization", "Bearer tb-alicf", "invalid_api_key"),
            ("authorization", "Bearer ", "invalid_api_key"),
            ("authorization", "tb-alice", "invalid_api_key"),
            ("x-api-key", "tb-bob", "invalid_api_key"),
        ] {
            let request = gateway
                .client
                .request(method.clone(), gateway.url(path))
                .header(header, value);
            let answer = send(request.body(ask(false).to_string())).await;
            assert_eq!(answer.status, 401, "{method} {path} {header} {value}");
            let error = answer.error();
            assert_eq!(
                (&error["code"], &error["type"]),
                (&json!(code), &json!("invalid_request_error"))
            );
            assert_eq!(answer.header("www-authenticate"), "Bearer");
            assert!(!answer.text.contains("tb-"), "{}", answer.text);
        }
    }
    for path in ["/healthz", "/readyz"] {
        assert_eq!(gateway.get(path).await.status, 200);
    }
    assert!(gateway.untouched());
    for (header, value) in [("authorization", "Bearer tb-alice"), ("x-api-key", "tb-alice")] {
        let request = gateway.post(ask(false)).header(header, value);
        let client = tokenbus_bus::task::spawn("client", send(request));
        serve(&mut gateway).await;
        assert_eq!(client.await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn before_the_keys_are_known_it_is_not_ready_and_nobody_is_let_in() {
    let extras = Extras {
        auth: Auth::on(Name::new("g1").unwrap(), Metrics::default()),
        ..Extras::default()
    };
    let gateway = Gateway::with_extras(HttpOptions::default(), extras).await;
    for answer in [
        gateway.get("/readyz").await,
        send(gateway.post(ask(false)).bearer_auth("tb-alice")).await,
    ] {
        assert_eq!((answer.status, answer.header("retry-after")), (503, "1"));
        assert_eq!(answer.error()["code"], "not_ready");
    }
    assert_eq!(gateway.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn keys_that_have_vanished_are_told_of_while_they_hold_and_afterwards_it_is_not_ready() {
    let auth = Auth::on(Name::new("g1").unwrap(), Metrics::default());
    auth.set(KeyTable::default());
    let extras = Extras {
        auth: auth.clone(),
        ..Extras::default()
    };
    let gateway = Gateway::with_extras(HttpOptions::default(), extras).await;
    let ready = async || {
        let answer = gateway.get("/readyz").await;
        (answer.status, answer.text)
    };
    assert_eq!(ready().await, (200, r#"{"status":"ready"}"#.to_owned()));
    auth.set_concern(Some("keys have vanished".to_owned()));
    let degraded = r#"{"status":"ready","degraded":"keys have vanished"}"#;
    assert_eq!(ready().await, (200, degraded.to_owned()));
    auth.forget();
    let (status, text) = ready().await;
    assert!(status == 503 && text.contains("keys have vanished"), "{status} {text}");
    let answer = send(gateway.post(ask(false)).bearer_auth("tb-alice")).await;
    assert_eq!(answer.error()["code"], "not_ready");
    auth.set(KeyTable::default());
    auth.set_concern(None);
    assert_eq!(ready().await, (200, r#"{"status":"ready"}"#.to_owned()));
}

fn listed(name: &str) -> ListedModel {
    ListedModel {
        name: name.to_owned(),
        created: 1,
        context_length: None,
        capabilities: Capabilities::default(),
        live: true,
    }
}

#[tokio::test]
async fn a_key_asks_for_its_models_and_knows_of_no_others() {
    let keys = [entry("alice", "models = [\"org/*\"]"), entry("bob", "")];
    let (mut gateway, _) = keyed(&keys).await;
    gateway.list(vec![listed("org/m:7b"), listed("secret"), listed("org/b")]);
    let get = async |path: &str, key: &str| {
        let request = gateway.client.get(gateway.url(path)).bearer_auth(key);
        send(request).await
    };
    let ids = |answer: &Answer| -> Vec<Value> {
        let list = answer.json();
        list["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|model| model["id"].clone())
            .collect()
    };
    assert_eq!(ids(&get("/v1/models", "tb-alice").await), ["org/b", "org/m:7b"]);
    assert_eq!(ids(&get("/v1/models", "tb-bob").await).len(), 3);
    assert_eq!(get("/v1/models/org/b", "tb-alice").await.status, 200);
    let hidden = get("/v1/models/secret", "tb-alice").await;
    assert_eq!(
        (hidden.status, hidden.error()["code"].as_str()),
        (404, Some("model_not_found"))
    );
    assert!(!hidden.error()["message"].as_str().unwrap().contains("secret,"));

    let mut asked = ask(false);
    asked["model"] = json!("secret");
    let answer = send(gateway.post(&asked).bearer_auth("tb-alice")).await;
    assert_eq!(answer.status, 403);
    let error = answer.error();
    let told = (&error["type"], &error["code"], &error["param"]);
    assert_eq!(
        told,
        (&json!("permission_error"), &json!("model_not_allowed"), &json!("model"))
    );
    assert!(gateway.untouched());

    // A name that it may use and that nobody has: it is told of its own models only.
    let client = tokenbus_bus::task::spawn("client", send(gateway.post(ask(false)).bearer_auth("tb-alice")));
    let known = ["org/b", "secret"].map(str::to_owned).to_vec();
    let model = "org/m:7b".to_owned();
    gateway.call().await.say(CallError::UnknownModel { model, known }).await;
    let answer = client.await.unwrap();
    assert_eq!(answer.status, 404);
    assert!(
        answer.text.contains("org/b") && !answer.text.contains("secret"),
        "{}",
        answer.text
    );
}

#[tokio::test]
async fn for_whom_and_how_urgent_a_request_is_the_key_says() {
    let keys = [entry("alice", "tenant = \"team a\"\npriority = 5"), entry("bob", "")];
    let (mut gateway, _) = keyed(&keys).await;
    for (key, asked, tenant, priority) in [
        ("alice", None, "team a", 5),
        ("alice", Some("900"), "team a", 5),
        ("alice", Some("-7"), "team a", -7),
        ("bob", None, "bob", 0),
        ("bob", Some("1"), "bob", 0),
    ] {
        let mut request = gateway.post(ask(false)).bearer_auth(format!("tb-{key}"));
        request = request.header("x-tokenbus-tenant", "somebody else");
        if let Some(asked) = asked {
            request = request.header("x-tokenbus-priority", asked);
        }
        let client = tokenbus_bus::task::spawn("client", send(request));
        let opened = serve(&mut gateway).await;
        assert_eq!(opened.call.tenant.as_deref(), Some(tenant));
        assert_eq!(opened.call.priority, priority, "{key} {asked:?}");
        assert_eq!(client.await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn requests_a_minute_are_limited_and_told_on_every_answer() {
    let (mut gateway, _) = keyed(&[entry("alice", "requests-per-minute = 2"), entry("bob", "")]).await;
    for left in ["1", "0"] {
        let client = tokenbus_bus::task::spawn("client", send(gateway.post(ask(false)).bearer_auth("tb-alice")));
        serve(&mut gateway).await;
        let answer = client.await.unwrap();
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("x-ratelimit-limit-requests"), "2");
        assert_eq!(answer.header("x-ratelimit-remaining-requests"), left);
        assert!(answer.header("x-ratelimit-reset-requests").ends_with('s'));
        assert_eq!(answer.header("x-ratelimit-limit-tokens"), "", "it has no such limit");
    }
    let answer = send(gateway.post(ask(true)).bearer_auth("tb-alice")).await;
    assert_eq!(answer.status, 429);
    let error = answer.error();
    assert_eq!(
        (&error["code"], &error["type"]),
        (&json!("rate_limit_exceeded"), &json!("requests"))
    );
    let after: u64 = answer.header("retry-after").parse().unwrap();
    assert!((25..=30).contains(&after), "{after}");
    assert_eq!(answer.header("x-ratelimit-remaining-requests"), "0");
    // Listing models is no request of the limit, and bob has his own.
    let list = gateway.client.get(gateway.url("/v1/models")).bearer_auth("tb-alice");
    assert_eq!(send(list).await.status, 200);
    let client = tokenbus_bus::task::spawn("client", send(gateway.post(ask(false)).bearer_auth("tb-bob")));
    serve(&mut gateway).await;
    let answer = client.await.unwrap();
    assert_eq!((answer.status, answer.header("x-ratelimit-limit-requests")), (200, ""));
}

#[tokio::test]
async fn tokens_a_minute_are_estimated_first_and_counted_then() {
    let (mut gateway, _) = keyed(&[entry("alice", "tokens-per-minute = 1000")]).await;
    let mut asked = ask(false);
    asked["max_tokens"] = json!(900);
    let client = tokenbus_bus::task::spawn("client", send(gateway.post(&asked).bearer_auth("tb-alice")));
    let call = gateway.call().await;
    // While it runs, its estimate is taken.
    let refused = send(gateway.post(&asked).bearer_auth("tb-alice")).await;
    assert_eq!(
        (refused.status, refused.error()["type"].as_str()),
        (429, Some("tokens"))
    );
    call.say(Name::new("w1").unwrap()).await;
    call.say("hi").await;
    call.say(reason("stop")).await;
    call.say(counted(10, 4)).await;
    assert_eq!(client.await.unwrap().status, 200);
    drop(call);
    // It used 14 of them.
    let client = tokenbus_bus::task::spawn("client", send(gateway.post(&asked).bearer_auth("tb-alice")));
    serve(&mut gateway).await;
    let answer = client.await.unwrap();
    assert_eq!(
        (answer.status, answer.header("x-ratelimit-limit-tokens")),
        (200, "1000")
    );
}

#[tokio::test]
async fn running_requests_are_limited_until_their_clients_leave() {
    let (mut gateway, _) = keyed(&[entry("alice", "streams = 1")]).await;
    let request = gateway.post(ask(true)).bearer_auth("tb-alice");
    let response = tokenbus_bus::task::spawn("client", async move { soon(request.send()).await.unwrap() });
    let call = gateway.call().await;
    call.say("a").await;
    let response = response.await.unwrap();
    let refused = send(gateway.post(ask(true)).bearer_auth("tb-alice")).await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, "1"));
    drop(response);
    soon(call.dropped.cancelled()).await;
    let record = gateway.record().await;
    assert_eq!(record.outcome, UsageOutcome::Cancelled);
    let client = tokenbus_bus::task::spawn("client", send(gateway.post(ask(false)).bearer_auth("tb-alice")));
    serve(&mut gateway).await;
    assert_eq!(client.await.unwrap().status, 200);
}

#[tokio::test]
async fn metrics_are_for_keys_that_may_read_them() {
    let (mut gateway, _) = keyed(&[entry("alice", ""), entry("prom", "metrics = true")]).await;
    let client = tokenbus_bus::task::spawn("client", send(gateway.post(ask(false)).bearer_auth("tb-alice")));
    serve(&mut gateway).await;
    client.await.unwrap();
    gateway.record().await;
    let get = |key: &str| send(gateway.client.get(gateway.url("/metrics")).bearer_auth(key));
    let refused = get("tb-alice").await;
    assert_eq!(
        (refused.status, refused.error()["code"].as_str()),
        (403, Some("metrics_not_allowed"))
    );
    assert_eq!(gateway.get("/metrics").await.status, 401);
    let page = get("tb-prom").await;
    assert_eq!(page.status, 200);
    for line in [
        "tokenbus_key_requests_total{key=\"alice\"} 1",
        "tokenbus_key_prompt_tokens_total{key=\"alice\"} 10",
        "tokenbus_key_completion_tokens_total{key=\"alice\"} 4",
        "tokenbus_unauthorized_total{reason=\"no_key\"} 1",
    ] {
        assert!(page.text.lines().any(|told| told == line), "{line} in\n{}", page.text);
    }
}

#[tokio::test]
async fn a_key_that_is_revoked_is_unknown_at_once_and_its_streams_go_on() {
    let (mut gateway, auth) = keyed(&[entry("alice", "streams = 5")]).await;
    let request = gateway.post(ask(true)).bearer_auth("tb-alice");
    let response = tokenbus_bus::task::spawn("client", async move { soon(request.send()).await.unwrap() });
    let call = gateway.call().await;
    call.say("a").await;
    let mut events = Events::of(response.await.unwrap());
    assert_eq!(events.text().await, "", "the role");
    assert_eq!(events.text().await, "a");
    auth.set(KeyTable::default());
    assert_eq!(send(gateway.post(ask(true)).bearer_auth("tb-alice")).await.status, 401);
    call.say("b").await;
    assert_eq!(events.text().await, "b");
}

#[tokio::test]
async fn a_key_at_its_limit_is_refused_before_its_body_is_read_and_each_refusal_counts() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let keys = [
        entry("alice", "requests-per-minute = 1"),
        entry("bob", "streams = 1"),
        entry("carl", "requests-per-minute = 2\ntokens-per-minute = 10"),
    ];
    let (mut gateway, _) = keyed(&keys).await;
    let address = gateway
        .url("")
        .trim_start_matches("http://")
        .trim_end_matches('/')
        .to_owned();
    // Only the head is sent, and none of the 30 MB that it announces.
    let head_only = async |path: &str, key: &str| {
        let mut socket = tokio::net::TcpStream::connect(&address).await.unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer tb-{key}\r\n\
             content-type: application/json\r\ncontent-length: 30000000\r\n\r\n"
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        soon(socket.read_exact(&mut answer)).await.unwrap();
        String::from_utf8(answer.to_vec()).unwrap()
    };
    // A request that turns out to be wrong counts as one.
    assert_eq!(send(gateway.post("{").bearer_auth("tb-alice")).await.status, 400);
    let request = gateway.post(ask(true)).bearer_auth("tb-bob");
    let held = tokenbus_bus::task::spawn("client", async move { soon(request.send()).await.unwrap() });
    let call = gateway.call().await;
    call.say("a").await;
    let _held = held.await.unwrap();
    for path in [
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/responses",
        "/v1/messages",
        "/v1/messages/count_tokens",
        "/v1/rerank",
        "/tokenize",
        "/api/chat",
        "/api/embed",
    ] {
        for key in ["alice", "bob"] {
            assert_eq!(head_only(path, key).await, "HTTP/1.1 429", "{path} {key}");
        }
    }
    // So does one that its tokens refuse.
    let request = gateway.post(ask(true)).bearer_auth("tb-carl");
    let held = tokenbus_bus::task::spawn("client", async move { soon(request.send()).await.unwrap() });
    let call = gateway.call().await;
    call.say("a").await;
    let _held_too = held.await.unwrap();
    for kind in ["tokens", "requests"] {
        let answer = send(gateway.post(ask(true)).bearer_auth("tb-carl")).await;
        assert_eq!((answer.status, answer.error()["type"].as_str()), (429, Some(kind)));
    }
}
