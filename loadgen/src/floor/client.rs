//! One connection of the floor: its request, and where its answer stands.

use std::io::{ErrorKind, Read as _, Write as _};

use mio::net::TcpStream;

use super::answer::{self, Script};
use crate::limits::{FLOOR_BACKLOG_BYTES, FLOOR_MAX_TOKENS, FLOOR_REQUEST_BYTES};

/// Most header fields of a request.
const MAX_FIELDS: usize = 64;

/// Whether a connection is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It is.
    Open,
    /// The client has closed it, or reads too slowly, or does not speak HTTP.
    Gone,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Client {
    socket: TcpStream,
    /// A request that is not complete yet.
    request: Vec<u8>,
    /// What the socket did not take.
    backlog: Vec<u8>,
    /// The next token and how many there are; none between two answers.
    answer: Option<(usize, usize)>,
}

/// What is known of a request.
enum Asked {
    More,
    Tokens { tokens: usize, length: usize },
    Other,
}

impl Client {
    /// A new connection.
    pub(super) fn new(socket: TcpStream) -> Self {
        Self {
            socket,
            request: Vec::new(),
            backlog: Vec::new(),
            answer: None,
        }
    }

    /// Whether an answer is under way.
    pub(super) fn is_streaming(&self) -> bool {
        self.answer.is_some()
    }

    /// Reads what has come. A whole request is answered: with its beginning if tokens come one by one, or else whole.
    pub(super) fn read(&mut self, script: &mut Script, paced: bool) -> State {
        let mut buffer = [0; 4096];
        loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => return State::Gone,
                Ok(length) => self.request.extend_from_slice(buffer.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return State::Gone,
            }
            if self.request.len() > FLOOR_REQUEST_BYTES {
                return State::Gone;
            }
        }
        while self.answer.is_none() {
            let (tokens, length) = match asked(&self.request) {
                Asked::More => break,
                Asked::Tokens { tokens, length } => (tokens, length),
                Asked::Other => {
                    self.send(answer::REFUSAL);
                    return State::Gone;
                }
            };
            self.request.drain(..length);
            script.prepare(tokens);
            let mut first = [answer::HEAD, script.role()].concat();
            if paced && tokens > 0 {
                self.answer = Some((0, tokens));
            } else {
                (0..tokens).for_each(|number| first.extend_from_slice(script.token(number)));
                first.extend_from_slice(&answer::end(tokens));
            }
            if self.send(&first) == State::Gone {
                return State::Gone;
            }
        }
        State::Open
    }

    /// Sends the next token, with the end after the last one.
    pub(super) fn step(&mut self, script: &Script) -> State {
        let Some((number, tokens)) = self.answer else {
            return State::Open;
        };
        if number + 1 < tokens {
            self.answer = Some((number + 1, tokens));
            return self.send(script.token(number));
        }
        self.answer = None;
        let last = [script.token(number), &answer::end(tokens)].concat();
        self.send(&last)
    }

    /// Sends what the socket did not take before.
    pub(super) fn flush(&mut self) -> State {
        if self.backlog.is_empty() {
            return State::Open;
        }
        let backlog = std::mem::take(&mut self.backlog);
        self.send(&backlog)
    }

    fn send(&mut self, mut bytes: &[u8]) -> State {
        while self.backlog.is_empty() && !bytes.is_empty() {
            match self.socket.write(bytes) {
                Ok(wrote) => bytes = bytes.get(wrote..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return State::Gone,
            }
        }
        if self.backlog.len() + bytes.len() > FLOOR_BACKLOG_BYTES {
            return State::Gone;
        }
        self.backlog.extend_from_slice(bytes);
        State::Open
    }
}

fn asked(input: &[u8]) -> Asked {
    #[derive(serde::Deserialize)]
    struct Body {
        #[serde(default = "sixteen")]
        max_tokens: usize,
        #[serde(default)]
        stream: bool,
    }
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let head = match request.parse(input) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) => return Asked::More,
        Err(_) => return Asked::Other,
    };
    let is_length = |field: &&httparse::Header<'_>| field.name.eq_ignore_ascii_case("content-length");
    let value = request
        .headers
        .iter()
        .find(is_length)
        .map_or(&b"0"[..], |field| field.value);
    let Some(length) = std::str::from_utf8(value)
        .ok()
        .and_then(|text| text.trim().parse::<usize>().ok())
    else {
        return Asked::Other;
    };
    let end = head.saturating_add(length);
    let Some(body) = input.get(head..end) else {
        return Asked::More;
    };
    match serde_json::from_slice::<Body>(body) {
        Ok(body) if body.stream && body.max_tokens <= FLOOR_MAX_TOKENS => Asked::Tokens {
            tokens: body.max_tokens,
            length: end,
        },
        _ => Asked::Other,
    }
}

/// Tokens of a request without a limit, as the simulated engine has them.
fn sixteen() -> usize {
    16
}
