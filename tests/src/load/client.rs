//! One checked stream over its own connection.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt as _;
use serde_json::json;

use super::PROMPT_WORDS;
use super::check::{Check, Expected, Failure};
use super::report::Sample;
use crate::http::{CHAT, Client, HttpError, Response, build};

/// Requests an answer in one piece and checks it. No answer for `limit` is a hang.
pub async fn unary(gateway: SocketAddr, model: &str, expected: &Expected, limit: Duration) -> Sample {
    let mut sample = Sample::begin(gateway);
    sample.unary = true;
    sample.result = whole(gateway, model, expected, limit).await;
    sample.end();
    sample
}

async fn whole(gateway: SocketAddr, model: &str, expected: &Expected, limit: Duration) -> Result<(), Failure> {
    let response = head(gateway, model, expected, false, limit).await?;
    if response.status != 200 {
        return Err(status(response).await);
    }
    let body = tokio::time::timeout(limit, response.body.collect());
    let body = body.await.map_err(|_| Failure::Hang)?.map_err(|_| Failure::Broken)?;
    expected.whole(&body.to_bytes())
}

/// Requests a stream and checks it as it comes. Calls `begun` at the first text. Silence for `limit` is a hang.
pub async fn exchange(
    gateway: SocketAddr,
    model: &str,
    expected: &Expected,
    limit: Duration,
    begun: impl FnMut(),
) -> Sample {
    let mut sample = Sample::begin(gateway);
    sample.result = stream(&mut sample, model, expected, limit, begun).await;
    sample.end();
    sample
}

async fn stream(
    sample: &mut Sample,
    model: &str,
    expected: &Expected,
    limit: Duration,
    mut begun: impl FnMut(),
) -> Result<(), Failure> {
    let mut response = head(sample.gateway, model, expected, true, limit).await?;
    if response.status != 200 {
        return Err(status(response).await);
    }
    sample.head = Some(response.at);
    let mut check = Check::new(expected);
    let mut lines = Lines::default();
    loop {
        let frame = tokio::time::timeout(limit, response.body.frame())
            .await
            .map_err(|_| Failure::Hang)?;
        let Some(frame) = frame else {
            return check.end();
        };
        let data = frame.map_err(|_| Failure::Broken)?.into_data().unwrap_or_default();
        lines.push(&data);
        let mut text = false;
        while let Some(event) = lines.event() {
            let event = std::str::from_utf8(&event).map_err(|error| Failure::Wrong(error.to_string()))?;
            if let Some(data) = event.strip_prefix("data: ") {
                text |= check.event(data)?;
            } else if !event.starts_with(':') {
                return Err(Failure::Wrong(format!("no event: {event:?}")));
            }
        }
        if text && sample.text(Instant::now()) {
            begun();
        }
    }
}

async fn head(
    gateway: SocketAddr,
    model: &str,
    expected: &Expected,
    stream: bool,
    limit: Duration,
) -> Result<Response, Failure> {
    let prompt = (0..PROMPT_WORDS)
        .map(|word| word.to_string())
        .collect::<Vec<_>>()
        .join(" ");
    let mut body = json!({
        "model": model, "max_tokens": expected.tokens, "messages": [{"role": "user", "content": prompt}],
    });
    if expected.greedy {
        body["temperature"] = json!(0);
    }
    if stream {
        body["stream"] = json!(true);
        body["stream_options"] = json!({"include_usage": true});
    }
    let request = build(Method::POST, CHAT, &[], Bytes::from(body.to_string()));
    match tokio::time::timeout(limit, Client::new(gateway).try_send(request)).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(HttpError::Connect(error))) => Err(Failure::Refused(error.to_string())),
        Ok(Err(HttpError::Broken(error))) => Err(Failure::Refused(error.to_string())),
        Err(_) => Err(Failure::Hang),
    }
}

async fn status(response: Response) -> Failure {
    let status = response.status.as_u16();
    let retry_after = response.headers.get("retry-after");
    let retry_after = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
    let body = response.body.collect().await.map(http_body_util::Collected::to_bytes);
    let error: serde_json::Value = serde_json::from_slice(&body.unwrap_or_default()).unwrap_or_default();
    let code = error["error"]["code"].as_str().unwrap_or("without a code");
    Failure::Status {
        status,
        code: code.to_owned(),
        retry_after,
    }
}

/// Bytes in, complete events out.
#[derive(Debug, Default)]
struct Lines {
    bytes: Vec<u8>,
    read: usize,
}

impl Lines {
    fn push(&mut self, data: &[u8]) {
        self.bytes.drain(..self.read);
        self.read = 0;
        self.bytes.extend_from_slice(data);
    }

    fn event(&mut self) -> Option<Vec<u8>> {
        let rest = &self.bytes[self.read..];
        // A comment ends with its own line, an event with an empty one.
        let last: &[u8] = if rest.starts_with(b":") { b"\n" } else { b"\n\n" };
        let end = rest.windows(last.len()).position(|bytes| bytes == last)?;
        let event = rest[..end].to_vec();
        self.read += end + last.len();
        Some(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_whole_however_the_bytes_are_cut() {
        let text = b"data: a\n\n: c\ndata: [DONE]\n\n";
        for cut in 0..text.len() {
            let mut lines = Lines::default();
            let mut events = Vec::new();
            for piece in [&text[..cut], &text[cut..]] {
                lines.push(piece);
                while let Some(event) = lines.event() {
                    events.push(String::from_utf8(event).unwrap());
                }
            }
            assert_eq!(events, ["data: a", ": c", "data: [DONE]"], "cut at {cut}");
        }
    }
}
