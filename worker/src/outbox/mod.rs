//! All that waits to go to one gateway, and the task that sends it.
//!
//! Whoever has a frame appends it to the open batch; the sender takes whatever is there and
//! publishes it as one message. The first frame after a silence wakes the sender, further ones
//! ride along: a step of a continuous-batching engine costs one wake-up and one message.

pub(crate) mod outboxes;
pub(crate) mod post;
mod split;
pub(crate) mod stream;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokenbus_bus::{Bus, BusError};
use tokenbus_protocol::{BatchWriter, Body, Delta, EncodeError, Frame, MAX_BATCH, RawJson};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::limits;
use crate::report::load::Load;
use crate::report::metrics::Metrics;
use crate::sync::lock;

/// How much a frame may press.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Press {
    /// Refused when the outbox is full.
    Stream,
    /// An answer to a request: may go a little beyond the bound.
    Answer,
    /// The same, and it can wait for what comes next: nobody goes on because of it.
    Patient,
    /// The frame that ends a stream: always taken. There is one for each stream.
    Last,
}

/// Why a frame was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PushError {
    /// The gateway (or NATS) does not take what it is sent fast enough.
    #[error("more than {0} bytes wait for this gateway")]
    Full(usize),
    /// The frame cannot be put into bytes.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// What the sender was last woken for.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    /// Nothing that is still there.
    #[default]
    Nothing,
    /// Frames that can wait for what comes next.
    Patient,
    /// Frames that must leave at once.
    Urgent,
}

#[derive(Debug, Default)]
struct Queue {
    sealed: VecDeque<Vec<u8>>,
    sealed_bytes: usize,
    open: BatchWriter,
    /// What the sender knows.
    told: Told,
    /// Somebody waits for room.
    awaited: bool,
    closed: bool,
}

impl Queue {
    fn bytes(&self) -> usize {
        self.sealed_bytes + self.open.size()
    }

    fn seal(&mut self, batch: Option<Vec<u8>>) {
        if let Some(batch) = batch {
            self.sealed_bytes += batch.len();
            self.sealed.push_back(batch);
        }
    }
}

/// What waits for one gateway.
#[derive(Debug)]
pub(crate) struct Outbox {
    queue: Mutex<Queue>,
    bound: usize,
    load: Arc<Load>,
    /// Slots that are kept for its gateway.
    kept: AtomicU32,
    /// Whether anybody is there is to be found out with the next message.
    probe: AtomicBool,
    wake: Notify,
    drained: Arc<Notify>,
}

impl Outbox {
    /// An empty outbox that holds about `bound` bytes.
    pub(crate) fn new(bound: usize, load: Arc<Load>) -> Self {
        Self {
            queue: Mutex::default(),
            bound,
            load,
            kept: AtomicU32::new(0),
            probe: AtomicBool::new(false),
            wake: Notify::new(),
            drained: Arc::default(),
        }
    }

    /// Appends a frame.
    ///
    /// # Errors
    /// [`PushError`]; nothing was appended then.
    pub(crate) fn push(&self, frame: &Frame<'_>, press: Press) -> Result<(), PushError> {
        let mut queue = lock(&self.queue);
        let bound = match press {
            Press::Stream => self.bound,
            Press::Answer | Press::Patient => self.bound.saturating_add(limits::OUTBOX_ANSWERS),
            Press::Last => usize::MAX,
        };
        if queue.bytes() >= bound {
            return Err(PushError::Full(bound));
        }
        let after = queue.open.size().saturating_add(weight(&frame.body));
        if !queue.open.is_empty() && after >= MAX_BATCH - limits::ROOM_RESERVE {
            self.close_batch(&mut queue)?;
        }
        let full = queue.open.push(frame)?;
        queue.seal(full);
        let patient = press == Press::Patient;
        self.signal(queue, if patient { Told::Patient } else { Told::Urgent });
        Ok(())
    }

