//! The built-in page and what it shows. What it does in a browser is tested in `tests/tests/page.rs`.

use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokenbus_gateway::testing::page_paths;

use crate::support::Gateway;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/http/page");

fn kind(path: &str) -> &'static str {
    match path.rsplit_once('.') {
        Some((_, "js")) => "text/javascript; charset=utf-8",
        Some((_, "css")) => "text/css; charset=utf-8",
        _ => "text/html; charset=utf-8",
    }
}

#[tokio::test]
async fn the_page_is_served_with_a_policy_that_lets_nothing_else_in() {
    let gateway = Gateway::start().await;
    for path in page_paths() {
        let answer = gateway.get(path).await;
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, kind(path)),
            "{path}"
        );
        let policy = answer.header("content-security-policy");
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "connect-src 'self'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        ] {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("referrer-policy"), "no-referrer");
    }
    assert_eq!(gateway.get("/page/nothing.js").await.status, 404);
}

/// Every file of a kind in the page's folder, and in `vendor/`, by name.
fn files(extension: &str) -> Vec<String> {
    let names = ["", "vendor/"].into_iter().flat_map(|folder| {
        let entries = std::fs::read_dir(format!("{PAGE}/{folder}")).unwrap();
        entries.map(move |entry| format!("{folder}{}", entry.unwrap().file_name().to_str().unwrap()))
    });
    names.filter(|name| name.ends_with(extension)).collect()
}

#[test]
fn every_file_of_the_page_is_a_part_of_the_program() {
    let mut there: Vec<String> = [".js", ".css"].into_iter().flat_map(files).collect();
    let served = page_paths().filter_map(|path| path.strip_prefix("/page/"));
    let mut served: Vec<String> = served.map(str::to_owned).collect();
    there.sort();
    served.sort();
    assert_eq!(there, served);
}

#[tokio::test]
async fn the_page_has_no_part_that_its_policy_forbids_or_that_is_elsewhere() {
    let gateway = Gateway::start().await;
    let page = gateway.get("/").await.text;
    for forbidden in [" style=", " onclick=", "<style", "http://", "https://", "src=\"//"] {
        let inside = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!inside.contains(forbidden), "{forbidden}");
    }
    for path in page_paths().filter(|path| path.ends_with(".js") && !path.contains("/vendor/")) {
        let script = gateway.get(path).await.text;
        assert!(script.lines().count() < 400, "{path} is too long for one sitting");
        let script = script.replace("http://www.w3.org/2000/svg", "");
        for forbidden in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "://",
        ] {
            assert!(!script.contains(forbidden), "{path}: {forbidden}");
        }
        // What is kept is decided in one place.
        let keeps = script.contains("localStorage");
        assert_eq!(keeps, path == "/page/storage.js", "{path}");
    }
}

#[test]
fn the_libraries_of_the_page_are_those_that_were_published() {
    let folder = std::path::Path::new(PAGE).join("vendor");
    let sums = std::fs::read_to_string(folder.join("SHA256SUMS")).unwrap();
    for line in sums.lines() {
        let (sum, name) = line.split_once("  ").unwrap();
        let digest = Sha256::digest(std::fs::read(folder.join(name)).unwrap());
        let found: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, sum, "{name}");
    }
    let listed = |name: &String| sums.contains(&format!("  {}\n", name.trim_start_matches("vendor/")));
    assert!(
        files(".js")
            .iter()
            .filter(|name| name.starts_with("vendor/"))
            .all(listed)
    );
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
