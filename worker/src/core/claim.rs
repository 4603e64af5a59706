//! One id, one worker: a worker asks before it announces itself whether another has its id, and says
//! from then on that it is its own.
//!
//! Who asks and is answered does not start. Who is asked in vain, because it is frozen or cut off, loses
//! its id; it hears of that when it is back. So of two that run under one id the one that was started
//! later stays. A worker's own words, which come back to it, count for nothing.

use std::time::Instant;

use async_nats::{Message, StatusCode};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokenbus_bus::{Bus, BusError, Subscription};
use tokenbus_protocol::{Claim, Control, ControlReply, Name, Ping, Pong};
use tokio::time::{Duration, Instant as TokioInstant};

use crate::core::Core;
use crate::core::tenure::{ClaimVerdict, weigh};
use crate::limits;
use crate::options::Identity;

/// Another worker runs under this one's id.
#[derive(Debug, thiserror::Error)]
#[error(
    "another worker runs under the id {worker} (its instance: {other}), {what}; \
     each worker needs an --id of its own, and without --id it draws one"
)]
pub struct IdTaken {
    worker: Name,
    other: u64,
    what: String,
}

impl IdTaken {
    fn at_start(identity: &Identity, other: &Pong) -> Self {
        Self {
            worker: identity.worker.clone(),
            other: other.instance,
            what: format!("it is {}, so this one does not start", other.state),
        }
    }

    /// After a claim that outweighed this worker's.
    pub(crate) fn later(identity: &Identity, other: u64) -> Self {
        Self {
            worker: identity.worker.clone(),
            other,
            what: "it was started later, while this one did not answer or at the same time, so this one ends"
                .to_owned(),
        }
    }
}

impl Core {
    /// Says that the id is this worker's own.
    pub(crate) fn claim(&mut self, now: Instant) {
        self.tenure.say(now);
        let identity = &self.parts.identity;
        let subject = self.parts.subjects.control(&identity.worker);
        self.parts.post.send(subject, &Control::Claim(identity.claim()));
    }

    /// Somebody says that this worker's id is its own.
    pub(crate) fn on_claim(&mut self, other: Claim, now: Instant) {
        match weigh(self.parts.identity.claim(), other) {
            ClaimVerdict::Own => {}
            ClaimVerdict::Stay => self.claim(now),
            ClaimVerdict::Yield if self.tenure.lost_to().is_some() => {}
            ClaimVerdict::Yield => {
                tracing::error!(
                    worker = %self.parts.identity.worker,
                    other = other.instance,
                    "another worker was started under this id: this one ends"
                );
                self.tenure.lose_to(other.instance);
                // Its gateways look to the other one: what runs here is handed over at once.
                self.begin_drain(self.drain.stopping(now), now);
            }
        }
    }
}

/// Asks on the id's control `subject` whether a worker has it, and returns when nobody does, or nobody
/// answers. Without NATS it waits.
///
/// # Errors
/// [`IdTaken`], when one answers.
pub(crate) async fn ask(bus: &Bus, subject: String, identity: &Identity) -> Result<(), IdTaken> {
    loop {
        bus.connected().await;
        match ask_once(bus, &subject, identity).await {
            Ok(Answer::Nobody) => return Ok(()),
            Ok(Answer::Taken(pong)) => return Err(IdTaken::at_start(identity, &pong)),
            // Silence says something only of a connection that was there all the time.
            Ok(Answer::Silence) if bus.is_connected() => {
                tracing::warn!(
                    worker = %identity.worker,
                    silence = ?limits::CLAIM_SILENCE,
                    "something listens under this id and does not answer: this worker takes it over"
                );
                return Ok(());
            }
            Ok(Answer::Silence) => {}
            Err(error) => {
                tracing::warn!(%error, "asking for other workers of this id failed and is tried again");
                tokio::time::sleep(limits::CLAIM_ASK_EVERY).await;
            }
        }
    }
}

enum Answer {
    Nobody,
    Taken(Pong),
    Silence,
}

async fn ask_once(bus: &Bus, subject: &str, identity: &Identity) -> Result<Answer, BusError> {
    let inbox = bus.client().new_inbox();
    let mut answers = bus.subscribe(inbox.clone()).await?;
    let question = Control::Ping(Ping {});
    let Ok(question) = tokenbus_protocol::encode(&question).map(Bytes::from) else {
        return Ok(Answer::Nobody); // a constant that can be encoded
    };
    let mut link = bus.link();
    let epoch = link.borrow_and_update().epoch;
    let over = TokioInstant::now() + limits::CLAIM_SILENCE;
    let mut answer = Answer::Silence;
    while TokioInstant::now() < over {
        bus.publish_with_reply(subject.to_owned(), inbox.clone(), question.clone())
            .await?;
        if let Some(given) = given_within(&mut answers, limits::CLAIM_ASK_EVERY, identity).await {
            answer = given;
            break;
        }
        if link.borrow().epoch != epoch || !link.borrow().connected {
            return Err(BusError::Timeout(limits::CLAIM_ASK_EVERY));
        }
    }
    let _ = answers.unsubscribe().await;
    Ok(answer)
}

/// The first answer that says something.
async fn given_within(answers: &mut Subscription, time: Duration, identity: &Identity) -> Option<Answer> {
    let given = async {
        while let Some(message) = answers.next().await {
            if let Some(answer) = read(&message, identity) {
                return Some(answer);
            }
        }
        None
    };
    tokio::time::timeout(time, given).await.ok().flatten()
}

fn read(message: &Message, identity: &Identity) -> Option<Answer> {
    if message.status == Some(StatusCode::NO_RESPONDERS) {
        return Some(Answer::Nobody);
    }
    match tokenbus_protocol::decode(&message.payload) {
        Ok(ControlReply::Pong(pong)) if pong.instance != identity.instance => Some(Answer::Taken(pong)),
        Ok(_) | Err(_) => None,
    }
}
