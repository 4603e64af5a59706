//! The worker's own key to the server: never logged, read again when the server refuses it.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use http::HeaderValue;

use crate::engine::openai::options::{ApiKey, StartError};

/// The current `authorization` header.
pub(crate) struct Credentials {
    source: ApiKey,
    header: Mutex<Option<HeaderValue>>,
}

impl Credentials {
    /// Reads the key.
    pub(crate) fn load(source: ApiKey) -> Result<Self, StartError> {
        let header = match &source {
            ApiKey::None => None,
            ApiKey::Value(key) => Some(header(key).map_err(|reason| refused("the options", reason))?),
            ApiKey::File(path) => Some(read(path)?),
        };
        Ok(Self {
            source,
            header: Mutex::new(header),
        })
    }

    /// What to send.
    pub(crate) fn header(&self) -> Option<HeaderValue> {
        self.header.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The server refused `used`: true when there is another key by now. Blocks on a file.
    pub(crate) fn renew(&self, used: Option<&HeaderValue>) -> bool {
        if self.header().as_ref() != used {
            return true;
        }
        let ApiKey::File(path) = &self.source else { return false };
        match read(path) {
            Ok(fresh) if Some(&fresh) != used => {
                *self.header.lock().unwrap_or_else(PoisonError::into_inner) = Some(fresh);
                tracing::info!(path = %path.display(), "the engine refused the API key; a new one was read");
                true
            }
            Ok(_) => false,
            Err(reason) => {
                tracing::warn!(%reason, "the engine refused the API key");
                false
            }
        }
    }

    /// The key's text, to be kept out of messages.
    pub(crate) fn secret(&self) -> Option<String> {
        let header = self.header()?;
        header.to_str().ok()?.strip_prefix("Bearer ").map(str::to_owned)
    }
}

fn read(path: &Path) -> Result<HeaderValue, StartError> {
    let place = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| refused(&place, error.to_string()))?;
    header(&text).map_err(|reason| refused(&place, reason))
}

fn header(key: &str) -> Result<HeaderValue, String> {
    let key = key.trim();
    if key.is_empty() {
        return Err("it is empty".to_owned());
    }
    let mut value = HeaderValue::try_from(format!("Bearer {key}"))
        .map_err(|_| "it has characters that no HTTP header may have".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

fn refused(path: &str, reason: impl Into<String>) -> StartError {
    StartError::ApiKey {
        path: path.to_owned(),
        reason: reason.into(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn no_form_of_it_shows_the_key() {
        let key = ApiKey::Value("sk-secret".to_owned());
        assert!(!format!("{key:?}").contains("secret"));
        let credentials = Credentials::load(key).unwrap();
        assert!(!format!("{:?}", credentials.header()).contains("secret"));
        assert_eq!(credentials.secret().as_deref(), Some("sk-secret"));
    }

    #[test]
    fn a_refused_key_is_read_again_from_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, "first\n").unwrap();
        let credentials = Credentials::load(ApiKey::File(path.clone())).unwrap();
        let first = credentials.header();
        assert_eq!(first.as_ref().unwrap(), "Bearer first");
        assert!(!credentials.renew(first.as_ref()), "the file has not changed");
        std::fs::write(&path, "second").unwrap();
        assert!(credentials.renew(first.as_ref()));
        assert_eq!(credentials.header().unwrap(), "Bearer second");
        assert!(
            credentials.renew(first.as_ref()),
            "another request has renewed it already"
        );
        std::fs::remove_file(&path).unwrap();
        assert!(!credentials.renew(credentials.header().as_ref()));
        assert_eq!(credentials.header().unwrap(), "Bearer second", "what was there is kept");
    }

    #[test]
    fn a_fixed_key_cannot_be_renewed() {
        let credentials = Credentials::load(ApiKey::Value("x".to_owned())).unwrap();
        assert!(!credentials.renew(credentials.header().as_ref()));
        assert!(Credentials::load(ApiKey::None).unwrap().header().is_none());
    }

    #[test]
    fn unusable_keys_are_refused_without_being_told() {
        for key in ["", " \n", "a\nb"] {
            let error = Credentials::load(ApiKey::Value(key.to_owned())).err().unwrap();
            assert!(matches!(error, StartError::ApiKey { .. }), "{key:?}");
        }
        let error = Credentials::load(ApiKey::File("/no/such/file".into())).err().unwrap();
        assert!(error.to_string().contains("/no/such/file"));
    }
}
