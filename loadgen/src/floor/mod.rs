//! The floor: a server that knows its tokens already and does nothing but one `send` for each stream and step.
//!
//! One thread, one epoll, all streams stepped together, events and their chunks made beforehand. Whatever writes each token
//! to a connection of its own costs at least this, so it is the unit of comparison between machines and hours.

mod answer;
mod client;
mod steps;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};

use self::answer::Script;
use self::client::{Client, State};
use self::steps::Steps;
use super::args::duration;
use super::limits::{FLOOR_CLIENTS, FLOOR_EVENTS};

const LISTENER: Token = Token(usize::MAX - 1);

/// The least that a server of streams can cost, as a server: for benchmarks only
///
/// It answers POST /v1/chat/completions over HTTP/1.1 with the simulated engine's text. It has no proxy, no engine and no
/// bus: one thread sends each stream its next event, which was made beforehand, every --itl.
#[derive(Debug, Clone, clap::Args)]
pub struct FloorArgs {
    /// Address of the endpoint; its port 0 lets the system choose
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8000")]
    pub listen: SocketAddr,

    /// Time between two tokens of a stream; without it an answer leaves whole [default: 0]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub itl: Option<Duration>,
}

/// The floor cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("the floor cannot be served: {0}")]
pub struct FloorError(#[from] std::io::Error);

/// Serves until the process ends, after it has told its address through `listening`.
///
/// # Errors
/// [`FloorError`] if the address cannot be bound, or the system gives no poller.
pub fn serve(args: &FloorArgs, listening: impl FnOnce(SocketAddr)) -> Result<(), FloorError> {
    let mut listener = TcpListener::bind(args.listen)?;
    let poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    listening(listener.local_addr()?);
    let mut server = Server {
        poll,
        listener,
        clients: Vec::new(),
        free: Vec::new(),
        script: Script::default(),
        steps: Steps::new(args.itl),
    };
    let mut events = Events::with_capacity(FLOOR_EVENTS);
    loop {
        server.turn(&mut events)?;
    }
}

struct Server {
    poll: Poll,
    listener: TcpListener,
    clients: Vec<Option<Client>>,
    /// Numbers without a client.
    free: Vec<usize>,
    script: Script,
    steps: Steps,
}

impl Server {
    /// Awaits events or the next step, and serves them.
    fn turn(&mut self, events: &mut Events) -> Result<(), FloorError> {
        let left = self.steps.left(Instant::now());
        match self.poll.poll(events, left) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => return Ok(()),
            polled => polled?,
        }
        for event in events.iter() {
            match event.token() {
                LISTENER => self.accept(),
                Token(number) => self.ready(number, event.is_readable()),
            }
        }
        if self.steps.is_due(Instant::now()) {
            self.step();
        }
        Ok(())
    }

    fn accept(&mut self) {
        // A client that is gone again, or one too many, is its own loss.
        while let Ok((mut socket, _)) = self.listener.accept() {
            if self.clients.len() - self.free.len() >= FLOOR_CLIENTS || socket.set_nodelay(true).is_err() {
                continue;
            }
            let number = self.free.pop().unwrap_or_else(|| {
                self.clients.push(None);
                self.clients.len() - 1
            });
            let interest = Interest::READABLE | Interest::WRITABLE;
            let registered = self.poll.registry().register(&mut socket, Token(number), interest);
            match (registered, self.clients.get_mut(number)) {
                (Ok(()), Some(place)) => *place = Some(Client::new(socket)),
                _ => self.free.push(number),
            }
        }
    }

    fn ready(&mut self, number: usize, readable: bool) {
        let Some(Some(client)) = self.clients.get_mut(number) else {
            return;
        };
        let mut state = client.flush();
        if state == State::Open && readable {
            state = client.read(&mut self.script, self.steps.are_paced());
        }
        self.settle(number, state);
    }

    /// Sends each stream its next event.
    fn step(&mut self) {
        let mut streaming = false;
        for number in 0..self.clients.len() {
            let Some(Some(client)) = self.clients.get_mut(number) else {
                continue;
            };
            let state = client.step(&self.script);
            streaming |= client.is_streaming();
            self.settle(number, state);
        }
        if !streaming {
            self.steps.stop();
        }
    }

    fn settle(&mut self, number: usize, state: State) {
        let Some(place) = self.clients.get_mut(number) else {
            return;
        };
        if state == State::Gone {
            *place = None;
            self.free.push(number);
        } else if place.as_ref().is_some_and(Client::is_streaming) {
            self.steps.start(Instant::now());
        }
    }
}
