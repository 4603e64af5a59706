//! The request before the run that finds out which check applies.

use super::args::{Args, Check};
use super::check::{Level, Rules};
use super::conn::Connector;
use super::error::Error;
use super::exchange::{Plan, Session};
use super::failure::Kind;
use super::limits::PROBE_TOKENS;
use super::target::{Target, body};

/// Finds the check for the answers of the run.
///
/// # Errors
/// [`Error::Probe`] if `--check auto` got no answer to judge by.
pub(crate) async fn level(args: &Args, target: &Target, connector: &Connector) -> Result<Level, Error> {
    match args.check {
        Check::Off => return Ok(Level::Transport),
        Check::Stream => return Ok(Level::Protocol),
        Check::Sim => return Ok(Level::Sim),
        Check::Auto => {}
    }
    let max_tokens = PROBE_TOKENS.min(args.max_tokens);
    let usage = args.usage && args.stream;
    let rules = Rules {
        level: Level::Sim,
        usage,
        max_tokens,
    };
    let plan = Plan {
        request: target.request(body(args, max_tokens)),
        rules,
        stream: args.stream,
        timeout: args.timeout,
        settle: args.settle,
    };
    let outcome = Session::new(rules).request(connector, &plan, None, |_| ()).await;
    match outcome.failure {
        None => Ok(Level::Sim),
        Some(failure) if is_no_answer(failure.kind) => Err(Error::Probe(failure.to_string())),
        Some(_) => Ok(Level::Protocol),
    }
}

/// Whether the failure tells nothing about the engine behind the server.
fn is_no_answer(kind: Kind) -> bool {
    use Kind::{Closed, Connect, ErrorEvent, Http, Reset, Status, Timeout, Truncated};
    matches!(
        kind,
        Connect | Closed | Reset | Http | Timeout | Status | ErrorEvent | Truncated
    )
}
