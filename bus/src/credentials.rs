//! NATS credentials files: a user's JWT and the seed of the key that signs the server's nonce, or the seed alone.

use std::io::{Error, ErrorKind};
use std::path::Path;

use nkeys::KeyPair;

/// What a credentials file holds.
pub(crate) struct Credentials {
    /// Without one, the server knows the user by its public key.
    jwt: Option<String>,
    key: KeyPair,
}

/// A proof of identity for one connection.
pub(crate) struct Signed {
    pub(crate) jwt: Option<String>,
    pub(crate) public_key: String,
    pub(crate) signature: Vec<u8>,
}

impl Credentials {
    /// Reads `path`. A role reads it for each connection, so that a new file takes effect at the next one.
    pub(crate) async fn read(path: &Path) -> Result<Self, Error> {
        Self::parse(&tokio::fs::read_to_string(path).await?)
    }

    fn parse(text: &str) -> Result<Self, Error> {
        let wrong = |what: String| Error::new(ErrorKind::InvalidData, what);
        let mut blocks = blocks(text);
        let (jwt, seed) = match blocks.next() {
            Some(jwt) => (Some(jwt.to_owned()), blocks.next()),
            None => (None, text.lines().map(str::trim).find(|line| line.starts_with("SU"))),
        };
        let seed = seed.ok_or_else(|| wrong("there is no nkey seed in it".into()))?;
        let key = KeyPair::from_seed(seed).map_err(|error| wrong(format!("its nkey seed is wrong: {error}")))?;
        Ok(Self { jwt, key })
    }

    /// The key that the server knows the user by, or that stands in the JWT.
    pub(crate) fn public_key(&self) -> String {
        self.key.public_key()
    }

    pub(crate) fn sign(self, nonce: &[u8]) -> Result<Signed, Error> {
        let signature = self.key.sign(nonce).map_err(Error::other)?;
        Ok(Signed {
            public_key: self.public_key(),
            jwt: self.jwt,
            signature,
        })
    }
}

/// The prefix of the inboxes of a user whom NATS knows by a key, with `--nats-creds`. Each user has its own, so that it
/// needs no permission to hear those of others.
pub fn inbox_prefix(public_key: &str) -> String {
    format!("_INBOX.{public_key}")
}

/// The first line of each block between a line `---- BEGIN …` and a line `---- END …`.
fn blocks(text: &str) -> impl Iterator<Item = &str> {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    std::iter::from_fn(move || {
        lines.find(|line| line.starts_with("---") && line.contains("BEGIN"))?;
        lines.next().filter(|line| !line.starts_with("---"))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_a_jwt_and_a_seed() {
        let seed = KeyPair::new_user().seed().unwrap();
        let text = format!(
            "-----BEGIN NATS USER JWT-----\r\naa.bb.cc\r\n------END NATS USER JWT------\r\n\r\nKeep it secret.\r\n\r\n\
             -----BEGIN USER NKEY SEED-----\r\n{seed}\r\n------END USER NKEY SEED------\r\n"
        );
        let signed = Credentials::parse(&text).unwrap().sign(b"nonce").unwrap();
        assert_eq!(signed.jwt.as_deref(), Some("aa.bb.cc"));
        KeyPair::from_seed(&seed)
            .unwrap()
            .verify(b"nonce", &signed.signature)
            .unwrap();
    }

    #[test]
    fn a_file_may_have_the_seed_alone() {
        let pair = KeyPair::new_user();
        let text = format!("# the gateway's\n{}\n", pair.seed().unwrap());
        let signed = Credentials::parse(&text).unwrap().sign(b"nonce").unwrap();
        assert_eq!((signed.jwt, signed.public_key), (None, pair.public_key()));
        pair.verify(b"nonce", &signed.signature).unwrap();
    }

    #[test]
    fn half_a_file_is_refused() {
        for text in [
            "",
            "-----BEGIN NATS USER JWT-----\n",
            "-----BEGIN NATS USER JWT-----\na.b.c\n------END NATS USER JWT------\n",
            "---BEGIN A---\na\n---END---\n---BEGIN B---\nnot a seed\n---END---\n",
        ] {
            assert!(Credentials::parse(text).is_err(), "{text:?}");
        }
    }
}
