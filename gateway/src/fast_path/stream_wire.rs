//! The sending half of one HTTP/2 stream, with two writers in one order: the task that sends the answer's body, and the
//! demultiplexer, which sends events past it.
//!
//! The library collects what all streams of a connection send, and its connection's task writes it. So all events of
//! one bus message leave in as few writes as the library's buffer allows, and the streams' own tasks sleep on.
//!
//! The library has one waker for each stream, and uses it for resets and for each growth of the stream's capacity: also
//! for the one that the demultiplexer has just asked for itself. [`Alarm`] keeps that from the body's task.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker, ready};

use bytes::{Buf as _, Bytes};
use futures_util::task::AtomicWaker;
use h2::{Reason, SendStream};
use http::HeaderMap;

use crate::fast_path::bypass::Bypass;
use crate::fast_path::splice::Sent;

/// The sending half of one stream.
#[derive(Debug)]
pub struct StreamWire {
    out: Mutex<Out>,
    alarm: Arc<Alarm>,
    /// Rings the alarm: what the library gets instead of the body's task.
    waker: Waker,
}

#[derive(Debug, Default)]
struct Out {
    /// `None` before the answer's head and after its end.
    stream: Option<SendStream<Bytes>>,
    /// The library has all that the body's task has read.
    clean: bool,
}

/// Wakes the body's task, but not while events are sent past it.
#[derive(Debug, Default)]
struct Alarm {
    quiet: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.quiet.load(Ordering::SeqCst) {
            self.task.wake();
        }
    }
}

impl Default for StreamWire {
    fn default() -> Self {
        let alarm = Arc::<Alarm>::default();
        Self {
            out: Mutex::default(),
            waker: Waker::from(Arc::clone(&alarm)),
            alarm,
        }
    }
}

impl StreamWire {
    /// Sends a body on `stream` from now on.
    pub fn begin(&self, stream: SendStream<Bytes>) {
        self.lock().stream = Some(stream);
    }

