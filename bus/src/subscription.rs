//! A subscription that bounds in bytes what waits for its reader.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use async_nats::{Message, Subscriber, UnsubscribeError};
use futures_util::{Stream, StreamExt as _};

use crate::metrics::BusMetrics;

/// The messages of one subscription.
///
/// The NATS client counts the messages that wait, whatever their size. So each time the reader comes, everything that
/// has arrived is taken from the client, and what is over the bound is dropped and counted. What arrives while the
/// reader computes waits in the client; a reader that awaits anything else does it in [`take_in_during`].
#[derive(Debug)]
pub struct Subscription<S = Subscriber> {
    inner: S,
    arrived: VecDeque<Message>,
    /// The weight of what has arrived.
    bytes: usize,
    bound: usize,
    /// Messages are being dropped, and the log says so.
    drops: bool,
    ended: bool,
    metrics: BusMetrics,
}

impl<S> Subscription<S> {
    /// Holds at most `bound` bytes of messages, or a single larger one.
    pub(crate) fn new(inner: S, bound: usize, metrics: BusMetrics) -> Self {
        Self {
            inner,
            arrived: VecDeque::new(),
            bytes: 0,
            bound,
            drops: false,
            ended: false,
            metrics,
        }
    }

    fn take(&mut self, message: Message) {
        let weight = weight(&message);
        if self.bytes + weight <= self.bound || self.arrived.is_empty() {
            self.bytes += weight;
            self.arrived.push_back(message);
            return;
        }
        self.metrics.slow_consumers.inc();
        if !std::mem::replace(&mut self.drops, true) {
            let (subject, bytes) = (&message.subject, self.bytes);
            tracing::warn!(%subject, bytes, "messages from NATS are dropped: this process cannot keep up");
        }
    }
}

impl Subscription {
    /// Ends it. What has arrived can still be read.
    ///
    /// # Errors
    /// The client is closed.
    pub async fn unsubscribe(&mut self) -> Result<(), UnsubscribeError> {
        self.inner.unsubscribe().await
    }

    /// Ends it once everything that is under way has arrived.
    ///
    /// # Errors
    /// The client is closed.
    pub async fn drain(&mut self) -> Result<(), UnsubscribeError> {
        self.inner.drain().await
    }
}

/// Bytes that a message takes, with its place in the queue.
fn weight(message: &Message) -> usize {
    message.length + size_of::<Message>()
}

/// Awaits `work`, and meanwhile takes in what arrives on `subscriptions`: so the bound in bytes holds however long the work
/// takes.
pub async fn take_in_during<'a, S, T>(
    subscriptions: impl IntoIterator<Item = &'a mut Subscription<S>>,
    work: impl Future<Output = T>,
) -> T
where
    S: Stream<Item = Message> + Unpin + 'a,
{
    let mut subscriptions: Vec<_> = subscriptions.into_iter().collect();
    let mut work = pin!(work);
    poll_fn(|cx| {
        for subscription in &mut subscriptions {
            subscription.take_in(cx);
        }
        work.as_mut().poll(cx)
    })
    .await
}

impl<S: Stream<Item = Message> + Unpin> Subscription<S> {
    /// Takes in what has arrived.
    fn take_in(&mut self, cx: &mut Context<'_>) {
        while !self.ended {
            match self.inner.poll_next_unpin(cx) {
                Poll::Ready(Some(message)) => self.take(message),
                Poll::Ready(None) => self.ended = true,
                Poll::Pending => break,
            }
        }
    }
}

impl<S: Stream<Item = Message> + Unpin> Stream for Subscription<S> {
    type Item = Message;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        self.take_in(cx);
        match self.arrived.pop_front() {
            Some(message) => {
                self.bytes -= weight(&message);
                Poll::Ready(Some(message))
            }
            None if self.ended => Poll::Ready(None),
            None => {
                self.drops = false;
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use bytes::Bytes;
    use futures_util::{FutureExt as _, stream};
    use tokio::sync::mpsc;

    use super::*;

    fn message(number: u8, bytes: usize) -> Message {
        Message {
            subject: "s".into(),
            reply: None,
            payload: Bytes::from(vec![number; bytes]),
            headers: None,
            status: None,
            description: None,
            length: bytes,
        }
    }

    /// The numbers of the messages that can be read now.
    fn read(subscription: &mut Subscription<impl Stream<Item = Message> + Unpin>) -> Vec<u8> {
        let all = std::iter::from_fn(|| subscription.next().now_or_never().flatten());
        all.map(|message| message.payload.first().copied().unwrap()).collect()
    }

    #[tokio::test]
    async fn what_waits_is_bounded_in_bytes_in_its_order() {
        let (sender, mut receiver) = mpsc::channel(64);
        let metrics = BusMetrics::default();
        let inner = stream::poll_fn(move |cx| receiver.poll_recv(cx));
        let mut subscription = Subscription::new(inner, 4096, metrics.clone());
        for number in 0..10 {
            sender.try_send(message(number, 1000)).unwrap();
        }
        assert_eq!(read(&mut subscription), [0, 1, 2]);
        assert_eq!(metrics.slow_consumers.get(), 7);
        // The reader has caught up: there is room again. A single message may be larger than the bound.
        sender.try_send(message(10, 10_000)).unwrap();
        sender.try_send(message(11, 1)).unwrap();
        assert_eq!(read(&mut subscription), [10]);
        for number in 12..15 {
            sender.try_send(message(number, 1)).unwrap();
            assert_eq!(read(&mut subscription), [number]);
        }
        assert_eq!((metrics.slow_consumers.get(), subscription.bytes), (8, 0));
        sender.try_send(message(15, 1)).unwrap();
        drop(sender);
        assert_eq!(read(&mut subscription), [15]);
        assert!(subscription.next().await.is_none());
    }
    #[tokio::test]
    async fn a_reader_that_is_stuck_holds_no_more_than_the_bound() {
        const MEGABYTE: usize = 1024 * 1024;
        let (sender, mut receiver) = mpsc::channel(2000);
        let metrics = BusMetrics::default();
        let inner = stream::poll_fn(move |cx| receiver.poll_recv(cx));
        let mut subscription = Subscription::new(inner, 64 * MEGABYTE, metrics.clone());
        let (finish, stuck) = tokio::sync::oneshot::channel();
        let work = async {
            for number in 0..1000_u32 {
                let whole = message(number.to_le_bytes()[0], MEGABYTE);
                sender.send(whole).await.unwrap();
                // Nothing of it stays with the client, whose queue counts messages only.
                tokio::task::yield_now().await;
                assert!(sender.max_capacity() - sender.capacity() <= 1);
            }
            let _ = finish.send(());
        };
        let reader = take_in_during([&mut subscription], stuck);
        let (_, finished) = tokio::join!(work, reader);
        finished.unwrap();
        assert!(subscription.bytes <= 64 * MEGABYTE);
        let held = read(&mut subscription);
        assert_eq!(held, (0..63).collect::<Vec<u8>>(), "the first that fit, in their order");
        assert_eq!(metrics.slow_consumers.get(), 1000 - 63);
        sender.try_send(message(9, 1)).unwrap();
        assert_eq!(read(&mut subscription), [9]);
    }
}
