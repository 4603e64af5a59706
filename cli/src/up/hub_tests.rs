//! Tests of the choice of a file, and of a whole fetch from a small hub.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

fn files(names: &[&str]) -> Vec<HubFile> {
    names
        .iter()
        .map(|name| HubFile {
            rfilename: (*name).to_owned(),
            size: None,
            lfs: None,
        })
        .collect()
}

fn chosen(names: &[&str], selector: Option<&str>) -> Result<Vec<String>, String> {
    choose("o/r", &files(names), selector).map(|files| files.into_iter().map(|file| file.rfilename).collect())
}

#[test]
fn the_only_model_the_named_one_or_a_common_quantisation() {
    assert_eq!(
        chosen(&["README.md", "m.gguf", "mmproj-m.gguf"], None).unwrap(),
        ["m.gguf"]
    );
    let several = ["m-F16.gguf", "m.Q4_K_M.gguf", "m-Q8_0.gguf"];
    assert_eq!(chosen(&several, None).unwrap(), ["m.Q4_K_M.gguf"]);
    assert_eq!(chosen(&several, Some("q8_0")).unwrap(), ["m-Q8_0.gguf"]);
    assert_eq!(chosen(&several, Some("m-F16.gguf")).unwrap(), ["m-F16.gguf"]);
    let error = chosen(&several, Some("8_0")).unwrap_err();
    assert!(
        error.contains("m-Q8_0.gguf") && error.contains("hf:o/r:FILE"),
        "{error}"
    );
    assert!(chosen(&["README.md"], None).unwrap_err().contains("no GGUF"));
    assert!(chosen(&["a-x.gguf", "b-y.gguf"], None).is_err());
}

#[test]
fn a_split_model_is_all_its_parts() {
    let split = [
        "b/m-Q4_0-00002-of-00002.gguf",
        "b/m-Q4_0-00001-of-00002.gguf",
        "m-F16.gguf",
    ];
    let both = ["b/m-Q4_0-00001-of-00002.gguf", "b/m-Q4_0-00002-of-00002.gguf"];
    assert_eq!(chosen(&split, Some("Q4_0")).unwrap(), both);
    assert_eq!(chosen(&split, None).unwrap(), both);
    assert!(chosen(&split[1..], Some("Q4_0")).unwrap_err().contains("lacks"));
}

#[test]
fn names_stay_within_the_folder() {
    for name in ["../x.gguf", "/x.gguf", "a/../../x.gguf", ""] {
        assert!(within(name).is_err(), "{name}");
    }
    assert!(within("a/x.gguf").is_ok());
}

/// A hub with one repository whose file is cut off in the first answer.
async fn hub(file: Vec<u8>) -> (Hub, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}/", listener.local_addr().unwrap());
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&requests);
    tokenbus_bus::task::spawn("server", async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let request = counted.fetch_add(1, Ordering::SeqCst);
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(socket.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            assert!(!head.contains("secret"), "the token goes over TLS only: {head}");
            let (answer, body) = if head.starts_with("GET /api/models/o/r?blobs=true ") {
                let sha: String = Sha256::digest(&file).iter().map(|byte| format!("{byte:02x}")).collect();
                let list = format!(
                    r#"{{"sha":"abc","siblings":[{{"rfilename":"README.md","size":3}},{{"rfilename":"m-Q4_0.gguf","size":{0},"lfs":{{"sha256":"{sha}","size":{0},"pointerSize":9}}}}]}}"#,
                    file.len()
                );
                (
                    format!("HTTP/1.1 200 X\r\ncontent-length: {}\r\n\r\n", list.len()),
                    list.into_bytes(),
                )
            } else if head.starts_with("GET /o/r/resolve/abc/m-Q4_0.gguf ") {
                let start = head
                    .lines()
                    .find_map(|line| line.strip_prefix("range: bytes=")?.strip_suffix('-')?.parse().ok());
                let start: usize = start.unwrap_or(0);
                let status = if start > 0 { 206 } else { 200 };
                let head = format!(
                    "HTTP/1.1 {status} X\r\ncontent-range: bytes {start}-{}/{}\r\ncontent-length: {}\r\n\r\n",
                    file.len() - 1,
                    file.len(),
                    file.len() - start
                );
                let end = if request == 1 { file.len() / 2 } else { file.len() };
                (head, file[start..end].to_vec())
            } else {
                ("HTTP/1.1 404 X\r\ncontent-length: 0\r\n\r\n".to_owned(), vec![])
            };
            socket.write_all(answer.as_bytes()).await.unwrap();
            socket.write_all(&body).await.unwrap();
            socket.shutdown().await.unwrap();
        }
    });
    (Hub::new(endpoint, Some("secret".to_owned())), requests)
}

#[tokio::test]
async fn a_model_is_fetched_through_a_break_and_then_needs_no_network() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::at(folder.path());
    let file: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
    let (hub, requests) = hub(file.clone()).await;
    let screen = Screen::stderr();
    let path = hub.fetch("o/r", None, &cache, &screen).await.unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), file);
    assert_eq!(requests.load(Ordering::SeqCst), 3);
    assert_eq!(hub.fetch("o/r", None, &cache, &screen).await.unwrap(), path);
    assert_eq!(requests.load(Ordering::SeqCst), 3);
    let error = hub.fetch("o/other", None, &cache, &screen).await.unwrap_err();
    assert!(matches!(error, HubError::Status { status: 404, .. }), "{error}");
}

#[tokio::test]
async fn an_unreachable_hub_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = Hub::new(endpoint, None)
        .fetch("o/r", None, &Cache::at(folder.path()), &Screen::stderr())
        .await;
    let error = error.unwrap_err();
    assert!(matches!(error, HubError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("--model FILE.gguf"));
}

#[test]
fn the_token_goes_only_where_nobody_can_listen() {
    let token = |endpoint: &str| Hub::new(endpoint.to_owned(), Some("hf_x".to_owned())).token;
    assert_eq!(token("https://hub.example.org").as_deref(), Some("hf_x"));
    assert_eq!(token("HTTPS://hub.example.org/").as_deref(), Some("hf_x"));
    for open in [
        "http://hub.example.org",
        "HTTP://hub.example.org",
        "hub.example.org",
        "https",
        "",
    ] {
        assert_eq!(token(open), None, "{open}");
    }
}
