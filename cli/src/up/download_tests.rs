//! Downloads from a server that breaks off, forgets ranges, changes its file or lies.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

/// How the server treats one request.
#[derive(Debug, Clone, Copy)]
enum Manner {
    /// Honours the range, then closes after so many bytes of the body.
    CutAfter(usize),
    /// Ignores the range.
    Whole,
    /// Honours the range, sends all.
    Rest,
    /// Answers this status.
    Status(u16),
}

/// A server of one file that treats each request in the next manner; returns the ranges asked for.
async fn serve(file: Vec<u8>, etag: &'static str, manners: Vec<Manner>) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let ranges = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&ranges);
    tokenbus_bus::task::spawn("server", async move {
        for manner in manners {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(socket.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap().to_lowercase();
            let range = head
                .lines()
                .find_map(|line| line.strip_prefix("range: bytes="))
                .unwrap_or("");
            seen.lock().unwrap().push(range.to_owned());
            let tag_fits = head
                .lines()
                .find_map(|line| line.strip_prefix("if-range: "))
                .is_none_or(|tag| tag == etag);
            let start: usize = range.trim_end_matches('-').parse().unwrap_or(0);
            let honoured = tag_fits && start > 0 && !matches!(manner, Manner::Whole);
            let body = if honoured { &file[start..] } else { &file[..] };
            let answer = match manner {
                Manner::Status(status) => {
                    format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                }
                _ if honoured => format!(
                    "HTTP/1.1 206 X\r\netag: {etag}\r\ncontent-range: bytes {start}-{}/{}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                    file.len() - 1,
                    file.len(),
                    body.len()
                ),
                _ => format!(
                    "HTTP/1.1 200 X\r\netag: {etag}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                    body.len()
                ),
            };
            socket.write_all(answer.as_bytes()).await.unwrap();
            let sent = match manner {
                Manner::CutAfter(bytes) => bytes.min(body.len()),
                Manner::Status(_) => 0,
                _ => body.len(),
            };
            socket.write_all(&body[..sent]).await.unwrap();
            socket.shutdown().await.unwrap();
        }
    });
    (address, ranges)
}

fn file() -> Vec<u8> {
    (0..300_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect()
}

fn wanted(address: SocketAddr, sha256: Option<String>) -> Wanted {
    Wanted {
        url: format!("http://{address}/m.gguf").parse().unwrap(),
        token: None,
        size: None,
        sha256,
    }
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_broken_download_goes_on_where_it_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("deep/m.gguf");
    let manners = vec![Manner::CutAfter(100_000), Manner::CutAfter(50_000), Manner::Rest];
    let (address, ranges) = serve(file(), "\"one\"", manners).await;
    let mut last = (0, 0);
    download(&wanted(address, Some(hash(&file()))), &place, |done, total| {
        last = (done, total)
    })
    .await
    .unwrap();
    assert_eq!(std::fs::read(&place).unwrap(), file());
    assert_eq!(last, (300_000, 300_000));
    assert_eq!(*ranges.lock().unwrap(), ["", "100000-", "150000-"]);
    let left: Vec<_> = std::fs::read_dir(folder.path().join("deep")).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[tokio::test]
async fn a_later_process_resumes_and_a_changed_file_starts_anew() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("m.gguf");
    let (address, _) = serve(file(), "\"one\"", vec![Manner::CutAfter(1000), Manner::Status(404)]).await;
    let error = download(&wanted(address, None), &place, |_, _| ()).await.unwrap_err();
    assert!(matches!(error, DownloadError::Status { status: 404, .. }), "{error}");
    assert!(!place.exists());
    // Same tag: resumed.
    let (address, ranges) = serve(file(), "\"one\"", vec![Manner::CutAfter(1000), Manner::Status(404)]).await;
    download(&wanted(address, None), &place, |_, _| ()).await.unwrap_err();
    assert_eq!(*ranges.lock().unwrap(), ["1000-", "2000-"]);
    // Another tag: the server sends all of the new file.
    let other: Vec<u8> = file().into_iter().rev().collect();
    let (address, ranges) = serve(other.clone(), "\"two\"", vec![Manner::Rest]).await;
    download(&wanted(address, None), &place, |_, _| ()).await.unwrap();
    assert_eq!(*ranges.lock().unwrap(), ["2000-"]);
    assert_eq!(std::fs::read(&place).unwrap(), other);
}

#[tokio::test]
async fn a_server_without_ranges_and_one_that_is_busy() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("m.gguf");
    let manners = vec![Manner::Status(503), Manner::CutAfter(10), Manner::Whole];
    let (address, _) = serve(file(), "\"one\"", manners).await;
    download(&wanted(address, Some(hash(&file()))), &place, |_, _| ())
        .await
        .unwrap();
    assert_eq!(std::fs::read(&place).unwrap(), file());
}

#[tokio::test]
async fn a_wrong_file_is_thrown_away() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("m.gguf");
    let (address, _) = serve(file(), "\"one\"", vec![Manner::Rest]).await;
    let error = download(&wanted(address, Some(hash(b"another"))), &place, |_, _| ())
        .await
        .unwrap_err();
    assert!(matches!(error, DownloadError::Damaged { .. }), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_gated_file_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let (address, _) = serve(file(), "\"one\"", vec![Manner::Status(401)]).await;
    let error = download(&wanted(address, None), &folder.path().join("m"), |_, _| ())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("HF_TOKEN"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn nobody_there_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = download(&wanted(address, None), &folder.path().join("m"), |_, _| ())
        .await
        .unwrap_err();
    assert!(matches!(error, DownloadError::Stuck { .. }), "{error}");
}
