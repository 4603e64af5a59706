//! API keys with real processes: limits that hold over two gateways, keys that come and go while
//! everything runs, and gateways that serve no strangers by oversight.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::time::Instant;

use serde_json::json;
use tokenbus_tests::ask::{ask_for, with};
use tokenbus_tests::binary::run;
use tokenbus_tests::keys::{bearer, becomes, cluster, create, keys, status, text};
use tokenbus_tests::limits::STOP;
use tokenbus_tests::metrics::{parse, sum};
use tokenbus_tests::{Cluster, NatsOptions, NatsServer, Process, Role, eventually};

#[tokio::test]
async fn a_limit_holds_over_two_gateways() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.toml");
    let place = ["--keys", text(&file)];
    let key = create(&place, "alice", &["--requests-per-minute", "60"]).await;
    let free = create(&place, "free", &[]).await;
    let cluster = cluster(text(&file), NatsOptions::default()).await;
    for gateway in &cluster.gateways {
        becomes(gateway, &free, 200).await;
    }
    let begun = Instant::now();
    let (mut admitted, mut refused) = (0, 0);
    // Several clients at once, each at both gateways in turn.
    let one = async |offset: usize| {
        let mut statuses = Vec::new();
        for turn in 0..40 {
            let client = cluster.gateways[(turn + offset) % 2].client();
            statuses.push(status(client, &key).await);
        }
        statuses
    };
    let (a, b, c, d) = tokio::join!(one(0), one(1), one(0), one(1));
    for status in [a, b, c, d].concat() {
        match status {
            200 => admitted += 1,
            429 => refused += 1,
            other => panic!("{other}"),
        }
    }
    // docs/limits.md: one gateway beside the other, one request and twice what comes to one of them
    // while the other does not know. Four clients have two requests there at most.
    let allowed = 60 + begun.elapsed().as_secs() + 1;
    assert!(admitted >= 59, "{admitted} admitted, {refused} refused");
    assert!(admitted <= allowed + 1 + 2 * 4, "{admitted} admitted of {allowed}");
    let answer = cluster
        .client()
        .chat_with(&[("x-api-key", &key)], &ask_for("m", 1))
        .await;
    assert_eq!(answer.error(429)["code"], "rate_limit_exceeded");
    // What went beyond the limit has to be worked off first, a request a second.
    let beyond = admitted.max(60) - 60;
    assert!(answer.retry_after() <= 2 + beyond, "{admitted} admitted");
    assert_eq!(answer.header("x-ratelimit-remaining-requests"), Some("0"));
    assert_eq!(
        status(cluster.gateways[1].client(), &free).await,
        200,
        "others are not concerned"
    );
}

#[tokio::test]
async fn running_requests_are_counted_over_two_gateways_also_when_one_dies() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.toml");
    let key = create(&["--keys", text(&file)], "alice", &["--streams", "1"]).await;
    let mut cluster = cluster(text(&file), NatsOptions::default()).await;
    for gateway in &cluster.gateways {
        becomes(gateway, &key, 200).await;
    }
    let endless = with(ask_for("m", 3), "sim", json!({"hang_after": 1}));
    let headers = [("authorization", &*bearer(&key))];
    let hold = async |gateway: &Process| {
        // The other may have told of a request that has ended in the meantime.
        let mut held = eventually("a stream", async || {
            let held = gateway.client().stream_with(&headers, &endless).await;
            if held.is_stream() { Ok(held) } else { Err(held) }
        })
        .await;
        assert_eq!(held.text().await, "t0 ");
        held
    };
    let held = hold(&cluster.gateways[0]).await;
    becomes(&cluster.gateways[1], &key, 429).await;
    drop(held);
    becomes(&cluster.gateways[1], &key, 200).await;
    // What runs at a gateway that is killed is forgotten after some seconds.
    eventually("room at the first gateway", async || {
        let status = status(cluster.gateways[0].client(), &key).await;
        if status == 200 { Ok(()) } else { Err(status) }
    })
    .await;
    let _held = hold(&cluster.gateways[0]).await;
    becomes(&cluster.gateways[1], &key, 429).await;
    cluster.gateways[0].kill().await;
    becomes(&cluster.gateways[1], &key, 200).await;
}

#[tokio::test]
async fn keys_in_a_file_come_and_go_while_the_gateway_runs() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.toml");
    let place = ["--keys", text(&file)];
    let alice = create(&place, "alice", &["--allow", "m*", "--tenant", "team a"]).await;
    let cluster = cluster(text(&file), NatsOptions::default()).await;
    let gateway = &cluster.gateways[0];
    becomes(gateway, &alice, 200).await;
    let bob = create(&place, "bob", &["--allow", "other", "--read-metrics"]).await;
    becomes(gateway, &bob, 403).await;
    let listed = keys(&["list", "--keys", text(&file)]).await;
    assert!(listed.stdout.contains("alice  team a  m*"), "{}", listed.stdout);
    assert!(!listed.stdout.contains("tb-") && !std::fs::read_to_string(&file).unwrap().contains(&alice));

    // A file that cannot be used changes nothing, and is counted.
    let right = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{right}\n[keys.carl]\nhash = 3\n")).unwrap();
    eventually("a refused reload to be counted", async || {
        let headers = [("authorization", &*bearer(&bob))];
        let client = gateway.client();
        let page = client.request(http::Method::GET, "/metrics", &headers, "".into());
        let page = page.await.text();
        let labels = [("what", "keys"), ("outcome", "refused")];
        let refused = sum(&parse(&page), "tokenbus_gateway_reloads_total", &labels);
        if refused > 0.0 { Ok(()) } else { Err(page) }
    })
    .await;
    assert_eq!(status(gateway.client(), &alice).await, 200);
    assert_eq!(
        keys(&["revoke", "alice", "--keys", text(&file)]).await.code,
        Some(1),
        "it would hide the fault"
    );
    std::fs::write(&file, right).unwrap();

    let revoked = keys(&["revoke", "alice", "--keys", text(&file)]).await;
    assert_eq!(revoked.code, Some(0), "{revoked:?}");
    for gateway in &cluster.gateways {
        becomes(gateway, &alice, 401).await;
        assert_eq!(status(gateway.client(), &bob).await, 403);
    }
    assert_eq!(keys(&["revoke", "alice", "--keys", text(&file)]).await.code, Some(1));
}

