//! The server's address, and the request that the load generator sends again and again.

use std::net::SocketAddr;

use bytes::Bytes;
use http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, HeaderValue, TRANSFER_ENCODING,
};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, Uri};

use super::args::Args;

const SHORT_PROMPT: &str = "What is gravity?";

/// The target cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// The URL cannot be used.
    #[error("--url {url}: {reason}")]
    Url {
        /// The value given.
        url: String,
        /// The fault.
        reason: String,
    },
    /// A header cannot be sent.
    #[error("--header {header:?}: expected NAME: VALUE")]
    Header {
        /// The value given.
        header: String,
    },
    /// A header about the end of the body, which the load generator sets itself.
    #[error("--header {header:?}: the body's length is set by the load generator")]
    Framing {
        /// The value given.
        header: String,
    },
    /// The API key cannot be sent in a header.
    #[error("--api-key: holds a character that cannot be sent in a header")]
    ApiKey,
    /// The host's name has no address.
    #[error("cannot find the address of {host}: {source}")]
    Resolve {
        /// The host.
        host: String,
        /// The cause.
        source: std::io::Error,
    },
}

/// The server.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// Whether it uses TLS.
    pub(crate) tls: bool,
    /// The host's name, without brackets.
    pub(crate) host: String,
    /// Its addresses, at least one; connections take turns.
    pub(crate) addresses: Vec<SocketAddr>,
    /// The request line and the headers, without the body's length.
    head: Vec<u8>,
    /// The same for HTTP/2.
    http2: http::Request<()>,
}

/// The request that is sent again and again.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// Head and body as HTTP/1.1 writes them.
    pub(crate) http1: Bytes,
    /// The head for HTTP/2.
    pub(crate) http2: http::Request<()>,
    /// The body.
    pub(crate) body: Bytes,
}

impl Target {
    /// Reads the flags and looks the host up, once for the whole run.
    ///
    /// # Errors
    /// [`TargetError`], naming the flag.
    pub(crate) async fn new(args: &Args) -> Result<Self, TargetError> {
        let (tls, authority, path) = parse_url(&args.url)?;
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let addresses = resolve(&host, port).await?;
        let headers = headers(args, &authority)?;
        Ok(Self {
            tls,
            host,
            addresses,
            head: head(&path, &headers),
            http2: http2_head(tls, authority, path, headers),
        })
    }

    /// A request with this body.
    pub(crate) fn request(&self, body: Bytes) -> Request {
        let length = format!("content-length: {}\r\n\r\n", body.len());
        let mut http2 = self.http2.clone();
        http2.headers_mut().insert(CONTENT_LENGTH, body.len().into());
        Request {
            http1: [&self.head, length.as_bytes(), &body].concat().into(),
            http2,
            body,
        }
    }
}

fn http2_head(tls: bool, authority: Authority, path: Uri, mut headers: HeaderMap) -> http::Request<()> {
    headers.remove(HOST);
    let mut uri = path.into_parts();
    uri.scheme = Some(if tls { Scheme::HTTPS } else { Scheme::HTTP });
    uri.authority = Some(authority);
    let mut request = http::Request::new(());
    *request.method_mut() = http::Method::POST;
    // The three parts were valid one by one, and nothing is left out.
    *request.uri_mut() = Uri::from_parts(uri).unwrap_or_default();
    *request.version_mut() = http::Version::HTTP_2;
    *request.headers_mut() = headers;
    request
}

