//! Reasoning that a client carries from one request to the next, in `encrypted_content`, sealed with the cluster's key.
//!
//! Clients hand this member back as they got it, where they do not hand back the reasoning itself. Sealed content can
//! be read and made by nobody who lacks the key, and only for the tenant that got it.
//!
//! A content is `tb2.` and, in base64, the key's id, a salt and the text under AES-256-GCM. Each content has a key of
//! its own, which HKDF derives from the cluster's key and the salt. The salt is a MAC of item, tenant and text: an item
//! has the same content in all of its events, and nothing here needs random numbers. A cluster that has no key writes
//! `tb1.` and the text in base64, as earlier versions did. That form is always read: whoever could forge it could as
//! well send the reasoning itself.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Prk};
use ring::hmac::{self, HMAC_SHA256};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::request::RequestError;

/// What sealed content begins with.
const SEALED: &str = "tb2.";

/// What content without a seal begins with.
const PLAIN: &str = "tb1.";

const ID: usize = 8;
const SALT: usize = 24;

/// Names a key of a cluster. It tells nothing of the key's secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SealKeyId([u8; ID]);

/// A key of a cluster.
#[derive(Clone)]
pub struct SealKey {
    id: SealKeyId,
    root: Prk,
    salts: hmac::Key,
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SealKey").field(&self.id).finish()
    }
}

impl SealKey {
    /// The key with this secret, 32 random bytes.
    pub fn new(secret: &[u8; 32]) -> Self {
        let root = Prk::new_less_safe(HKDF_SHA256, secret);
        let id = hmac::sign(&mac(&root, b"id"), b"");
        Self {
            id: SealKeyId(id.as_ref().first_chunk().copied().unwrap_or_default()),
            salts: mac(&root, b"salt"),
            root,
        }
    }

    /// The key's name.
    pub fn id(&self) -> SealKeyId {
        self.id
    }

    /// The key of the content with this salt. Each is used for one text only, so its nonce may be constant.
    fn content_key(&self, salt: &[u8]) -> Option<LessSafeKey> {
        let info = [b"content".as_slice(), salt];
        let okm = self.root.expand(&info, &AES_256_GCM).ok()?;
        Some(LessSafeKey::new(UnboundKey::from(okm)))
    }

    fn seal(&self, owner: &str, item: &str, text: &str) -> Option<Vec<u8>> {
        let mut salt = hmac::Context::with_key(&self.salts);
        for part in [owner, item, text] {
            salt.update(&(part.len() as u64).to_be_bytes());
            salt.update(part.as_bytes());
        }
        let salt = salt.sign();
        let salt = salt.as_ref().get(..SALT)?;
        let mut sealed = text.as_bytes().to_vec();
        let key = self.content_key(salt)?;
        key.seal_in_place_append_tag(nonce(), Aad::from(owner.as_bytes()), &mut sealed)
            .ok()?;
        Some([&self.id.0, salt, &sealed].concat())
    }

    fn open(&self, owner: &str, salt: &[u8], sealed: &[u8]) -> Option<String> {
        let mut sealed = sealed.to_vec();
        let key = self.content_key(salt)?;
        let text = key.open_in_place(nonce(), Aad::from(owner.as_bytes()), &mut sealed);
        String::from_utf8(text.ok()?.to_vec()).ok()
    }
}

fn mac(root: &Prk, what: &[u8]) -> hmac::Key {
    // HKDF gives 32 bytes from any key; without them there would be an empty one, which opens nothing.
    let key = root.expand(&[what], HMAC_SHA256).map(hmac::Key::from);
    key.unwrap_or_else(|_| hmac::Key::new(HMAC_SHA256, &[]))
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

/// The keys of a cluster, for what one tenant carries. The default has no key.
#[derive(Debug, Clone, Default)]
pub struct Seal {
    keys: Arc<[SealKey]>,
    owner: Arc<str>,
}

impl Seal {
    /// Seals with the first of `keys`, and opens with each of them, for `tenant`.
    pub fn new(keys: Arc<[SealKey]>, tenant: Option<&str>) -> Self {
        Self {
            keys,
            owner: tenant.unwrap_or_default().into(),
        }
    }

    /// The content that holds the reasoning `text` of `item`.
    pub(super) fn pack(&self, item: &str, text: &str) -> String {
        let sealed = self.keys.first().and_then(|key| key.seal(&self.owner, item, text));
        let (mark, bytes) = match &sealed {
            Some(sealed) => (SEALED, sealed.as_slice()),
            None => (PLAIN, text.as_bytes()),
        };
        let mut content = mark.to_owned();
        URL_SAFE_NO_PAD.encode_string(bytes, &mut content);
        content
    }

    /// The reasoning in `content`; `None` if it was not made with these keys for this tenant, or was changed.
    pub(super) fn unpack(&self, content: &str) -> Option<String> {
        if let Some(plain) = content.strip_prefix(PLAIN) {
            return String::from_utf8(URL_SAFE_NO_PAD.decode(plain).ok()?).ok();
        }
        let bytes = URL_SAFE_NO_PAD.decode(content.strip_prefix(SEALED)?).ok()?;
        let (id, rest) = bytes.split_first_chunk()?;
        let (salt, sealed) = rest.split_at_checked(SALT)?;
        let key = self.keys.iter().find(|key| key.id.0 == *id)?;
        key.open(&self.owner, salt, sealed)
    }
}

/// What a request needs of the cluster's keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SealNeed {
    /// A key to seal with.
    pub seals: bool,
    /// The keys that open what the client handed back.
    pub opens: HashSet<SealKeyId>,
}

