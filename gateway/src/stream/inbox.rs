//! What waits for one stream's driver: a bounded queue from the demultiplexer to one reader.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

use super::event::Event;

/// Bytes that one event costs beside its text.
const EVENT: usize = 64;

/// A bounded queue of events for one stream.
#[derive(Debug)]
pub struct Inbox {
    queue: Mutex<Queue>,
    reader: AtomicWaker,
    bound: usize,
}

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<Event>,
    bytes: usize,
    overflowed: bool,
    closed: bool,
}

impl Inbox {
    /// An empty inbox that holds at most `bound` bytes.
    pub fn new(bound: usize) -> Self {
        Self {
            queue: Mutex::default(),
            reader: AtomicWaker::new(),
            bound,
        }
    }

    /// Puts an event in and wakes the reader; false when nobody will read it any more.
    ///
    /// Over the bound, output is thrown away and the reader gets [`Event::Overflow`]: the stream
    /// cannot be saved any more, its memory can. Who accepted the request is kept: that worker
    /// has to be told.
    pub fn push(&self, event: Event) -> bool {
        {
            let mut queue = self.lock();
            if queue.closed {
                return false;
            }
            if queue.overflowed {
                return true;
            }
            queue.bytes += EVENT + event.weight();
            queue.events.push_back(event);
            if queue.bytes > self.bound {
                queue.events.retain(Event::is_accepted);
                queue.events.push_back(Event::Overflow);
                queue.overflowed = true;
            }
        }
        self.reader.wake();
        true
    }

    /// Takes nothing more in.
    pub fn close(&self) {
        self.lock().closed = true;
    }

    /// The next event, if there is one.
    pub fn pop(&self) -> Option<Event> {
        let mut queue = self.lock();
        let event = queue.events.pop_front()?;
        queue.bytes = queue.bytes.saturating_sub(EVENT + event.weight());
        Some(event)
    }

    /// The next event; wakes the caller when one comes. One reader at a time.
    pub fn poll_pop(&self, context: &mut Context<'_>) -> Poll<Event> {
        if let Some(event) = self.pop() {
            return Poll::Ready(event);
        }
        self.reader.register(context.waker());
        // An event may have come between the look and the registration.
        self.pop().map_or(Poll::Pending, Poll::Ready)
    }

    // A panic while the lock is held cannot leave the queue half-changed.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_event_wakes_the_reader() {
        let inbox = std::sync::Arc::new(Inbox::new(1024));
        let reader = tokenbus_bus::task::spawn("reader", {
            let inbox = std::sync::Arc::clone(&inbox);
            async move { std::future::poll_fn(|context| inbox.poll_pop(context)).await }
        });
        tokio::task::yield_now().await;
        inbox.push(Event::Go);
        assert_eq!(reader.await.unwrap(), Event::Go);
    }

    #[test]
    fn what_is_read_makes_room_and_what_is_not_overflows_once() {
        let inbox = Inbox::new(3 * EVENT);
        for _ in 0..100 {
            inbox.push(Event::Go);
            assert_eq!(inbox.pop(), Some(Event::Go));
        }
        for _ in 0..100 {
            inbox.push(Event::Go);
        }
        assert_eq!(inbox.pop(), Some(Event::Overflow));
        assert_eq!(inbox.pop(), None);
        assert!(
            inbox.push(Event::Go),
            "it is passed over, but the stream is still there"
        );
        assert_eq!(inbox.pop(), None);
    }

    #[test]
    fn what_was_in_when_it_was_closed_can_be_read_and_nothing_is_added() {
        let inbox = Inbox::new(1024);
        assert!(inbox.push(Event::Go));
        inbox.close();
        assert!(!inbox.push(Event::Go));
        assert_eq!((inbox.pop(), inbox.pop()), (Some(Event::Go), None));
    }
}
