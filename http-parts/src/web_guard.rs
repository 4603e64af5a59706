//! Tells requests that a foreign web page has its visitor's browser send from all others, for servers without keys.
//!
//! A server that asks for no key trusts whoever reaches it. A browser reaches it on behalf of every page that its user
//! visits: by a form or a script that sends `text/plain` (no preflight), or under a name of the attacker's that suddenly
//! means this machine (DNS rebinding). Browsers tell of both in headers that pages cannot set.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use http::header::{HOST, ORIGIN};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const DESTINATION: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// A name under which a server may be asked, or any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedHost {
    /// Every name.
    Any,
    /// One name, in small letters and without a port.
    Name(String),
}

/// The text is not the name of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a host is written as in tokens.example.org, without scheme, port or path; or * for all")]
pub struct NoHost;

impl FromStr for AllowedHost {
    type Err = NoHost;

    fn from_str(text: &str) -> Result<Self, NoHost> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let of_a_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if text.is_empty() || !text.bytes().all(of_a_name) {
            return Err(NoHost);
        }
        Ok(Self::Name(text.to_ascii_lowercase()))
    }
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForeignRequest {
    /// It asks for another host.
    #[error("This server is not known as {0:?}, and without API keys it answers only to names that it knows")]
    Host(String),
    /// A page of another origin sends it.
    #[error("This request comes from a web page of another origin{}", .0.as_ref().map(|origin| format!(", {origin}")).unwrap_or_default())]
    Page(Option<String>),
}

/// What a server without keys answers to.
#[derive(Debug, Clone, Default)]
pub struct WebGuard {
    /// Names of the server, beside its addresses and `localhost`.
    pub hosts: Vec<AllowedHost>,
    /// Other origins whose pages may use it, as browsers write them.
    pub origins: Vec<HeaderValue>,
    /// Whether the pages of all origins may.
    pub any_origin: bool,
}

impl WebGuard {
    /// Checks a request by its method, its URI and its headers.
    ///
    /// # Errors
    /// [`ForeignRequest`] says why it is refused.
    pub fn check(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), ForeignRequest> {
        let named = headers.get_all(HOST).iter().map(HeaderValue::as_bytes);
        let authorities = uri.authority().map(|authority| authority.as_str().as_bytes());
        for authority in authorities.into_iter().chain(named) {
            let authority = String::from_utf8_lossy(authority);
            if !self.is_own(host_of(&authority)) {
                return Err(ForeignRequest::Host(authority.into_owned()));
            }
        }
        self.check_page(method, uri, headers)
    }

    fn check_page(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), ForeignRequest> {
        let origin = headers.get(ORIGIN);
        if self.any_origin || origin.is_some_and(|origin| self.origins.contains(origin)) {
            return Ok(());
        }
        let own = match headers.get(SITE).map(HeaderValue::as_bytes) {
            Some(site) => site == b"same-origin" || site == b"none" || is_visit(method, headers),
            // An older browser, or plain HTTP beyond this machine: only the origin tells.
            None => origin.is_none_or(|origin| is_origin_of(origin, uri, headers)),
        };
        if own {
            return Ok(());
        }
        let origin = origin.map(|origin| String::from_utf8_lossy(origin.as_bytes()).into_owned());
        Err(ForeignRequest::Page(origin))
    }

    /// Whether no name server can make `host` mean this machine, or the operator said that it does.
    fn is_own(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_address = match bare {
            Some(address) => address.parse::<Ipv6Addr>().is_ok(),
            None => host.parse::<Ipv4Addr>().is_ok(),
        };
        let is_known = |allowed: &AllowedHost| match allowed {
            AllowedHost::Any => true,
            AllowedHost::Name(name) => *name == host,
        };
        // A name without a dot is nobody's in the public DNS: a container's, or another of this network.
        let is_local = host.starts_with(|first: char| first.is_ascii_alphabetic())
            && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        is_address || is_local || self.hosts.iter().any(is_known)
    }
}

/// Whether somebody follows a link to here. The page with the link cannot read what comes.
fn is_visit(method: &Method, headers: &HeaderMap) -> bool {
    let is = |name: HeaderName, value: &[u8]| headers.get(name).is_some_and(|found| found.as_bytes() == value);
    (method == Method::GET || method == Method::HEAD) && is(MODE, b"navigate") && is(DESTINATION, b"document")
}

/// Whether `origin` is the one that the request asks. The scheme does not count: a proxy may have taken TLS off.
fn is_origin_of(origin: &HeaderValue, uri: &Uri, headers: &HeaderMap) -> bool {
    let asked = uri.authority().map(|authority| authority.as_str().as_bytes());
    let Some(asked) = headers.get(HOST).map(HeaderValue::as_bytes).or(asked) else {
        return false;
    };
    let origin = origin.as_bytes();
    let from = [&b"http://"[..], b"https://"]
        .iter()
        .find_map(|scheme| origin.strip_prefix(*scheme));
    from.is_some_and(|from| from.eq_ignore_ascii_case(asked))
}

/// `authority` without its port.
fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

#[cfg(test)]
#[path = "web_guard_tests.rs"]
mod tests;
