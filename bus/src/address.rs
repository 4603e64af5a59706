//! Addresses of NATS servers, and the logins that stand in them.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use async_nats::ServerAddr;

/// Why the options cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// No server was named.
    #[error("no NATS server was named")]
    NoServer,
    /// A server's address is not a URL.
    #[error("not a NATS address: {url}: {source}")]
    Url {
        /// The address without its password.
        url: String,
        /// What is wrong with it.
        source: std::io::Error,
    },
    /// The credentials file cannot be read.
    #[error("cannot read NATS credentials {path}: {source}")]
    Credentials {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// A user and password, or a token.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Login {
    User { name: String, password: String },
    Token(String),
}

// The secrets must not reach a log.
impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Login(…)")
    }
}

/// One server that the user named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    /// Where it is, without the login. The client would not send it, and could show it in a log.
    pub(crate) server: ServerAddr,
    /// The login of `user:password@` or `token@`.
    pub(crate) login: Option<Login>,
}

impl Address {
    /// Reads `[scheme://][user:password@|token@]host[:port]`.
    pub(crate) fn parse(url: &str) -> Result<Self, OptionsError> {
        let wrong = |source| OptionsError::Url {
            url: redact(url),
            source,
        };
        let mut parsed = ServerAddr::from_str(url).map_err(wrong)?.into_inner();
        if parsed.host_str().is_none_or(str::is_empty) {
            return Err(wrong(std::io::Error::other("it names no host")));
        }
        let login = match (decode(parsed.username()), parsed.password().map(decode)) {
            (name, Some(password)) => Some(Login::User { name, password }),
            (token, None) if !token.is_empty() => Some(Login::Token(token)),
            (_, None) => None,
        };
        if parsed
            .set_username("")
            .and_then(|()| parsed.set_password(None))
            .is_err()
        {
            return Err(wrong(std::io::Error::other("it can have no user")));
        }
        let server = ServerAddr::from_url(parsed).map_err(wrong)?;
        Ok(Self { server, login })
    }

    /// Whether what travels there can be read on a network: there is no TLS, and it leaves this machine.
    pub(crate) fn is_exposed(&self) -> bool {
        let host = self.server.host();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let stays =
            host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        !stays && matches!(self.server.scheme(), "nats" | "ws")
    }
}

/// How the servers that the user did not name, but the cluster announces, may be dialled. They are announced without
/// a scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Announced {
    /// In clear text, unless the server asks for TLS.
    Plain,
    /// With TLS only, because all servers that the user named have it.
    Tls,
    /// Not at all: it is not known which scheme is meant.
    Never,
}

impl Announced {
    pub(crate) fn beside(addresses: &[Address]) -> Self {
        let all = |scheme: &str| addresses.iter().all(|address| address.server.scheme() == scheme);
        if all("tls") {
            Self::Tls
        } else if all("nats") {
            Self::Plain
        } else {
            Self::Never
        }
    }
}

/// `url` without user and password.
pub(crate) fn redact(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, rest)| (scheme, rest));
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    if scheme.is_empty() {
        host.to_owned()
    } else {
        format!("{scheme}://{host}")
    }
}

/// `text` with each `%xx` as the byte it stands for.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) if first == b'%' => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn login(url: &str) -> Option<Login> {
        let address = Address::parse(url).unwrap();
        assert!(!address.server.as_url_str().contains('@'), "{:?}", address.server);
        address.login
    }

    #[test]
    fn a_login_stands_in_the_address() {
        let user = |name: &str, password: &str| {
            Some(Login::User {
                name: name.into(),
                password: password.into(),
            })
        };
        assert_eq!(login("nats://u:secret@h:4222"), user("u", "secret"));
        assert_eq!(login("u:secret@h"), user("u", "secret"));
        assert_eq!(login("tls://u:p@ss%2Fw:%25@h"), user("u", "p@ss/w:%"));
        assert_eq!(login("wss://u:p@h/path"), user("u", "p"));
        assert_eq!(login("nats://t0ken@h"), Some(Login::Token("t0ken".into())));
        assert_eq!(login("nats://[::1]:4222"), None);
    }

    #[test]
    fn clear_text_beyond_this_machine_is_exposed() {
        let exposed = |url: &str| Address::parse(url).unwrap().is_exposed();
        for url in [
            "nats://10.0.0.1",
            "bus.example:4222",
            "ws://bus",
            "nats://[2001:db8::1]:4222",
        ] {
            assert!(exposed(url), "{url}");
        }
        for url in [
            "nats://127.0.0.2",
            "nats://[::1]:4222",
            "localhost",
            "tls://bus",
            "wss://bus",
        ] {
            assert!(!exposed(url), "{url}");
        }
    }

    #[test]
    fn announced_servers_get_no_less_than_the_named_ones() {
        let beside = |urls: &[&str]| {
            let addresses: Vec<_> = urls.iter().map(|url| Address::parse(url).unwrap()).collect();
            Announced::beside(&addresses)
        };
        assert_eq!(beside(&["nats://a", "b"]), Announced::Plain);
        assert_eq!(beside(&["tls://a", "tls://b"]), Announced::Tls);
        assert_eq!(beside(&["tls://a", "nats://b"]), Announced::Never);
        assert_eq!(beside(&["wss://a"]), Announced::Never);
    }
}