/// The `encrypted_content` of an item of reasoning.
fn carried(item: &RawValue) -> Option<String> {
    #[derive(Deserialize)]
    struct Carrier {
        r#type: String,
        encrypted_content: String,
    }
    memchr::memmem::find(item.get().as_bytes(), b"encrypted_content")?;
    let carrier: Carrier = serde_json::from_str(item.get()).ok()?;
    (carrier.r#type == "reasoning").then_some(carrier.encrypted_content)
}

/// Which key sealed the reasoning of an item; `None` for items without any.
pub(super) fn sealed_by(item: &RawValue) -> Option<SealKeyId> {
    // Base64 without its last digits is not base64, so the head ends at a whole group.
    let content = carried(item)?;
    let head = content.strip_prefix(SEALED)?.get(..12)?;
    let bytes = URL_SAFE_NO_PAD.decode(head).ok()?;
    bytes.first_chunk().copied().map(SealKeyId)
}

/// Checks what a client carries of ours. As at OpenAI, a content that was changed, or is another tenant's, is an error,
/// also where the item has the reasoning in another form. What another server encrypted is passed over: only that one
/// can read it, and a conversation that began there may go on here.
///
/// # Errors
/// [`RequestError`] names the first content that does not open.
pub(super) fn verify(items: &[Box<RawValue>], seal: &Seal) -> Result<(), RequestError> {
    let mut contents = items.iter().filter_map(|item| carried(item));
    let is_ours = |content: &str| content.starts_with(SEALED) || content.starts_with(PLAIN);
    match contents.find(|content| is_ours(content) && seal.unpack(content).is_none()) {
        None => Ok(()),
        Some(content) => Err(RequestError::Field {
            param: None,
            code: "invalid_encrypted_content",
            message: format!(
                "The encrypted content {}... could not be verified. Reason: Encrypted content could not be decrypted or parsed.",
                content.chars().take(8).collect::<String>()
            ),
        }),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn seal(secrets: &[u8], tenant: Option<&str>) -> Seal {
        let keys = secrets.iter().map(|secret| SealKey::new(&[*secret; 32]));
        Seal::new(keys.collect(), tenant)
    }

    #[test]
    fn what_was_sealed_comes_back_with_a_later_key_too_and_others_contents_are_nothing() {
        let (before, after) = (seal(&[1], None), seal(&[2, 1], None));
        for text in ["", "a", "Zürich 😀\n"] {
            let content = before.pack("rs_1", text);
            assert!(content.starts_with(SEALED), "{content}");
            assert_eq!(content, before.pack("rs_1", text), "the same in each event");
            assert_ne!(content, before.pack("rs_2", text));
            for reader in [&before, &after] {
                assert_eq!(reader.unpack(&content).as_deref(), Some(text));
            }
            for stranger in [seal(&[2], None), seal(&[1], Some("alice")), Seal::default()] {
                assert_eq!(stranger.unpack(&content), None);
            }
            let plain = Seal::default().pack("rs_1", text);
            assert!(plain.starts_with(PLAIN), "{plain}");
            assert_eq!(after.unpack(&plain).as_deref(), Some(text));
        }
        for other in ["", "gAAAAABo", "tb1.*", "tb1.gIA", "tb2.", "tb2.AAAA", "tb2.*"] {
            assert_eq!(before.unpack(other), None, "{other}");
        }
    }

    #[test]
    fn a_change_of_any_byte_is_noticed() {
        let seal = seal(&[1], Some("alice"));
        let content = seal.pack("rs_1", "think");
        let bytes = URL_SAFE_NO_PAD.decode(content.strip_prefix(SEALED).unwrap()).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let changed = format!("{SEALED}{}", URL_SAFE_NO_PAD.encode(&changed));
            assert_eq!(seal.unpack(&changed), None, "byte {at}");
            let cut = format!("{SEALED}{}", URL_SAFE_NO_PAD.encode(&bytes[..at]));
            assert_eq!(seal.unpack(&cut), None, "cut at {at}");
        }
        assert!(!format!("{seal:?}").contains("1, 1, 1"), "a secret is not shown");
    }

    #[test]
    fn the_key_of_an_item_is_known_without_the_key() {
        let key = SealKey::new(&[7; 32]);
        let content = Seal::new([key.clone()].into(), None).pack("rs_1", "x");
        let item = |content: &str| {
            let text = format!(r#"{{"type":"reasoning","encrypted_content":"{content}"}}"#);
            sealed_by(&RawValue::from_string(text).unwrap())
        };
        assert_eq!(item(&content), Some(key.id()));
        for other in ["tb1.eA", "tb2.", "tb2.é", "gAAAA"] {
            assert_eq!(item(other), None, "{other}");
        }
    }
}
