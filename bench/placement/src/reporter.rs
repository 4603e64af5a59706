//! What a worker says of itself to the gateways.

use std::rc::Rc;

use tokenbus_placement::News;

use crate::engine::EngineSpec;
use crate::prompt::Request;
use crate::time::Nanos;

/// What a worker says with its answers.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// Requests that it holds, running and waiting.
    pub active: u32,
    /// Slots that the gateway may take.
    pub free: u32,
    /// Tokens of prompts that it has accepted and not read yet, if it counts them.
    pub pending: Option<f32>,
}

/// What a worker says of itself, once in each interval.
#[derive(Debug, Clone)]
pub struct Report {
    /// Requests that it holds, running and waiting.
    pub active: u32,
    /// Slots that the gateway may take.
    pub free: u32,
    /// When it was made.
    pub at: Nanos,
    /// What more a worker of tokenbus says.
    pub told: Option<Rc<Told>>,
}

/// What a worker of tokenbus says of its engine.
#[derive(Debug, Default)]
pub struct Told {
    /// Tokens of prompts that it has accepted and not read yet.
    pub pending: f32,
    /// Tokens of a prompt that it reads in a millisecond.
    pub prefill: Option<f32>,
    /// The part of the last seconds in which it read prompts.
    pub busy: f32,
    /// Milliseconds to the first token of a prompt without tokens to read.
    pub base_ms: Option<f32>,
    /// Milliseconds for which a request holds a slot.
    pub service_ms: Option<f32>,
    /// Milliseconds between two tokens of an answer.
    pub token_ms: Option<f32>,
    /// What its cache holds: the first of these that a gateway can take in is enough.
    pub news: Vec<News>,
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

    /// Tokens of prompts that were accepted and are not read yet.
    fn pending(&self, now: Nanos) -> f32;

    /// Adds to the worker's status; `regular`, once in each interval.
    fn report(&mut self, report: &mut Report, regular: bool);
}

/// Makes the reporter of a worker.
pub type MakeReporter = fn(&EngineSpec) -> Box<dyn Reporter>;
