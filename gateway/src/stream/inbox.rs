//! The bounded inbox of one stream: from the demultiplexer to one reader, the stream's driver.
//!
//! Plain text of the current run passes through the stream's [`Lane`] and waits as bytes; everything else waits as an
//! event. Text that has passed came before every waiting event: an event closes the lane, and the reader opens it again
//! when it has taken all events.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokenbus_protocol::{Frame, Name};
use tokio::time::Instant;
use uuid::Uuid;

use super::event::Event;
use super::senders::Senders;
use crate::fast_path::lane::{Lane, Passed};
use crate::limits::{BURST, SLOW_READER};

/// Bytes that an event costs in addition to its text.
const EVENT: usize = 64;

/// An item that the reader takes.
#[derive(Debug)]
pub enum Next {
    /// Text that has passed the lane, before everything else that waits.
    Passed(Passed),
    /// Something that happened.
    Event(Event),
}

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The inbox is closed.
    Gone,
    /// Its worker was not asked for it: it counts for nothing.
    Foreign,
    /// The reader will find it, or the stream was given up earlier.
    Taken,
    /// It is the first text since the last [`Inbox::flush`]: flush the inbox.
    Waits,
    /// It went over the bound: the stream is given up.
    Overflowed,
}

/// A bounded queue for one stream.
#[derive(Debug)]
pub struct Inbox {
    call: Uuid,
    queue: Mutex<Queue>,
    bound: usize,
}

#[derive(Debug, Default)]
struct Queue {
    lane: Option<Lane>,
    passed: Passed,
    senders: Senders,
    events: VecDeque<Event>,
    /// The weight of the events.
    bytes: usize,
    /// Since when more waits than the bound allows.
    over_since: Option<Instant>,
    /// Text waits for [`Inbox::flush`], and the feed knows it.
    touched: bool,
    overflowed: bool,
    closed: bool,
    reader: Option<Waker>,
}

impl Queue {
    fn next(&mut self) -> Option<Next> {
        if self.passed.frames > 0 {
            return Some(Next::Passed(std::mem::take(&mut self.passed)));
        }
        let event = self.events.pop_front()?;
        self.bytes = self.bytes.saturating_sub(EVENT + event.weight());
        Some(Next::Event(event))
    }

    fn put(&mut self, event: Event, bound: usize) {
        self.lane = None;
        self.bytes += EVENT + event.weight();
        if self.events.is_empty() {
            // Events are usually read one by one; the default growth makes room for four.
            self.events.reserve_exact(1);
        }
        self.events.push_back(event);
        self.check(bound);
    }

    /// A reader that leaves more than the bound unread for a while is too slow: output is thrown away and the reader gets
    /// [`Event::Overflow`]. The stream is lost, but not its memory. An engine may send a large delta at once, which is no
    /// fault of the reader, so a burst may be larger. Events of acceptance are kept, because that worker must be told.
    fn check(&mut self, bound: usize) {
        let waits = self.bytes + self.passed.weight();
        if waits <= bound {
            self.over_since = None;
            return;
        }
        let now = Instant::now();
        let since = *self.over_since.get_or_insert(now);
        if waits > bound.saturating_mul(BURST) || now.duration_since(since) >= SLOW_READER {
            self.lane = None;
            self.passed.shed();
            self.events.retain(Event::is_accepted);
            self.events.push_back(Event::Overflow);
            self.overflowed = true;
        }
    }
}

impl Inbox {
    /// An empty inbox for the stream of `call` that holds at most `bound` bytes.
    pub fn new(call: Uuid, bound: usize) -> Self {
        Self {
            call,
            queue: Mutex::default(),
            bound,
        }
    }

    /// Puts an event in and wakes the reader; false if the inbox is closed. Over the bound the stream is given up, and
    /// the reader gets [`Event::Overflow`].
    pub fn push(&self, event: Event) -> bool {
        self.take_in(self.lock(), event) != Fate::Gone
    }

