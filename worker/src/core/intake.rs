//! What comes in: the worker's subscriptions as one stream of messages.
//!
//! The loop says which subjects it wants; subscribing, confirming and leaving happen beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::task::{Context, Poll};

use async_nats::Message;
use futures_util::stream::SelectAll;
use futures_util::{FutureExt as _, Stream, StreamExt as _};
use tokenbus_bus::{Bus, BusError, Refusals, Subscription, backoff};
use tokenbus_protocol::{Family, Name, QUEUE_GROUP, Subjects};
use tokio::task::JoinSet;

use crate::core::refused::Refused;
use crate::limits;

/// Something that the worker listens to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Interest {
    /// Control messages for this worker.
    Control,
    /// NATS's word on whether gateways are there.
    Gateways,
    /// Requests of one family that a gateway placed on this worker.
    Direct(Family, String),
    /// Requests of one family for whichever worker of the model takes them.
    Queue(Family, String),
}

/// What came in.
#[derive(Debug)]
pub(crate) enum Inbound {
    /// A request.
    Request(Message),
    /// A control message.
    Control(Message),
    /// An answer to a probe of a gateway.
    Gateway(Message),
    /// The server knows of all that is wanted at this moment.
    Confirmed,
    /// What came on subjects that were left has been handed out.
    Left,
}

enum Item {
    Message(Message),
    Ended,
}

struct Tagged {
    interest: Interest,
    generation: u64,
    subscriber: Option<Subscription>,
}

impl Stream for Tagged {
    type Item = (Interest, u64, Item);

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(subscriber) = self.subscriber.as_mut() else {
            return Poll::Ready(None);
        };
        let item = match subscriber.poll_next_unpin(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Some(message)) => Item::Message(message),
            Poll::Ready(None) => {
                self.subscriber = None;
                Item::Ended
            }
        };
        Poll::Ready(Some((self.interest.clone(), self.generation, item)))
    }
}

enum Done {
    Subscribed(Vec<(Interest, u64, Subscription)>),
    Left,
}

/// The worker's subscriptions.
pub(crate) struct Intake {
    bus: Bus,
    subjects: Subjects,
    worker: Name,
    streams: SelectAll<Tagged>,
    /// What is subscribed or being subscribed, with a number that tells a subscription from an
    /// earlier one to the same subject.
    wanted: BTreeMap<Interest, u64>,
    generation: u64,
    tasks: JoinSet<Done>,
    subscribing: usize,
    leaving: usize,
}

impl Intake {
    /// Listens to nothing yet.
    pub(crate) fn new(bus: Bus, subjects: Subjects, worker: Name) -> Self {
        Self {
            bus,
            subjects,
            worker,
            streams: SelectAll::new(),
            wanted: BTreeMap::new(),
            generation: 0,
            tasks: JoinSet::new(),
            subscribing: 0,
            leaving: 0,
        }
    }

    /// What of this the server refuses to deliver. Without its word on gateways, the worker only notices later that
    /// one is gone.
    pub(crate) fn refused(&self, refusals: &Refusals) -> Refused {
        let wanted = self.wanted.keys().filter(|interest| **interest != Interest::Gateways);
        let refused = wanted.filter(|interest| refusals.is_deaf_to(&self.subject(interest)));
        let mut publishes = refusals.publishes();
        Refused {
            interests: refused.cloned().collect(),
            is_mute: refusals.is_deaf_to_answers() || publishes.any(|subject| self.subjects.is_out(subject)),
        }
    }

    /// Whether the server has yet to confirm something that is wanted.
    pub(crate) fn is_subscribing(&self) -> bool {
        self.subscribing > 0
    }

