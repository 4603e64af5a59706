//! The layout of a response in the bucket: in one entry, or in parts.

use async_nats::jetstream::kv::{Operation, Store};
use async_nats::jetstream::stream;
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use tokenbus_protocol::encode_model;
use tokio::time::timeout;

use super::error::{StoreError, failed, limited};
use super::limits;

/// The first byte of an entry. The response follows, or the number of its parts and their bytes.
const WHOLE: u8 = 1;
const PARTS: u8 = 2;
const SIZES: usize = 4 + 8;

/// The key of a response. The tenant's name is escaped, so that it cannot reach another tenant's keys. An id that is
/// not ours has no key.
pub(super) fn key(tenant: Option<&str>, id: &str) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if id.is_empty() || id.len() > 128 || !id.bytes().all(plain) {
        return None;
    }
    Some(match tenant {
        None => format!("all.{id}"),
        Some(tenant) => format!("of.{}.{id}", encode_model(tenant)),
    })
}

fn part_key(key: &str, n: u32) -> String {
    format!("{key}.{n}")
}

pub(super) async fn write(store: &Store, key: &str, response: Bytes, part: usize) -> Result<(), StoreError> {
    let mut head = BytesMut::new();
    if response.len() < part {
        head.put_u8(WHOLE);
        head.extend_from_slice(&response);
    } else {
        let bytes = response.len() as u64;
        let mut rest = response;
        let mut count: u32 = 0;
        while !rest.is_empty() {
            let piece = rest.split_to(part.min(rest.len()));
            limited(store.put(part_key(key, count), piece)).await?;
            count += 1;
        }
        head.put_u8(PARTS);
        head.put_u32(count);
        head.put_u64(bytes);
    }
    limited(store.put(key, head.freeze())).await.map(drop)
}

pub(super) async fn find(store: &Store, key: &str) -> Result<Option<Bytes>, StoreError> {
    let Some(mut head) = read(store, key).await?.filter(|head| !head.is_empty()) else {
        return Ok(None);
    };
    match head.get_u8() {
        WHOLE => Ok(Some(head)),
        PARTS if head.len() == SIZES => parts(store, key, head.get_u32(), head.get_u64()).await,
        // A newer version wrote it.
        _ => Ok(None),
    }
}

pub(super) async fn remove(store: &Store, key: &str) -> Result<bool, StoreError> {
    let Some(mut head) = read(store, key).await? else {
        return Ok(false);
    };
    limited(store.purge(key)).await?;
    // Parts without their head cannot be found and would only take space.
    if head.len() == 1 + SIZES && head.get_u8() == PARTS {
        for n in 0..head.get_u32() {
            limited(store.purge(part_key(key, n))).await?;
        }
    }
    Ok(true)
}

async fn parts(store: &Store, key: &str, count: u32, bytes: u64) -> Result<Option<Bytes>, StoreError> {
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    let mut whole = BytesMut::with_capacity(bytes.min(limits::ONE));
    for n in 0..count {
        match read(store, &part_key(key, n)).await? {
            Some(part) if whole.len() + part.len() <= bytes.min(limits::ONE) => whole.extend_from_slice(&part),
            // The oldest entries go first, so a part may be gone before its head.
            _ => return Ok(None),
        }
    }
    Ok((whole.len() == bytes).then(|| whole.freeze()))
}

async fn read(store: &Store, key: &str) -> Result<Option<Bytes>, StoreError> {
    let found = limited(store.get(key)).await?;
    let replicas = store.stream.cached_info().config.num_replicas;
    if found.is_some() || replicas < 2 {
        return Ok(found);
    }
    // The read may have reached a replica without the newest writes. The leader has them.
    let subject = format!("{}{key}", store.prefix);
    let asked = timeout(
        limits::OPERATION,
        store.stream.get_last_raw_message_by_subject(&subject),
    )
    .await;
    let message = match asked {
        Ok(Ok(message)) => message,
        Ok(Err(error)) if is_not_found(&error) => return Ok(None),
        Ok(Err(error)) => return Err(failed(error)),
        Err(_) => return Err(StoreError::Failed("JetStream did not answer".to_owned())),
    };
    let operation = message.headers.get("KV-Operation").map(|value| value.as_str().parse());
    let there = matches!(operation, None | Some(Ok(Operation::Put)));
    Ok(there.then_some(message.payload))
}

fn is_not_found(error: &stream::LastRawMessageError) -> bool {
    matches!(error.kind(), stream::LastRawMessageErrorKind::NoMessageFound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_of_one_tenant_and_legal() {
        assert_eq!(key(None, "resp_1a").as_deref(), Some("all.resp_1a"));
        assert_eq!(key(Some("a.b>*"), "resp_1a").as_deref(), Some("of.a=2Eb=3E=2A.resp_1a"));
        // No tenant's name yields the key of another tenant, or of a request without one.
        assert_ne!(key(Some("all"), "x"), key(None, "x"));
        for bad in ["", "a.b", "a b", "*", ">", "resp_ä", &"x".repeat(129)] {
            assert_eq!(key(None, bad), None, "{bad}");
        }
    }
}
