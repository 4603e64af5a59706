//! The stories of the last hour, in bounded memory. They are kept as they travel, so that their bytes are counted.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokenbus_protocol::{Story, decode, encode};
use tokio::time::Instant;
use uuid::Uuid;

use crate::limits::{STORIES_AGE, STORIES_BYTES, STORIES_TOLD};

/// Bytes that a kept story takes besides its text.
const OVERHEAD: usize = size_of::<KeptStory>();

/// The stories that a gateway keeps; clones share them.
#[derive(Debug, Clone, Default)]
pub struct KeptStories(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    /// The oldest first.
    stories: VecDeque<KeptStory>,
    bytes: usize,
}

#[derive(Debug)]
struct KeptStory {
    ended: Instant,
    request: Box<str>,
    call: Option<Uuid>,
    encoded: Box<[u8]>,
}

impl KeptStory {
    fn bytes(&self) -> usize {
        OVERHEAD + self.request.len() + self.encoded.len()
    }
}

impl KeptStories {
    /// Keeps the story of a request that ended at `now`.
    pub(crate) fn keep(&self, story: &Story, now: Instant) {
        let Ok(encoded) = encode(story) else { return };
        let story = KeptStory {
            ended: now,
            request: story.request.as_str().into(),
            call: story.call,
            encoded: encoded.into_boxed_slice(),
        };
        let mut kept = self.kept();
        kept.bytes += story.bytes();
        kept.stories.push_back(story);
        kept.forget(now);
    }

    /// The newest stories of the request that has this id, is this call, or was answered under this id.
    pub(crate) fn find(&self, request: &str, now: Instant) -> Vec<Story> {
        let call = call_in(request);
        let mut kept = self.kept();
        kept.forget(now);
        let same = |story: &&KeptStory| *story.request == *request || call.is_some() && story.call == call;
        let newest = kept.stories.iter().rev().filter(same).take(STORIES_TOLD);
        newest.filter_map(|story| decode(&story.encoded).ok()).collect()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn forget(&mut self, now: Instant) {
        while let Some(oldest) = self.stories.front() {
            let old = now.saturating_duration_since(oldest.ended) > STORIES_AGE;
            if !old && self.bytes <= STORIES_BYTES {
                return;
            }
            self.bytes = self.bytes.saturating_sub(oldest.bytes());
            self.stories.pop_front();
        }
    }
}

/// The call's id in the id of its answer: a UUID behind a prefix, `chatcmpl-…`.
fn call_in(id: &str) -> Option<Uuid> {
    let last = |length: usize| id.get(id.len().checked_sub(length)?..);
    [36, 32]
        .into_iter()
        .find_map(|length| Uuid::try_parse(last(length)?).ok())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use tokenbus_protocol::UsageOutcome;

    use super::*;

    fn story(request: &str, call: Option<Uuid>) -> Story {
        Story {
            request: request.to_owned(),
            call,
            api: "/v1/chat/completions".to_owned(),
            key: None,
            tenant: None,
            model: Some("m".to_owned()),
            served: None,
            worker: None,
            at_ms: 7,
            steps: Vec::new(),
            more_steps: 0,
            attempts: 1,
            wait_ms: 0,
            outcome: UsageOutcome::Succeeded,
            status: 200,
            code: None,
            error: None,
            prompt_tokens: 1,
            cached_tokens: 0,
            completion_tokens: 2,
            ttft_ms: Some(3),
            itl_p99_ms: None,
            duration_ms: 4,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_is_found_by_its_id_its_call_and_the_id_of_its_answer() {
        let (kept, now) = (KeptStories::default(), Instant::now());
        let call = Uuid::now_v7();
        kept.keep(&story("a", Some(call)), now);
        kept.keep(&story("b", None), now);
        let found = vec![story("a", Some(call))];
        for id in ["a".to_owned(), call.to_string(), format!("chatcmpl-{}", call.simple())] {
            assert_eq!(kept.find(&id, now), found, "{id}");
        }
        assert_eq!(kept.find("b", now), [story("b", None)]);
        for id in ["", "c", "ä", &Uuid::now_v7().to_string()] {
            assert!(kept.find(id, now).is_empty(), "{id}");
        }
        assert!(kept.find("a", now + STORIES_AGE + Duration::from_secs(1)).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded_and_the_newest_stay() {
        let (kept, now) = (KeptStories::default(), Instant::now());
        let long = "x".repeat(STORIES_BYTES / 100);
        for _ in 0..200 {
            kept.keep(&story(&long, None), now);
        }
        kept.keep(&story("last", None), now);
        assert!(kept.kept().bytes <= STORIES_BYTES);
        assert_eq!(kept.find("last", now).len(), 1);
        assert_eq!(kept.find(&long, now).len(), STORIES_TOLD);
    }
}
