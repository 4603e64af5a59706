//! The messages of a call to a worker: the request, and the parts of a body that does not fit in it.

use bytes::Bytes;
use serde_bytes::ByteBuf;
use tokenbus_protocol::{
    Control, EncodeError, MAX_MESSAGE, Name, Part, Parts, REQUEST_OVERHEAD, Request, Resume, ResumeChoice, encode,
};
use tokio::time::Instant;
use uuid::Uuid;

use super::event::Attempt;
use crate::call::{Call, CallError};

/// The values of a request message that are not the call's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Envelope<'a> {
    /// The gateway that gets the frames.
    pub gateway: &'a Name,
    /// The stream's number there.
    pub stream: u64,
    /// How often the call was published before.
    pub number: u32,
    /// Largest message that the bus takes, in bytes.
    pub max_payload: usize,
    /// The moment of publishing.
    pub now: Instant,
}

/// The request's message, and the number of body bytes that fit in it. A longer body is cut, and the rest goes in parts
/// of that size.
///
/// # Errors
/// [`CallError::Internal`] if the text delivered so far leaves no space for the request.
pub(crate) fn request(call: &Call, attempt: Attempt, envelope: &Envelope<'_>) -> Result<(Bytes, usize), CallError> {
    let limit = envelope.max_payload.min(MAX_MESSAGE);
    let taken = REQUEST_OVERHEAD + attempt.resume.as_ref().map_or(0, size);
    let room = limit.checked_sub(taken).filter(|room| *room > 0);
    let too_long = || CallError::Internal("the answer so far is larger than a bus message".to_owned());
    let room = room.ok_or_else(too_long)?;
    let first = call.body.len().min(room);
    let parts = (first < call.body.len()).then(|| Parts {
        count: u32::try_from(call.body.len().div_ceil(room)).unwrap_or(u32::MAX),
        bytes: call.body.len() as u64,
    });
    let budget = call.budget(envelope.now);
    let request = Request {
        id: call.id,
        gateway: envelope.gateway.clone(),
        stream: envelope.stream,
        attempt: attempt.attempt,
        floor: attempt.floor,
        kind: call.kind,
        model: call.model.clone(),
        needs: call.needs,
        labels: call.labels.clone(),
        budget_ms: u64::try_from(budget.as_millis()).unwrap_or(u64::MAX),
        priority: call.priority,
        tenant: call.tenant.clone(),
        client_id: Some(call.client_id.clone()),
        trace: call.trace.for_call(envelope.number),
        resume: attempt.resume,
        parts,
        prompt: call.prompt.to_bytes().into(),
        body: call.body.get(..first).unwrap_or_default().into(),
    };
    let message = encode(&request).map_err(|error| CallError::Internal(error.to_string()))?;
    Ok((message.into(), room))
}

/// The message of a further part of a body.
///
/// # Errors
/// [`EncodeError`], which bytes do not cause.
pub(crate) fn part(id: Uuid, attempt: u32, index: u32, data: &[u8]) -> Result<Bytes, EncodeError> {
    let data = ByteBuf::from(data);
    encode(&Control::Part(Part {
        id,
        attempt,
        index,
        data,
    }))
    .map(Bytes::from)
}

/// Upper bound of a resume's bytes in a message.
fn size(resume: &Resume) -> usize {
    let choice = |choice: &ResumeChoice| choice.text.len() + choice.reasoning.len() + 5 * choice.token_ids.len() + 128;
    resume.choices.iter().map(choice).sum()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use tokenbus_protocol::{Features, RequestKind, decode};

    use super::*;

    fn call(body: usize, now: Instant) -> Call {
        Call {
            id: Uuid::nil(),
            kind: RequestKind::Chat,
            model: "m".repeat(256),
            needs: Features::NONE,
            labels: Default::default(),
            body: vec![b'x'; body].into(),
            prompt: tokenbus_placement::Prompt::default(),
            session: None,
            deadline: now + Duration::from_secs(3),
            silence: Duration::from_secs(3),
            priority: 0,
            tenant: Some("t".repeat(64)),
            address: None,
            client_id: "c".repeat(128),
            trace: tokenbus_telemetry::Trace::default(),
            not_resumable: None,
            in_one_piece: true,
            way: crate::story::Way::default(),
        }
    }

    fn made(body: usize, resume: Option<Resume>, max_payload: usize) -> (Bytes, usize) {
        let now = Instant::now();
        let gateway = Name::new("g").unwrap();
        let envelope = Envelope {
            number: 0,
            gateway: &gateway,
            stream: 7,
            max_payload,
            now,
        };
        let attempt = Attempt {
            attempt: 1,
            floor: 1,
            resume,
        };
        request(&call(body, now), attempt, &envelope).unwrap()
    }

    #[test]
    fn a_small_body_is_whole_and_the_budget_is_what_is_left() {
        let (message, _) = made(1000, None, 1 << 20);
        let request: Request<'_> = decode(&message).unwrap();
        assert_eq!(
            (request.body.len(), request.parts, request.budget_ms),
            (1000, None, 3000)
        );
    }

    #[test]
    fn every_message_fits_whatever_is_resumed_and_the_parts_make_the_body() {
        for (body, text) in [(900_000, 500_000), (3_000_000, 0), (5_000_000, 900_000), (1_048_576, 1)] {
            let choice = ResumeChoice {
                text: "y".repeat(text),
                tokens: 9,
                ..ResumeChoice::default()
            };
            let (message, size) = made(body, Some(Resume { choices: vec![choice] }), 1 << 20);
            assert!(message.len() <= 1 << 20, "{body} {text}: {}", message.len());
            let request: Request<'_> = decode(&message).unwrap();
            let parts = request.parts.unwrap();
            assert_eq!(parts.bytes as usize, body);
            assert_eq!(parts.count as usize, body.div_ceil(size));
            assert_eq!(request.body.len(), size);
            assert!(part(Uuid::nil(), 1, 1, &vec![0; size]).unwrap().len() <= 1 << 20);
        }
    }
}
