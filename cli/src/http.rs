//! The HTTP client of the command line.

use std::error::Error;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::{Client, Response, Url};

use crate::limits;

/// A client for requests to `url`. A pause longer than `silence` in an answer is an error.
///
/// # Errors
/// When the system's certificates cannot be loaded.
pub(crate) fn client(url: &Url, silence: Duration) -> reqwest::Result<Client> {
    install_tls();
    let mut builder = Client::builder()
        .connect_timeout(limits::HTTP_CONNECT_TIMEOUT)
        .read_timeout(silence)
        .tcp_nodelay(true)
        .user_agent(concat!("tokenbus/", env!("CARGO_PKG_VERSION")));
    if is_loopback(url) {
        // A proxy from the environment is for other networks.
        builder = builder.no_proxy();
    }
    builder.build()
}

/// Chooses the TLS implementation of this process; only the first call counts.
pub(crate) fn install_tls() {
    drop(rustls::crypto::ring::default_provider().install_default());
}

fn is_loopback(url: &Url) -> bool {
    url.host_str().is_some_and(|host| {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    })
}

/// Reads a body of at most [`limits::JSON_BODY_BYTES`].
///
/// # Errors
/// A few words: the connection broke, or the body is longer.
pub(crate) async fn bounded_body(response: Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    let mut bytes = response.bytes_stream();
    while let Some(chunk) = bytes.next().await {
        let chunk = chunk.map_err(|error| cause(&error))?;
        if body.len() + chunk.len() > limits::JSON_BODY_BYTES {
            return Err(format!(
                "it is longer than {} MiB",
                limits::JSON_BODY_BYTES / 1024 / 1024
            ));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The innermost cause, which has the useful text.
pub(crate) fn cause(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_recognised() {
        for url in ["http://localhost:1/v1", "http://127.0.0.1/v1", "http://[::1]:80/"] {
            assert!(is_loopback(&url.parse().unwrap()), "{url}");
        }
        assert!(!is_loopback(&"https://example.org/v1".parse().unwrap()));
    }
}
