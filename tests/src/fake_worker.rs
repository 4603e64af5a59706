//! A worker whose every frame the test writes. It does what no real worker would, and the gateway must cope.

use async_nats::{Client, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokenbus_protocol::{
    Accepted, BatchReader, BatchWriter, Body, Control, Delta, Family, Finish, Frame, Name, QUEUE_GROUP, Request, Room,
    Subjects, decode,
};
use uuid::Uuid;

use crate::nats::NatsServer;
use crate::wait::within;

/// A worker on the bus that does nothing by itself.
#[derive(Debug)]
pub struct FakeWorker {
    /// Its connection.
    pub client: Client,
    subjects: Subjects,
    name: Name,
    queue: Subscriber,
    control: Subscriber,
}

/// A request that it received.
#[derive(Debug, Clone)]
pub struct TakenRequest {
    /// The request's id.
    pub id: Uuid,
    /// The gateway that gets the frames.
    pub gateway: Name,
    /// The gateway's number for the stream.
    pub stream: u64,
    /// The attempt.
    pub attempt: u32,
    /// Lower attempts are dead.
    pub floor: u32,
    /// The output of earlier attempts, if there were any.
    pub resume: Option<tokenbus_protocol::Resume>,
    /// The OpenAI request.
    pub body: Bytes,
}

impl FakeWorker {
    /// Joins the namespace `tb` under `name`, serving `model`. NATS has its subscriptions when this returns.
    pub async fn join(nats: &NatsServer, name: &str, model: &str) -> Self {
        let client = nats.client().await;
        let subjects = Subjects::new(Name::new("tb").expect("a legal name"));
        let name = Name::new(name).expect("a legal name");
        let group = QUEUE_GROUP.to_owned();
        let queue = client
            .queue_subscribe(subjects.request(Family::Generate, model), group)
            .await
            .expect("a subscription");
        let control = client.subscribe(subjects.control(&name)).await.expect("a subscription");
        round_trip(&client).await;
        Self {
            client,
            subjects,
            name,
            queue,
            control,
        }
    }

    /// The next request for its model.
    pub async fn next_request(&mut self) -> TakenRequest {
        let message = within("a request at the fake worker", self.queue.next())
            .await
            .expect("it is subscribed");
        let request: Request<'_> = decode(&message.payload).expect("a gateway's request can be decoded");
        TakenRequest {
            id: request.id,
            gateway: request.gateway,
            stream: request.stream,
            attempt: request.attempt,
            floor: request.floor,
            resume: request.resume,
            body: Bytes::copy_from_slice(&request.body),
        }
    }

    /// The next control message. Pings are skipped and not answered, and so is what gateways say of requests that wait.
    pub async fn next_control(&mut self) -> Control {
        loop {
            let message = within("a control message", self.control.next())
                .await
                .expect("it is subscribed");
            match decode(&message.payload).expect("a control message can be decoded") {
                Control::Ping(_) | Control::Waits(_) | Control::Decline(_) => {}
                other => return other,
            }
        }
    }

    /// Sends frames of `taken` as one batch, with the given sequence numbers.
    pub async fn send(&self, taken: &TakenRequest, frames: Vec<(u32, Body<'_>)>) {
        let mut batch = BatchWriter::new();
        for (seq, body) in frames {
            let frame = Frame {
                stream: taken.stream,
                attempt: taken.attempt,
                seq,
                body,
            };
            let full = batch.push(&frame).expect("frames can be encoded");
            assert!(full.is_none(), "a test's batch is small");
        }
        self.publish(taken, batch.seal().expect("there are frames").into())
            .await;
    }

    /// Sends bytes to the subject of `taken`'s frames.
    pub async fn publish(&self, taken: &TakenRequest, bytes: Bytes) {
        let subject = self.subjects.out(&taken.gateway, &self.name);
        self.client.publish(subject, bytes).await.expect("the connection is up");
        self.client.flush().await.expect("the connection is up");
    }

    /// `Accepted` for `taken` in its name.
    pub fn accepted(&self, taken: &TakenRequest, resumable: bool) -> Body<'static> {
        Body::Accepted(Accepted {
            id: taken.id,
            worker: self.name.clone(),
            instance: 1,
            queue_position: 0,
            resumable,
        })
    }

    /// Its name.
    pub fn name(&self) -> &Name {
        &self.name
    }
}

/// A delta with this text and one token.
pub fn text(text: &str) -> Body<'_> {
    Body::Delta(Delta {
        text: text.into(),
        tokens: 1,
        ..Delta::default()
    })
}

/// The delta that ends the choice.
pub fn last(reason: &str) -> Body<'static> {
    Body::Delta(Delta {
        finish_reason: Some(reason.to_owned()),
        ..Delta::default()
    })
}

/// The end of a stream.
pub fn finish() -> Body<'static> {
    Body::Finish(Finish {
        prompt_tokens: Some(1),
        completion_tokens: Some(1),
        ..Finish::default()
    })
}

/// A worker's room.
pub fn room(free: u32) -> Room {
    Room {
        free,
        queued: 0,
        pending: None,
    }
}

/// Waits until the server has processed everything that `client` sent before.
pub async fn round_trip(client: &Client) {
    let inbox = client.new_inbox();
    let mut echo = client.subscribe(inbox.clone()).await.expect("a subscription");
    client.publish(inbox, Bytes::new()).await.expect("the connection is up");
    within("a round trip through NATS", echo.next())
        .await
        .expect("the connection is up");
}

/// Decodes the frames of a message.
///
/// # Panics
/// When the message is not a batch.
pub fn each_frame(message: &[u8], each: impl FnMut(Frame<'_>)) {
    BatchReader::new(message)
        .and_then(|batch| batch.for_each(each))
        .expect("a batch");
}
