//! The built-in page and what it shows. What it does in a browser is tested in `tests/tests/page.rs`.

use serde_json::json;

use crate::support::Gateway;

#[tokio::test]
async fn the_page_is_served_with_a_policy_that_lets_nothing_else_in() {
    let gateway = Gateway::start().await;
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/page.css", "text/css; charset=utf-8"),
        ("/page.js", "text/javascript; charset=utf-8"),
        ("/page-cluster.js", "text/javascript; charset=utf-8"),
    ] {
        let answer = gateway.get(path).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, kind), "{path}");
        let policy = answer.header("content-security-policy");
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "connect-src 'self'",
            "frame-ancestors 'none'",
        ] {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("referrer-policy"), "no-referrer");
    }
}

#[tokio::test]
async fn the_page_has_no_part_that_its_policy_forbids_or_that_is_elsewhere() {
    let gateway = Gateway::start().await;
    let page = gateway.get("/").await.text;
    for forbidden in [" style=", " onclick=", "<style", "http://", "https://", "src=\"//"] {
        let inside = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!inside.contains(forbidden), "{forbidden}");
    }
    for script in ["/page.js", "/page-cluster.js"] {
        let script = gateway.get(script).await.text;
        for forbidden in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "://",
            "localStorage",
        ] {
            assert!(!script.contains(forbidden), "{forbidden}");
        }
    }
}

#[tokio::test]
async fn the_cluster_is_told_with_the_gateways_own_requests() {
    let mut gateway = Gateway::start().await;
    let (_events, call) = gateway.stream("a").await;
    let answer = gateway.get("/cluster").await;
    assert_eq!((answer.status, answer.header("cache-control")), (200, "no-store"));
    let want = json!({
        "object": "cluster", "version": env!("CARGO_PKG_VERSION"), "in_flight": 1, "waiting": 0, "gateway": "gw",
        "coordinator": null, "snapshot_age_ms": null, "workers": [], "lost": [], "models": [],
    });
    assert_eq!(answer.json(), want);
    drop(call);
}
