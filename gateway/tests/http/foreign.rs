//! What foreign web pages can make a browser send to a gateway that asks for no keys.

use tokenbus_gateway::KeyTable;
use tokenbus_gateway::testing::{Auth, CallError, HttpOptions, Metrics};
use tokenbus_protocol::Name;

use crate::support::*;

/// A chat as the page of another site can send it without asking first: a form's kind of body.
fn simple(host: &str, headers: &str) -> Vec<u8> {
    let body = ask(false).to_string();
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: text/plain\r\n{headers}Connection: close\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn get(host: &str, path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").into_bytes()
}

#[tokio::test]
async fn a_page_of_another_site_reaches_no_engine_through_its_visitors_browser() {
    let mut gateway = Gateway::start().await;
    let own = gateway.addr.to_string();
    for headers in [
        "Origin: https://evil.example.org\r\nSec-Fetch-Site: cross-site\r\n",
        "Origin: https://evil.example.org\r\n",
        "Origin: null\r\n",
        "Origin: http://localhost:3000\r\n",
        "Origin: http://localhost:3000\r\nSec-Fetch-Site: same-site\r\n",
        "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n",
    ] {
        let answer = gateway.exchange(&simple(&own, headers)).await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{headers}: {answer}");
        assert!(
            answer.contains("foreign_origin") && answer.contains("--cors-origin"),
            "{answer}"
        );
        assert!(answer.contains("x-content-type-options: nosniff"), "{answer}");
    }
    assert!(gateway.untouched());
    // Its own page, and programs that are no browser.
    for headers in [
        format!("Origin: http://{own}\r\nSec-Fetch-Site: same-origin\r\n"),
        format!("Origin: http://{own}\r\n"),
        String::new(),
    ] {
        let mut tcp = gateway.raw(&simple(&own, &headers)).await;
        let call = gateway.call().await;
        call.say(CallError::ShuttingDown).await;
        let mut answer = String::new();
        soon(tokio::io::AsyncReadExt::read_to_string(&mut tcp, &mut answer))
            .await
            .unwrap();
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    }
}

#[tokio::test]
async fn a_name_that_is_made_to_mean_this_machine_opens_nothing() {
    let options = HttpOptions {
        allowed_hosts: vec!["tokens.example.org".parse().unwrap()],
        ..HttpOptions::default()
    };
    let mut gateway = Gateway::with(options).await;
    let port = gateway.addr.port();
    for name in ["evil.example.org", "127.0.0.1.evil.example.org", "x.tokens.example.org"] {
        let host = format!("{name}:{port}");
        // As same-origin as a rebound page is.
        let headers = format!("Origin: http://{host}\r\nSec-Fetch-Site: same-origin\r\n");
        for request in [
            simple(&host, &headers),
            get(&host, "/v1/models"),
            get(&host, "/cluster"),
            get(&host, "/metrics"),
            get(&host, "/"),
            get("127.0.0.1", &format!("http://{host}/v1/models")),
        ] {
            let answer = gateway.exchange(&request).await;
            assert!(answer.starts_with("HTTP/1.1 403 "), "{name}: {answer}");
            assert!(
                answer.contains("foreign_host") && answer.contains("--allowed-host"),
                "{answer}"
            );
        }
        let health = gateway.exchange(&get(&host, "/healthz")).await;
        assert!(health.starts_with("HTTP/1.1 200 "), "{health}");
    }
    assert!(gateway.untouched());
    for own in ["localhost", "127.0.0.1:80", "[::1]:8080", "Tokens.Example.org:8080"] {
        let answer = gateway.exchange(&get(own, "/v1/models")).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{own}: {answer}");
    }
}

#[tokio::test]
async fn with_keys_the_key_decides() {
    let auth = Auth::on(Name::new("g1").unwrap(), Metrics::default());
    auth.set(KeyTable::default());
    let extras = Extras {
        auth,
        ..Extras::default()
    };
    let gateway = Gateway::with_extras(HttpOptions::default(), extras).await;
    let answer = gateway.exchange(&get("gateway.example.org", "/v1/models")).await;
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
}
