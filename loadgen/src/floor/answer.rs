//! The bytes of all answers, made once: heads, events and their chunks.

use std::io::Write as _;

/// Members of every event, as the simulated engine's HTTP endpoint writes them.
const PREFIX: &str = "data: {\"id\":\"chatcmpl-00000000000000000000000000000000\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"sim\",\"choices\":[";

/// The head of a streamed answer.
pub(super) const HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n";

/// The answer to everything that is not a request for a streamed answer; the connection ends with it.
pub(super) const REFUSAL: &[u8] = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// The chunks of answers, as far as any request has asked for them.
#[derive(Debug, Default)]
pub(super) struct Script {
    /// The chunk of each token.
    tokens: Vec<Box<[u8]>>,
    role: Vec<u8>,
}

impl Script {
    /// Makes what an answer of so many tokens needs.
    pub(super) fn prepare(&mut self, tokens: usize) {
        if self.role.is_empty() {
            self.role = chunk(&event("{\"role\":\"assistant\",\"content\":\"\"}", "null"));
        }
        for number in self.tokens.len()..tokens {
            let text = event(&format!("{{\"content\":\"t{number} \"}}"), "null");
            self.tokens.push(chunk(&text).into_boxed_slice());
        }
    }

    /// The first event of every answer.
    pub(super) fn role(&self) -> &[u8] {
        &self.role
    }

    /// The chunk of one token.
    pub(super) fn token(&self, number: usize) -> &[u8] {
        self.tokens.get(number).map_or(&[], |chunk| chunk)
    }
}

/// The end of an answer of so many tokens.
pub(super) fn end(tokens: usize) -> Vec<u8> {
    let mut text = event("{}", "\"length\"");
    text.push_str(PREFIX);
    text.push_str(&format!(
        "],\"usage\":{{\"prompt_tokens\":1,\"completion_tokens\":{tokens},\"total_tokens\":{}}}}}\n\n",
        tokens + 1
    ));
    text.push_str("data: [DONE]\n\n");
    let mut bytes = chunk(&text);
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

fn event(delta: &str, finish: &str) -> String {
    format!(
        "{PREFIX}{{\"index\":0,\"delta\":{delta},\"logprobs\":null,\"finish_reason\":{finish}}}],\"usage\":null}}\n\n"
    )
}

fn chunk(data: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(data.len() + 16);
    // Writing into memory cannot fail.
    let _ = write!(bytes, "{:x}\r\n{data}\r\n", data.len());
    bytes
}
