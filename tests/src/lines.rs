//! Answers that are lines of JSON.

use http_body_util::BodyExt as _;
use serde_json::Value;

use crate::http::Response;
use crate::wait::within;

/// Such an answer while it comes. Dropping it closes the connection.
#[derive(Debug)]
pub struct Lines {
    /// The head of the answer.
    pub response: Response,
    bytes: Vec<u8>,
}

impl Lines {
    /// Reads the lines of `response`.
    pub fn new(response: Response) -> Self {
        Self {
            response,
            bytes: Vec::new(),
        }
    }

    /// The next line; `None` at the end.
    ///
    /// # Panics
    /// After the deadline, when the body breaks off, and when a line is not JSON.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(at) = self.bytes.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.bytes.drain(..=at).collect();
                return Some(serde_json::from_slice(&line).expect("a line of JSON"));
            }
            let frame = within("the next line of an answer", self.response.body.frame()).await;
            match frame {
                Some(frame) => self
                    .bytes
                    .extend(frame.expect("a whole body").into_data().unwrap_or_default()),
                None => {
                    assert!(self.bytes.is_empty(), "the answer ended within a line");
                    return None;
                }
            }
        }
    }

    /// The lines that are left.
    pub async fn rest(mut self) -> Vec<Value> {
        let mut rest = Vec::new();
        while let Some(line) = self.next().await {
            rest.push(line);
        }
        rest
    }
}
