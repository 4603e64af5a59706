//! The driver as a `CallStream`: the next output, and the clean-up when the client leaves.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::Driver;
use crate::call::{CallError, CallStream, Output};
use crate::fast_path::splice::Splice;
use crate::stream::event::Event;
use crate::stream::inbox::Next;

impl CallStream for Driver {
    async fn next(&mut self) -> Option<Result<Output, CallError>> {
        loop {
            if let Some(item) = self.try_next() {
                return Some(item);
            }
            if self.ended {
                return None;
            }
            if self.steps.is_empty() {
                self.happening().await;
            } else {
                // Boxed, so that the space to place a call is not held during the whole answer.
                Box::pin(self.step()).await;
            }
        }
    }

    fn try_next(&mut self) -> Option<Result<Output, CallError>> {
        loop {
            if self.ended {
                return None;
            }
            if let Some(item) = self.take() {
                return Some(item);
            }
            if !self.steps.is_empty() {
                return None;
            }
            let next = self.inbox.pop()?;
            self.take_in(next);
        }
    }

    fn splice(&mut self, splice: Option<Splice>) {
        if splice.is_some() && self.outputs.is_empty() {
            // Outputs are rare from now on: free the buffer.
            self.outputs = VecDeque::new();
        }
        self.splice = splice;
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.shared.streams.close(self.number);
        self.inbox.close();
        // An unread `Accepted` names a worker that must be told.
        while let Some(next) = self.inbox.pop() {
            match next {
                Next::Event(event) if event.is_accepted() => self.absorb(event),
                Next::Event(Event::Go) => self.leaves_room(true, Instant::now()),
                Next::Event(_) | Next::Passed(_) => {}
            }
        }
        // Of a streamed answer the client may have seen the beginning, and want no more.
        let unanswered = self.call.in_one_piece && self.state.is_under_way();
        if let Some(ticket) = self.ticket.as_ref().filter(|_| unanswered) {
            self.shared.left_unanswered(ticket);
        }
        self.state.abandon(&mut self.actions);
        self.carry_out(Instant::now());
        self.settle_all();
        self.read();
        self.release();
        if let Some(ticket) = self.ticket.as_ref().filter(|_| self.in_room) {
            self.shared.give_up(ticket);
        }
        if self.called.is_some() {
            self.come();
            // The slot that was free for it is the next one's.
            self.shared.wake(&self.call.model);
        }
    }
}
