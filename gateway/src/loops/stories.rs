//! The loop that answers `tokenbus trace`.

use std::sync::Arc;

use futures_util::StreamExt as _;
use tokenbus_bus::{Subscription, take_in_during};
use tokenbus_protocol::{Stories, StoryQuestion, decode, encode, is_inbox};
use tokio::time::Instant;

use crate::shared::Shared;
use crate::story::KeptStories;

/// Answers questions for the stories of a request, if this gateway knows any. Only inboxes get an answer: whoever asks
/// must not make the gateway write elsewhere.
pub(crate) async fn run(shared: Arc<Shared>, kept: KeptStories, mut questions: Subscription) {
    while let Some(message) = questions.next().await {
        let Some(inbox) = message.reply.filter(|reply| is_inbox(reply)) else {
            continue;
        };
        let stories = match decode::<StoryQuestion>(&message.payload) {
            Ok(question) => kept.find(&question.request, Instant::now()),
            Err(error) => {
                shared.malformed("trace", &error);
                continue;
            }
        };
        if stories.is_empty() {
            continue;
        }
        let gateway = shared.gateway.clone();
        let sent = match encode(&Stories { gateway, stories }) {
            Ok(answer) => {
                let sent = shared.bus.publish(inbox.to_string(), answer.into());
                take_in_during([&mut questions], sent).await
            }
            Err(error) => {
                tracing::error!(%error, "a story cannot be encoded");
                continue;
            }
        };
        if let Err(error) = sent {
            tracing::warn!(%error, "a story was not sent");
        }
    }
}