    /// Sets how many slots are kept for its gateway, which the next batches tell.
    pub(crate) fn set_kept(&self, slots: u32) {
        self.kept.store(slots, Ordering::Relaxed);
    }

    /// Has NATS say if nobody reads what is sent: the next message asks for it, one without
    /// frames of streams when none waits.
    pub(crate) fn probe(&self) {
        self.probe.store(true, Ordering::Relaxed);
        let mut queue = lock(&self.queue);
        if queue.bytes() == 0 {
            // The room cannot fail to be encoded, and there will be a next time.
            let _ = self.close_batch(&mut queue);
            self.signal(queue, Told::Urgent);
        }
    }

    /// Whether the message that was just taken is to be a probe. Asked once for each.
    pub(crate) fn take_probe(&self) -> bool {
        self.probe.swap(false, Ordering::Relaxed)
    }

    fn signal(&self, mut queue: MutexGuard<'_, Queue>, tell: Told) {
        let wake = tell > queue.told;
        queue.told = queue.told.max(tell);
        drop(queue);
        if wake {
            self.wake.notify_one();
        }
    }

    /// Takes the next message, the worker's room at its end.
    pub(crate) fn take(&self) -> Option<Vec<u8>> {
        let mut queue = lock(&self.queue);
        if queue.sealed.is_empty() {
            if queue.open.is_empty() {
                queue.told = Told::Nothing;
                return None;
            }
            // The room cannot fail to be encoded; without it the batch is as good.
            let _ = self.close_batch(&mut queue);
        }
        let batch = queue.sealed.pop_front()?;
        queue.sealed_bytes = queue.sealed_bytes.saturating_sub(batch.len());
        if queue.awaited && queue.bytes() < limits::OUTBOX_ROOM {
            queue.awaited = false;
            self.drained.notify_waiters();
        }
        Some(batch)
    }

    /// What to await before more is pushed; `None` while there is room.
    pub(crate) fn congestion(&self) -> Option<BoxFuture<'static, ()>> {
        let mut queue = lock(&self.queue);
        if queue.bytes() < limits::OUTBOX_CONGESTED.min(self.bound / 2) {
            return None;
        }
        queue.awaited = true;
        // Made under the lock, so that the notification cannot come before it.
        Some(Box::pin(Arc::clone(&self.drained).notified_owned()))
    }

    /// Whether a stream could push nothing.
    pub(crate) fn is_full(&self) -> bool {
        lock(&self.queue).bytes() >= self.bound
    }

    /// Bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        lock(&self.queue).bytes()
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes() == 0
    }

    /// Lets the sender end when it has sent what waits.
    pub(crate) fn close(&self) {
        lock(&self.queue).closed = true;
        self.wake.notify_one();
        self.drained.notify_waiters();
    }

    /// Wakes the sender again: a new one does not know what the last one was told.
    pub(crate) fn nudge(&self) {
        self.wake.notify_one();
    }

    /// Waits for a first frame, or for the end. A frame that was pushed when the sender was awake already has left with
    /// those before it; what woke for it wakes nobody.
    pub(crate) async fn ready(&self) {
        loop {
            self.wake.notified().await;
            if !self.is_empty() || self.is_closed() {
                return;
            }
        }
    }

    /// Whether what waits can wait a little longer.
    fn is_patient(&self) -> bool {
        let queue = lock(&self.queue);
        queue.told != Told::Urgent && !queue.closed
    }

    fn is_closed(&self) -> bool {
        lock(&self.queue).closed
    }

    fn close_batch(&self, queue: &mut Queue) -> Result<(), EncodeError> {
        let room = Frame {
            stream: 0,
            attempt: 0,
            seq: 0,
            body: Body::Room(self.load.room_with(self.kept.load(Ordering::Relaxed))),
        };
        let full = queue.open.push(&room)?;
        queue.seal(full);
        let open = queue.open.seal();
        queue.seal(open);
        Ok(())
    }
}