fn head(path: &Uri, headers: &HeaderMap) -> Vec<u8> {
    let mut head = format!("POST {path} HTTP/1.1\r\n").into_bytes();
    for (name, value) in headers {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head
}

fn parse_url(url: &str) -> Result<(bool, Authority, Uri), TargetError> {
    let refuse = |reason: &str| TargetError::Url {
        url: url.to_owned(),
        reason: reason.to_owned(),
    };
    let parts = url.parse::<Uri>().map_err(|e| refuse(&e.to_string()))?.into_parts();
    let tls = match &parts.scheme {
        Some(s) if *s == Scheme::HTTP => false,
        Some(s) if *s == Scheme::HTTPS => true,
        _ => return Err(refuse("expected http://HOST:PORT/v1")),
    };
    let authority = parts.authority.ok_or_else(|| refuse("no host"))?;
    if authority.as_str().contains('@') {
        return Err(refuse("a user in the URL is not supported, use --header or --api-key"));
    }
    let base = parts
        .path_and_query
        .as_ref()
        .map_or("", |p| p.path())
        .trim_end_matches('/');
    let path = format!("{base}/chat/completions")
        .parse()
        .map_err(|_| refuse("not a valid path"))?;
    Ok((tls, authority, path))
}

async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, TargetError> {
    let failed = |source| TargetError::Resolve {
        host: host.to_owned(),
        source,
    };
    let addresses: Vec<_> = tokio::net::lookup_host((host, port)).await.map_err(failed)?.collect();
    if addresses.is_empty() {
        return Err(failed(std::io::ErrorKind::NotFound.into()));
    }
    Ok(addresses)
}

fn headers(args: &Args, authority: &Authority) -> Result<HeaderMap, TargetError> {
    let mut headers = HeaderMap::new();
    let host = HeaderValue::from_str(authority.as_str());
    headers.insert(
        HOST,
        host.map_err(|_| TargetError::Header {
            header: authority.to_string(),
        })?,
    );
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let accept = if args.stream {
        "text/event-stream"
    } else {
        "application/json"
    };
    headers.insert(ACCEPT, HeaderValue::from_static(accept));
    if let Some(key) = &args.api_key {
        let mut value = HeaderValue::try_from(format!("Bearer {key}")).map_err(|_| TargetError::ApiKey)?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    for header in &args.header {
        let refuse = || TargetError::Header { header: header.clone() };
        let (name, value) = header.split_once(':').ok_or_else(refuse)?;
        let name = HeaderName::try_from(name.trim()).map_err(|_| refuse())?;
        if name == CONTENT_LENGTH || name == TRANSFER_ENCODING {
            return Err(TargetError::Framing { header: header.clone() });
        }
        headers.insert(name, HeaderValue::try_from(value.trim()).map_err(|_| refuse())?);
    }
    Ok(headers)
}

/// The request's JSON, for `max_tokens` tokens.
pub(crate) fn body(args: &Args, max_tokens: u64) -> Bytes {
    let prompt = match (&args.prompt, args.prompt_tokens) {
        (Some(text), _) => text.clone(),
        (None, Some(tokens)) => made_up(tokens),
        (None, None) => SHORT_PROMPT.to_owned(),
    };
    let mut body = serde_json::json!({
        "model": args.model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": max_tokens,
        "stream": args.stream,
    });
    if args.stream
        && args.usage
        && let Some(fields) = body.as_object_mut()
    {
        fields.insert("stream_options".to_owned(), serde_json::json!({"include_usage": true}));
    }
    Bytes::from(body.to_string())
}

/// Common short words, each about one token in every usual vocabulary.
fn made_up(tokens: u64) -> String {
    const WORDS: [&str; 8] = ["the", "road", "was", "long", "and", "cold", "that", "night"];
    let count = usize::try_from(tokens).unwrap_or(usize::MAX);
    WORDS.iter().cycle().take(count).copied().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn reads_urls_as_clients_give_them() {
        for (url, tls, host, path) in [
            ("http://h:1/v1", false, "h:1", "/v1/chat/completions"),
            ("http://h/v1/", false, "h", "/v1/chat/completions"),
            ("https://h", true, "h", "/chat/completions"),
            ("http://[::1]:8080/v1", false, "[::1]:8080", "/v1/chat/completions"),
        ] {
            let (t, a, p) = parse_url(url).unwrap();
            assert_eq!((t, a.as_str(), p.path()), (tls, host, path));
        }
        for url in ["h:1/v1", "/v1", "ftp://h/v1", "http://u:p@h/v1", "http://"] {
            assert!(parse_url(url).is_err(), "{url}");
        }
    }

    #[test]
    fn a_made_up_prompt_has_its_length() {
        assert_eq!(made_up(9).split(' ').count(), 9);
    }
}