#[tokio::test]
async fn keys_in_a_bucket_are_the_same_at_every_gateway_and_outlive_the_bus() {
    let nats = NatsOptions {
        jetstream: true,
        ..NatsOptions::default()
    };
    let mut cluster = cluster("kv", nats).await;
    let url = cluster.nats.url();
    let place = ["--keys", "kv", "--nats", &url];
    for gateway in &cluster.gateways {
        becomes(gateway, "tb-nobody", 401).await;
    }
    let alice = create(&place, "alice", &["--requests-per-minute", "1000"]).await;
    let bob = create(&place, "bob", &[]).await;
    for gateway in &cluster.gateways {
        becomes(gateway, &alice, 200).await;
        becomes(gateway, &bob, 200).await;
    }
    let again = keys(&["create", "alice", "--keys", "kv", "--nats", &url]).await;
    assert_eq!((again.code, again.stdout.as_str()), (Some(1), ""), "{again:?}");
    assert!(again.stderr.contains("alice"), "{again:?}");
    let listed = keys(&["list", "--keys", "kv", "--nats", &url]).await;
    assert!(
        listed.stdout.contains("alice") && listed.stdout.contains("1000"),
        "{listed:?}"
    );

    let revoked = keys(&["revoke", "alice", "--keys", "kv", "--nats", &url]).await;
    assert_eq!(revoked.code, Some(0), "{revoked:?}");
    for gateway in &cluster.gateways {
        becomes(gateway, &alice, 401).await;
    }
    // The bus goes away and comes back: what was known stays known, and what changes is heard.
    cluster.nats.restart().await;
    for gateway in &cluster.gateways {
        becomes(gateway, &bob, 200).await;
    }
    let carl = create(&place, "carl", &[]).await;
    for gateway in &cluster.gateways {
        becomes(gateway, &carl, 200).await;
    }
}

#[tokio::test]
async fn a_gateway_that_others_can_reach_refuses_to_serve_strangers_by_oversight() {
    let nats = NatsServer::start().await;
    let url = nats.url();
    let open = ["--listen", "0.0.0.0:0", "--nats", &url];
    for role in ["gateway", "up"] {
        let mut args = vec![role];
        args.extend(open);
        let said = run(STOP, &args).await;
        assert_eq!((said.code, said.stderr.lines().count()), (Some(2), 1), "{said:?}");
        assert!(
            said.stderr.contains("--keys") && said.stderr.contains("--insecure"),
            "{said:?}"
        );
    }
    let said = run(STOP, &["coordinator", "--listen", "0.0.0.0:0", "--nats", &url]).await;
    assert_eq!((said.code, said.stderr.lines().count()), (Some(2), 1), "{said:?}");
    assert!(said.stderr.contains("--page-token-file"), "{said:?}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.toml");
    let missing = text(&file);
    let said = run(
        STOP,
        &["gateway", "--listen", "127.0.0.1:0", "--nats", &url, "--keys", missing],
    )
    .await;
    let errors = said.stderr.lines().filter(|line| line.starts_with("error: "));
    assert_eq!((said.code, errors.count()), (Some(2), 1), "{said:?}");
    assert!(said.stderr.contains(missing), "{said:?}");

    create(&["--keys", missing], "alice", &[]).await;
    let gateway = || Role::new("gateway").args(&["--listen", "0.0.0.0:0"]);
    for role in [
        gateway().args(&["--insecure"]),
        gateway().env("TOKENBUS_INSECURE", "true"),
        gateway().args(&["--keys", missing]),
        gateway().env("TOKENBUS_KEYS", missing),
    ] {
        role.start(&url).await.stop().await;
    }
}

#[tokio::test]
async fn no_key_is_in_any_log_or_answer() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.toml");
    let key = create(&["--keys", text(&file)], "alice", &["--requests-per-minute", "3"]).await;
    let plan = Cluster::plan().gateway_args(&["--keys", text(&file), "--log", "trace"]);
    let mut cluster = plan.start().await;
    cluster.add_worker(Role::sim("m", 4).args(&["--log", "trace"])).await;
    becomes(&cluster.gateways[0], &key, 200).await;
    let wrong = format!("{}x", &key[..45]);
    let mut answers = String::new();
    for key in [&key, &wrong, &key, &key, &key] {
        let headers = [("authorization", &*bearer(key))];
        answers += &cluster.client().chat_with(&headers, &ask_for("m", 1)).await.text();
        answers += &cluster
            .client()
            .chat_with(&[("x-api-key", key)], &json!({}))
            .await
            .text();
    }
    assert!(!answers.contains(&key[..20]), "{answers}");
    for process in cluster.gateways.iter().chain(&cluster.workers) {
        let told = process
            .logs()
            .lines()
            .into_iter()
            .find(|line| line.contains(&key[3..20]));
        assert_eq!(told, None);
    }
}
