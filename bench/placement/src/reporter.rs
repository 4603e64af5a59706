//! What a worker says of itself to the gateways.

use crate::engine::EngineSpec;
use crate::prompt::Request;
use crate::time::Nanos;

/// What a worker says of itself, once in each interval.
#[derive(Debug, Clone)]
pub struct Report {
    /// Requests that it holds, running and waiting.
    pub active: u32,
    /// When it was made.
    pub at: Nanos,
}

/// What a worker does besides its engine so that gateways know more: it sees what the engine does and speaks of it in
/// its status.
pub trait Reporter: std::fmt::Debug {
    /// A request has come to the engine.
    fn accepted(&mut self, request: &Request, now: Nanos);

    /// The engine has read a prompt.
    fn first_token(&mut self, request: &Request, cached: u32, took: Nanos, now: Nanos);

    /// The engine has answered a request.
    fn ended(&mut self, request: &Request, now: Nanos);

    /// Adds to the worker's status.
    fn report(&mut self, report: &mut Report);
}

/// Makes the reporter of a worker.
pub type MakeReporter = fn(&EngineSpec) -> Box<dyn Reporter>;