    /// Whether messages may still come on subjects that were left.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving > 0
    }

    /// Subscribes to what is new in `interests` and leaves what is not in it.
    pub(crate) fn want(&mut self, interests: &BTreeSet<Interest>) {
        let gone: BTreeSet<Interest> = self.wanted.keys().filter(|i| !interests.contains(i)).cloned().collect();
        if !gone.is_empty() {
            self.leave(&gone);
        }
        let new: Vec<Interest> = interests
            .iter()
            .filter(|i| !self.wanted.contains_key(i))
            .cloned()
            .collect();
        if new.is_empty() {
            return;
        }
        self.generation += 1;
        let mut list = Vec::with_capacity(new.len());
        for interest in new {
            let subject = self.subject(&interest);
            self.wanted.insert(interest.clone(), self.generation);
            list.push((interest, subject));
        }
        self.subscribing += 1;
        self.tasks.spawn(subscribe(self.bus.clone(), list, self.generation));
    }

    /// Leaves all that is listened to. The server has done so after a round trip.
    pub(crate) async fn close(&mut self) {
        self.wanted.clear();
        self.tasks.shutdown().await;
        for tagged in &mut self.streams {
            if let Some(subscriber) = tagged.subscriber.as_mut() {
                // It fails only for a client that is closed.
                let _ = subscriber.unsubscribe().await;
            }
        }
    }

    /// The next thing that came in; cancel-safe.
    pub(crate) async fn next(&mut self) -> Inbound {
        loop {
            tokio::select! {
                biased;
                Some(done) = self.tasks.join_next(), if !self.tasks.is_empty() => match done {
                    Ok(Done::Subscribed(list)) => {
                        self.subscribing -= 1;
                        self.add(list);
                        if self.subscribing == 0 {
                            return Inbound::Confirmed;
                        }
                    }
                    Ok(Done::Left) => {
                        self.leaving -= 1;
                        if self.leaving == 0 {
                            return Inbound::Left;
                        }
                    }
                    Err(error) => tracing::error!(%error, "a subscription task failed"),
                },
                Some((interest, generation, item)) = self.streams.next(), if !self.streams.is_empty() => match item {
                    Item::Message(message) => return match interest {
                        Interest::Control => Inbound::Control(message),
                        Interest::Gateways => Inbound::Gateway(message),
                        Interest::Direct(..) | Interest::Queue(..) => Inbound::Request(message),
                    },
                    Item::Ended => self.ended(&interest, generation),
                },
                else => std::future::pending().await,
            }
        }
    }

    fn subject(&self, interest: &Interest) -> String {
        match interest {
            Interest::Control => self.subjects.control(&self.worker),
            Interest::Gateways => self.subjects.watch_all(&self.worker),
            Interest::Direct(family, model) => self.subjects.request_to(*family, model, &self.worker),
            Interest::Queue(family, model) => self.subjects.request(*family, model),
        }
    }

    fn add(&mut self, list: Vec<(Interest, u64, Subscription)>) {
        for (interest, generation, subscriber) in list {
            // Dropping one that is not wanted any more unsubscribes it.
            if self.wanted.get(&interest) == Some(&generation) {
                self.streams.push(Tagged {
                    interest,
                    generation,
                    subscriber: Some(subscriber),
                });
            }
        }
    }

    fn leave(&mut self, gone: &BTreeSet<Interest>) {
        self.wanted.retain(|interest, _| !gone.contains(interest));
        for tagged in &mut self.streams {
            let Some(subscriber) = tagged.subscriber.as_mut().filter(|_| gone.contains(&tagged.interest)) else {
                continue;
            };
            // A drain hands out what is under way. It only queues a command; when that queue is
            // full (NATS is away), the subscription is dropped, and nothing can be under way.
            if !matches!(subscriber.drain().now_or_never(), Some(Ok(()))) {
                tagged.subscriber = None;
            }
        }
        self.leaving += 1;
        let bus = self.bus.clone();
        self.tasks.spawn(async move {
            // Without a connection nothing is under way.
            if bus.is_connected()
                && let Err(error) = bus.round_trip().await
            {
                tracing::warn!(%error, "leaving the request subjects was not confirmed");
            }
            Done::Left
        });
    }

    fn ended(&self, interest: &Interest, generation: u64) {
        if self.wanted.get(interest) == Some(&generation) {
            // Only a client that was closed does that, and ours never is.
            tracing::error!(?interest, "a subscription ended unasked");
        }
    }
}

/// Subscribes to all of `list` and returns when the server knows, however long that takes.
async fn subscribe(bus: Bus, list: Vec<(Interest, String)>, generation: u64) -> Done {
    let mut attempt = 0;
    loop {
        bus.connected().await;
        match try_subscribe(&bus, &list, generation).await {
            Ok(subscribed) => return Done::Subscribed(subscribed),
            Err(error) => {
                attempt += 1;
                let pause = backoff::jittered(attempt, limits::SUBSCRIBE_RETRY_FIRST, limits::SUBSCRIBE_RETRY_MAX);
                tracing::warn!(%error, ?pause, "subscribing failed and is tried again");
                tokio::time::sleep(pause).await;
            }
        }
    }
}

async fn try_subscribe(
    bus: &Bus,
    list: &[(Interest, String)],
    generation: u64,
) -> Result<Vec<(Interest, u64, Subscription)>, BusError> {
    let mut subscribed = Vec::with_capacity(list.len());
    for (interest, subject) in list {
        let subscriber = match interest {
            Interest::Queue(..) => bus.queue_subscribe(subject.clone(), QUEUE_GROUP).await?,
            Interest::Control | Interest::Gateways | Interest::Direct(..) => bus.subscribe(subject.clone()).await?,
        };
        subscribed.push((interest.clone(), generation, subscriber));
    }
    bus.confirm().await?;
    Ok(subscribed)
}
