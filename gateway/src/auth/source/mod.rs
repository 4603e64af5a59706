//! Where keys come from: a file, or a bucket that all gateways share.

pub(crate) mod bucket;
pub(crate) mod file;
mod ledger;

use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use tokenbus_protocol::{Name, Subjects};

/// Where keys come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A TOML file.
    File(PathBuf),
    /// A JetStream key-value bucket; the cluster's own if no name is given.
    Bucket(Option<String>),
}

impl KeySource {
    /// The name of the bucket `given`, or else the default in the cluster `namespace`.
    pub fn bucket_name(given: Option<&str>, namespace: &Name) -> String {
        given.map_or_else(|| Subjects::new(namespace.clone()).keys_bucket(), str::to_owned)
    }
}

impl FromStr for KeySource {
    type Err = Infallible;

    /// Reads `kv`, `kv:BUCKET`, or a path.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text.strip_prefix("kv") {
            Some("") => Self::Bucket(None),
            Some(name) if name.starts_with(':') => Self::Bucket(name.get(1..).map(str::to_owned)),
            _ => Self::File(PathBuf::from(text)),
        })
    }
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Bucket(None) => f.write_str("kv"),
            Self::Bucket(Some(name)) => write!(f, "kv:{name}"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_a_path_or_a_bucket() {
        for (text, source) in [
            ("kv", KeySource::Bucket(None)),
            ("kv:team", KeySource::Bucket(Some("team".to_owned()))),
            ("kvx.toml", KeySource::File("kvx.toml".into())),
            ("./kv", KeySource::File("./kv".into())),
            ("/etc/keys.toml", KeySource::File("/etc/keys.toml".into())),
        ] {
            let Ok(read) = text.parse::<KeySource>();
            assert_eq!((read.to_string().as_str(), &read), (text, &source));
        }
        let ns = Name::new("tb").unwrap();
        assert_eq!(KeySource::bucket_name(None, &ns), "tb_keys");
        assert_eq!(KeySource::bucket_name(Some("x"), &ns), "x");
    }
}
