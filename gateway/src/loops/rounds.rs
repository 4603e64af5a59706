//! The rhythm of reading from the bus and writing to clients: a loop that is behind reads on before it writes.
//!
//! Whoever has something to send waits in a line. Between two stretches of sends, the loop takes in what has arrived
//! meanwhile. So while it is behind, text of several steps leaves in one write, and the more it is behind the more. While
//! it is not, nothing waits for anything.

use std::collections::VecDeque;

use futures_util::{FutureExt as _, Stream, StreamExt as _};

/// How much is done before the next.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stretch {
    /// Messages that have already arrived and are taken in before anything is sent.
    pub(super) messages: usize,
    /// Sends in a row before other tasks get a turn.
    pub(super) sends: usize,
}

/// Takes in `messages` and sends to whoever they touch, first come, first served, until there are no more messages.
/// `take_in` puts at the end of the line who has something to send and is not in it.
pub(super) async fn run<M, T>(
    messages: impl Stream<Item = M> + Unpin,
    stretch: Stretch,
    mut take_in: impl FnMut(M, &mut VecDeque<T>),
    mut send: impl FnMut(T),
) {
    let mut messages = messages.fuse();
    let mut line = VecDeque::new();
    loop {
        if line.is_empty() {
            match messages.next().await {
                Some(message) => take_in(message, &mut line),
                None => return,
            }
        }
        for _ in 0..stretch.messages {
            // The end of the messages is noticed above, when all is sent.
            let Some(message) = messages.next().now_or_never().flatten() else {
                break;
            };
            take_in(message, &mut line);
        }
        for _ in 0..stretch.sends {
            let Some(one) = line.pop_front() else { break };
            send(one);
        }
        if !line.is_empty() {
            tokio::task::yield_now().await;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use std::cell::RefCell;
    use std::collections::HashMap;

    use tokio::sync::mpsc;

    use super::*;

    const STRETCH: Stretch = Stretch { messages: 4, sends: 8 };

    /// Streams that have text to send, as the inboxes do: a stream that waits in the line is not put there again.
    #[derive(Default)]
    struct Streams {
        waiting: RefCell<HashMap<u32, u32>>,
        writes: RefCell<Vec<(u32, u32)>>,
    }

    impl Streams {
        /// A step of an engine: a token for each stream.
        fn step(&self, streams: u32, line: &mut VecDeque<u32>) {
            for stream in 0..streams {
                let tokens = &mut *self.waiting.borrow_mut();
                let tokens = tokens.entry(stream).or_default();
                if *tokens == 0 {
                    line.push_back(stream);
                }
                *tokens += 1;
            }
        }

        fn send(&self, stream: u32) {
            let tokens = self.waiting.borrow_mut().remove(&stream).expect("it has text");
            self.writes.borrow_mut().push((stream, tokens));
        }
    }

    #[tokio::test]
    async fn what_arrives_while_it_writes_joins_the_writes_to_come() {
        let (steps, arrived) = mpsc::channel::<u32>(64);
        let arrived = futures_util::stream::unfold(arrived, async |mut from| Some((from.recv().await?, from)));
        let streams = Streams::default();
        steps.try_send(40).unwrap();
        let steps = RefCell::new(Some(steps));
        let sent = |stream| {
            streams.send(stream);
            // A second step arrives in the middle of the first one's writes.
            if streams.writes.borrow().len() == 10 {
                steps.take().unwrap().try_send(40).unwrap();
            }
        };
        run(Box::pin(arrived), STRETCH, |step, line| streams.step(step, line), sent).await;
        let writes = streams.writes.take();
        assert_eq!(writes.iter().map(|(_, tokens)| tokens).sum::<u32>(), 80, "all is sent");
        let (mut alone, mut joined) = (0, 0);
        for (_, tokens) in &writes {
            if *tokens == 1 { alone += 1 } else { joined += 1 }
        }
        // The first two stretches had left; of the other streams both tokens leave together.
        assert_eq!((alone, joined), (32, 24), "{writes:?}");
        let mut order: Vec<u32> = writes.iter().map(|(stream, _)| *stream).take(40).collect();
        assert!(order.is_sorted(), "first come, first served");
        order.dedup();
        assert_eq!(order.len(), 40);
    }

    #[tokio::test]
    async fn a_message_that_comes_alone_leaves_alone() {
        let (steps, arrived) = mpsc::channel::<u32>(4);
        let arrived = futures_util::stream::unfold(arrived, async |mut from| Some((from.recv().await?, from)));
        let streams = Streams::default();
        steps.try_send(3).unwrap();
        let steps = RefCell::new(Some(steps));
        let sent = |stream| {
            streams.send(stream);
            if streams.writes.borrow().len() == 3
                && let Some(steps) = steps.take()
            {
                steps.try_send(3).unwrap();
            }
        };
        run(Box::pin(arrived), STRETCH, |step, line| streams.step(step, line), sent).await;
        assert_eq!(
            *streams.writes.borrow(),
            [(0, 1), (1, 1), (2, 1), (0, 1), (1, 1), (2, 1)]
        );
    }
}