    /// Puts in news of `worker`, if it has or may have the stream.
    pub fn push_of(&self, worker: &Name, event: impl FnOnce() -> Event) {
        let queue = self.lock();
        if queue.senders.knows(worker) {
            self.take_in(queue, event());
        }
    }

    /// `attempt` is about to be sent to `worker`, or with `None` to the queue subject. Only who was asked is heard.
    pub fn sent(&self, attempt: u32, worker: Option<Name>) {
        self.lock().senders.sent(attempt, worker);
    }

    /// The id of the stream's call.
    pub fn call(&self) -> Uuid {
        self.call
    }

    /// Puts in a frame from `worker`: through the lane if it passes, as an event otherwise.
    pub fn push_frame(&self, worker: &Name, frame: Frame<'_>, now: Instant) -> Fate {
        let mut queue = self.lock();
        let Queue { lane, passed, .. } = &mut *queue;
        if !lane.as_mut().is_some_and(|lane| lane.pass(worker, &frame, now, passed)) {
            if !queue.senders.admit(self.call, worker, &frame) {
                return Fate::Foreign;
            }
            let (worker, frame) = (worker.clone(), frame.into_owned());
            return self.take_in(queue, Event::Frame { worker, frame });
        }
        queue.check(self.bound);
        if queue.lane.as_ref().is_some_and(|lane| lane.splice.outlet.is_some()) {
            let waited = std::mem::replace(&mut queue.touched, true);
            return if waited { Fate::Taken } else { Fate::Waits };
        }
        let overflowed = queue.overflowed;
        wake(queue);
        if overflowed { Fate::Overflowed } else { Fate::Taken }
    }

    /// Sends the waiting text through the lane's outlet, or wakes the reader.
    pub fn flush(&self, now: Instant, scratch: &mut Vec<u8>) {
        let mut queue = self.lock();
        queue.touched = false;
        let Queue { lane, passed, .. } = &mut *queue;
        if passed.written.is_empty() {
            return;
        }
        if !lane.as_mut().is_some_and(|lane| passed.send(lane, now, scratch)) {
            wake(queue);
        }
    }

    fn take_in(&self, mut queue: MutexGuard<'_, Queue>, event: Event) -> Fate {
        if queue.closed {
            return Fate::Gone;
        }
        if queue.overflowed {
            return Fate::Taken;
        }
        queue.put(event, self.bound);
        let overflowed = queue.overflowed;
        wake(queue);
        if overflowed { Fate::Overflowed } else { Fate::Taken }
    }

    /// Closes the inbox: it takes nothing more.
    pub fn close(&self) {
        self.lock().closed = true;
    }

    /// Closes the lane and returns what has passed.
    pub fn close_lane(&self) -> Option<Passed> {
        let mut queue = self.lock();
        queue.lane = None;
        (queue.passed.frames > 0).then(|| std::mem::take(&mut queue.passed))
    }

    /// Takes the next item, if any.
    pub fn pop(&self) -> Option<Next> {
        self.lock().next()
    }

    /// Takes the next item, or wakes the caller when one comes. If the inbox is empty, opens `lane` for the next text.
    /// One reader at a time.
    pub fn poll_next(&self, context: &mut Context<'_>, lane: impl FnOnce() -> Option<Lane>) -> Poll<Next> {
        let mut queue = self.lock();
        if let Some(next) = queue.next() {
            return Poll::Ready(next);
        }
        if queue.lane.is_none() && !queue.overflowed {
            queue.lane = lane();
            if queue.lane.is_some() {
                // Events are rare from now on: free the buffer.
                queue.events = VecDeque::new();
            }
        }
        match &mut queue.reader {
            Some(reader) => reader.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    // A panic under the lock cannot leave the queue half-changed.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes the reader outside the lock, because it may look at once.
fn wake(mut queue: MutexGuard<'_, Queue>) {
    let reader = queue.reader.take();
    drop(queue);
    if let Some(reader) = reader {
        reader.wake();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
#[path = "inbox_tests.rs"]
mod tests;