    /// Ready when the client has given the stream up or the connection is broken.
    pub fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.alarm.task.register(cx.waker());
        match &mut self.lock().stream {
            Some(stream) => stream.poll_reset(&mut Context::from_waker(&self.waker)).map(|_| ()),
            None => Poll::Ready(()),
        }
    }

    /// Gives `data` to the library as far as the flow control lets it pass; ready when nothing is left of it.
    ///
    /// # Errors
    /// When the stream or its connection is broken.
    pub fn poll_send(&self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<Result<(), h2::Error>> {
        self.alarm.task.register(cx.waker());
        let cx = &mut Context::from_waker(&self.waker);
        let mut out = self.lock();
        let Some(stream) = &mut out.stream else {
            return Poll::Ready(Err(Reason::CANCEL.into()));
        };
        while data.has_remaining() {
            stream.reserve_capacity(data.len());
            let room = stream.capacity();
            if room == 0 {
                match ready!(stream.poll_capacity(cx)).transpose()? {
                    Some(_) => continue,
                    None => return Poll::Ready(Err(Reason::CANCEL.into())),
                }
            }
            stream.send_data(data.split_to(room.min(data.len())), false)?;
        }
        out.clean = true;
        Poll::Ready(Ok(()))
    }

    /// Ends the body, with `trailers` if there are any. An error means that the client has left.
    ///
    /// # Errors
    /// When the stream or its connection is broken.
    pub fn end(&self, trailers: Option<HeaderMap>) -> Result<(), h2::Error> {
        let stream = self.lock().stream.take();
        match (stream, trailers) {
            (None, _) => Ok(()),
            (Some(mut stream), None) => stream.send_data(Bytes::new(), true),
            (Some(mut stream), Some(trailers)) => stream.send_trailers(trailers),
        }
    }

    /// Ends the stream in the middle of its body.
    pub fn reset(&self, reason: Reason) {
        if let Some(mut stream) = self.lock().stream.take() {
            stream.send_reset(reason);
        }
    }

    // A panic under the lock cannot leave the data half-changed.
    fn lock(&self) -> MutexGuard<'_, Out> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bypass for StreamWire {
    fn hold(&self) {
        self.lock().clean = false;
    }

    fn send_events(&self, events: &[u8], _: &mut Vec<u8>) -> Sent {
        let mut out = self.lock();
        let clean = out.clean;
        let Some(stream) = out.stream.as_mut().filter(|_| clean) else {
            return Sent::NotNow;
        };
        self.alarm.quiet.store(true, Ordering::SeqCst);
        // What the flow control holds back waits in the stream's inbox, where it is bounded.
        stream.reserve_capacity(events.len());
        let sent = if stream.capacity() < events.len() {
            Sent::NotNow
        } else if stream.send_data(Bytes::copy_from_slice(events), false).is_ok() {
            Sent::All
        } else {
            Sent::Broken
        };
        self.alarm.quiet.store(false, Ordering::SeqCst);
        // The library forgets a waker that it has used. A reset that came until here is found, a later one wakes.
        if stream.poll_reset(&mut Context::from_waker(&self.waker)).is_ready() {
            self.alarm.task.wake();
        }
        sent
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::disallowed_methods)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::AtomicUsize;

    use futures_util::FutureExt as _;
    use h2::RecvStream;
    use http::{Request, Response};

    use super::*;

    /// A stream whose client takes `window` bytes, and the client's half.
    async fn pair(window: u32) -> (Arc<StreamWire>, RecvStream) {
        let (client, server) = tokio::io::duplex(1024);
        let wire = Arc::new(StreamWire::default());
        let serving = Arc::clone(&wire);
        tokenbus_bus::task::spawn("server", async move {
            let mut connection = h2::server::handshake(server).await.unwrap();
            while let Some(stream) = connection.accept().await {
                let (_, mut respond) = stream.unwrap();
                serving.begin(respond.send_response(Response::new(()), false).unwrap());
            }
        });
        let mut builder = h2::client::Builder::new();
        let (mut requests, connection) = builder
            .initial_window_size(window)
            .handshake::<_, Bytes>(client)
            .await
            .unwrap();
        tokenbus_bus::task::spawn("client", async move { connection.await.unwrap() });
        let request = Request::get("http://host/").body(()).unwrap();
        let (response, _) = requests.send_request(request, true).unwrap();
        (wire, response.await.unwrap().into_body())
    }

    async fn give(wire: &StreamWire, bytes: &'static [u8]) {
        wire.hold();
        let mut data = Bytes::from_static(bytes);
        poll_fn(|cx| wire.poll_send(cx, &mut data)).await.unwrap();
    }

    #[tokio::test]
    async fn events_pass_between_what_the_body_sends_and_keep_their_order() {
        let (wire, mut client) = pair(1024).await;
        let events = |text: &str| wire.send_events(text.as_bytes(), &mut Vec::new());
        assert_eq!(events("too early"), Sent::NotNow);
        give(&wire, b"one ").await;
        assert_eq!(events("two "), Sent::All);
        wire.hold();
        assert_eq!(events("before what waits"), Sent::NotNow);
        give(&wire, b"three").await;
        wire.end(None).unwrap();
        assert_eq!(events("too late"), Sent::NotNow);
        let mut got = Vec::new();
        while let Some(data) = client.data().await {
            got.extend_from_slice(&data.unwrap());
        }
        assert_eq!(got, b"one two three");
    }

    #[tokio::test]
    async fn nothing_passes_that_the_client_has_no_room_for() {
        let (wire, mut client) = pair(8).await;
        give(&wire, b"1234").await;
        assert_eq!(wire.send_events(b"56789", &mut Vec::new()), Sent::NotNow);
        assert_eq!(wire.send_events(b"5678", &mut Vec::new()), Sent::All);
        assert_eq!(wire.send_events(b"9", &mut Vec::new()), Sent::NotNow);
        let mut got = 0;
        while got < 8 {
            got += client.data().await.unwrap().unwrap().len();
        }
        client.flow_control().release_capacity(8).unwrap();
        give(&wire, b"9").await;
        assert_eq!(client.data().await.unwrap().unwrap(), "9");
    }

    #[tokio::test]
    async fn a_client_that_resets_the_stream_is_gone() {
        let (wire, client) = pair(1024).await;
        give(&wire, b"1").await;
        assert!(poll_fn(|cx| wire.poll_gone(cx)).now_or_never().is_none());
        drop(client);
        poll_fn(|cx| wire.poll_gone(cx)).await;
    }

    /// Tells how often it was woken, and wakes who waits for that.
    #[derive(Default)]
    struct Woken(AtomicUsize, tokio::sync::Notify);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
            self.1.notify_one();
        }
    }

    #[tokio::test]
    async fn events_leave_the_task_of_the_body_asleep_and_a_reset_after_them_wakes_it() {
        let (wire, mut client) = pair(1024).await;
        give(&wire, b"0").await;
        assert_eq!(client.data().await.unwrap().unwrap(), "0");
        let woken = Arc::<Woken>::default();
        let waker = Waker::from(Arc::clone(&woken));
        assert!(wire.poll_gone(&mut Context::from_waker(&waker)).is_pending());
        for event in [&b"one"[..], b"twice as long", b"3"] {
            assert_eq!(wire.send_events(event, &mut Vec::new()), Sent::All);
            assert_eq!(client.data().await.unwrap().unwrap(), event);
        }
        assert_eq!(woken.0.load(Ordering::SeqCst), 0);
        drop(client);
        let within = tokio::time::timeout(std::time::Duration::from_secs(10), woken.1.notified());
        within.await.expect("the reset wakes the task");
        assert!(wire.poll_gone(&mut Context::from_waker(&waker)).is_ready());
    }
}
