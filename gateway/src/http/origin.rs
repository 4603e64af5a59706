//! Origins of web pages, as browsers name them.

use std::str::FromStr;

use http::{HeaderValue, Uri};

/// An origin as a browser names it, or any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Every origin.
    Any,
    /// One origin: `https://example.org`, `http://localhost:3000`.
    One(HeaderValue),
}

/// The text is not an origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an origin is written as in https://example.org or http://localhost:3000, without a path; or * for all")]
pub struct NoOrigin;

impl FromStr for Origin {
    type Err = NoOrigin;

    fn from_str(text: &str) -> Result<Self, NoOrigin> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let uri: Uri = text.parse().map_err(|_| NoOrigin)?;
        let host = uri.authority().filter(|authority| !authority.as_str().contains('@'));
        let (Some(scheme), Some(host)) = (uri.scheme_str(), host) else {
            return Err(NoOrigin);
        };
        // Browsers compare the text, so it must be in their form: no path, no slash, no capitals.
        let origin = format!("{scheme}://{host}").to_ascii_lowercase();
        if text.to_ascii_lowercase() != origin {
            return Err(NoOrigin);
        }
        origin.try_into().map(Self::One).map_err(|_| NoOrigin)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_has_a_scheme_and_a_host_and_no_path() {
        for right in [
            "https://example.org",
            "http://localhost:3000",
            "http://127.0.0.1",
            "app://obsidian.md",
        ] {
            assert_eq!(right.parse(), Ok(Origin::One(HeaderValue::from_static(right))));
        }
        let capitals = "HTTPS://Example.org".parse();
        assert_eq!(
            capitals,
            Ok(Origin::One(HeaderValue::from_static("https://example.org")))
        );
        assert_eq!("*".parse(), Ok(Origin::Any));
        for wrong in [
            "",
            "example.org",
            "https://example.org/",
            "https://a/b",
            "https://",
            "null",
            "https://u@h",
            "*.org",
        ] {
            assert_eq!(wrong.parse::<Origin>(), Err(NoOrigin), "{wrong}");
        }
    }
}