/// About how many bytes of a frame are not numbers and names of bounded length.
fn weight(body: &Body<'_>) -> usize {
    let raw = |json: &Option<RawJson>| json.as_ref().map_or(0, |json| json.get().len());
    match body {
        Body::Delta(delta) => delta_weight(delta),
        Body::Finish(finish) => raw(&finish.usage) + raw(&finish.chunk),
        Body::Error(error) => error.message.len(),
        Body::Reject(reject) => reject.message.len(),
        Body::Held(held) => held.streams.len() * limits::HELD_STREAM,
        Body::Accepted(_) | Body::Alive(_) | Body::Room(_) | Body::Offer(_) | Body::Unknown => 0,
    }
}

/// About how many bytes the frame of `delta` has.
pub(crate) fn delta_weight(delta: &Delta<'_>) -> usize {
    let extra = delta.extra.as_ref().map_or(0, |extra| extra.weight());
    delta.text.len() + extra + delta.token_ids.len() * 5
}

/// Where an outbox's messages go.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    /// The gateway's subject.
    pub(crate) subject: String,
    /// Where NATS says of a probe that nobody reads it.
    pub(crate) watch: String,
}

/// Goes behind the tasks that are ready now, without a call to the system.
async fn after_others() {
    let mut went = false;
    let turn = |context: &mut Context<'_>| {
        if std::mem::replace(&mut went, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    };
    std::future::poll_fn(turn).await;
}

/// Lets everybody who is ready push first: what they push rides along. A turn that brings more is followed by another: one
/// costs a system call, a message costs several in three processes.
async fn gather(outbox: &Outbox) {
    let mut before = outbox.bytes();
    for _ in 0..limits::GATHER_TURNS {
        tokio::task::yield_now().await;
        // The runtime wakes those that yielded in the opposite order.
        after_others().await;
        let now = outbox.bytes();
        if now == before || now >= limits::SMALL_BATCH {
            return;
        }
        before = now;
    }
}

/// Publishes what comes into `outbox`, in order, until it is closed and empty.
pub(crate) async fn send(outbox: Arc<Outbox>, bus: Bus, route: Route, metrics: Metrics) {
    let mut unflushed = 0;
    loop {
        outbox.ready().await;
        gather(&outbox).await;
        // An engine that answers at once has its first token in the message that says the request was taken.
        if outbox.is_patient() && timeout(limits::PATIENCE, outbox.ready()).await.is_ok() {
            gather(&outbox).await;
        }
        while let Some(batch) = outbox.take() {
            let bytes = batch.len();
            let watch = outbox.take_probe().then_some(&route.watch);
            publish(&bus, &route.subject, watch, Bytes::from(batch), &metrics).await;
            unflushed += bytes;
            // While NATS is away this does not come to an end: what follows stays in the outbox.
            if unflushed >= limits::UNFLUSHED && bus.client().flush().await.is_ok() {
                unflushed = 0;
            }
        }
        if outbox.is_closed() && outbox.is_empty() {
            return;
        }
    }
}

/// Publishes one batch. While NATS is away it tries on: the frames keep their order, and the
/// outbox its bound.
async fn publish(bus: &Bus, subject: &str, watch: Option<&String>, batch: Bytes, metrics: &Metrics) {
    loop {
        let (to, payload) = (subject.to_owned(), batch.clone());
        let sent = match watch {
            None => bus.publish(to, payload).await,
            Some(watch) => bus.publish_with_reply(to, watch.clone(), payload).await,
        };
        match sent {
            Ok(()) => {
                metrics.batches.inc();
                metrics.batch_bytes.inc_by(batch.len() as u64);
                return;
            }
            Err(BusError::Timeout(_)) => {}
            Err(error) => {
                // The gateway sees the hole in the sequence numbers.
                metrics.unsent_batches.inc();
                tracing::error!(%error, subject, bytes = batch.len(), "frames were not sent");
                return;
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests;
