//! The loop that runs the scaler's command, and the decision when.
//!
//! Only the leader runs it: once when the number of workers should change, and again each time that a start should have
//! taken effect and has not. For one model, one call runs at a time.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Instant;

use tokenbus_protocol::{Capacity, WorkerState};
use tokio::process::Command;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::rules::ScaleRules;
use crate::leader::Leadership;
use crate::limits::{SCALER_CALLS, SCALER_TIMEOUT};

/// Workers of `model` that are there or on their way: not those that leave.
pub(crate) fn current(capacity: &Capacity, model: &str) -> u32 {
    let staying = |state| !matches!(state, WorkerState::Draining | WorkerState::Stopped);
    let workers = capacity.workers.iter().map(|worker| &worker.report);
    let count = workers
        .filter(|report| staying(report.state) && report.models.iter().any(|info| info.name == model))
        .count();
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// The loop.
pub(crate) struct Scaler {
    /// What is run.
    pub(crate) program: PathBuf,
    /// The models that are scaled.
    pub(crate) rules: ScaleRules,
    /// The newest snapshot.
    pub(crate) newest: watch::Receiver<Arc<Capacity>>,
    /// Who leads.
    pub(crate) leadership: watch::Receiver<Leadership>,
}

impl Scaler {
    /// Runs until `shutdown`. Calls that run then are ended.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let mut calls = Calls::default();
        let mut running: JoinSet<String> = JoinSet::new();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = self.newest.changed() => if changed.is_err() { return },
                Some(ended) = running.join_next() => match ended {
                    Ok(model) => calls.ended(&model),
                    // Nothing in a call panics; if one did, its model is not called again.
                    Err(error) => tracing::error!(%error, "a call of the scaler's command failed"),
                },
            }
            let capacity = Arc::clone(&self.newest.borrow_and_update());
            let now = Instant::now();
            if !self.leadership.borrow().leads(now) || capacity.seq == 0 {
                continue;
            }
            for (name, rule) in self.rules.iter() {
                let Some(model) = capacity.models.iter().find(|model| model.model == name) else {
                    continue;
                };
                let (desired, current) = (model.desired_workers, current(&capacity, name));
                if running.len() < SCALER_CALLS && calls.due(name, desired, current, rule.start, now) {
                    calls.begin(name, desired, now);
                    running.spawn(call(self.program.clone(), name.to_owned(), desired, current));
                }
            }
        }
    }
}

/// The last call for each model.
#[derive(Debug, Default)]
struct Calls(HashMap<String, Call>);

#[derive(Debug)]
struct Call {
    desired: u32,
    at: Instant,
    running: bool,
}

impl Calls {
    /// Whether the command should be run for `model` now. One that asked for the same has `patience` to take effect.
    fn due(&self, model: &str, desired: u32, current: u32, patience: std::time::Duration, now: Instant) -> bool {
        match self.0.get(model) {
            None => desired != current,
            Some(last) if last.running => false,
            Some(last) if last.desired != desired => desired != current,
            Some(last) => desired != current && now.saturating_duration_since(last.at) >= patience,
        }
    }

    fn begin(&mut self, model: &str, desired: u32, at: Instant) {
        let running = true;
        self.0.insert(model.to_owned(), Call { desired, at, running });
    }

    fn ended(&mut self, model: &str) {
        if let Some(call) = self.0.get_mut(model) {
            call.running = false;
        }
    }
}

/// Runs the command for one model, to its end. Returns the model.
async fn call(program: PathBuf, model: String, desired: u32, current: u32) -> String {
    tracing::info!(model, desired, current, "calling the scaler's command");
    let ended = tokio::time::timeout(SCALER_TIMEOUT, command(&program, &model, desired, current).status()).await;
    let program = program.display();
    match ended {
        Ok(Ok(status)) if status.success() => {}
        Ok(Ok(status)) => tracing::error!(model, desired, current, %program, %status, "the scaler's command failed"),
        Ok(Err(error)) => tracing::error!(model, %program, %error, "the scaler's command cannot be run"),
        Err(_) => {
            tracing::error!(model, %program, limit = ?SCALER_TIMEOUT, "the scaler's command was ended: it takes too long")
        }
    }
    model
}

/// The command, without a shell and without this process's settings, which hold secrets. What it writes to standard error
/// stands beside the log. What it starts in the background lives on.
fn command(program: &Path, model: &str, desired: u32, current: u32) -> Command {
    let mut command = Command::new(program);
    command
        .arg(model)
        .arg(desired.to_string())
        .arg(current.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .process_group(0)
        .kill_on_drop(true);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TOKENBUS_") {
            command.env_remove(name);
        }
    }
    command
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::limits::EXPECTED_START;

    #[test]
    fn a_call_is_made_once_and_again_when_it_had_no_effect() {
        let start = Instant::now();
        let late = start + EXPECTED_START;
        let mut calls = Calls::default();
        let due = |calls: &Calls, desired, current, now| calls.due("m", desired, current, EXPECTED_START, now);
        assert!(!due(&calls, 1, 1, start), "there is what there should be");
        assert!(due(&calls, 1, 0, start));
        calls.begin("m", 1, start);
        assert!(!due(&calls, 2, 0, late), "one call at a time");
        assert!(calls.due("other", 1, 0, EXPECTED_START, start));
        calls.ended("m");
        assert!(
            !due(&calls, 1, 0, start + Duration::from_secs(1)),
            "a start takes its time"
        );
        assert!(
            due(&calls, 2, 0, start + Duration::from_secs(1)),
            "the wish has changed"
        );
        assert!(due(&calls, 1, 0, late), "it had no effect");
        assert!(!due(&calls, 1, 1, late));
    }
}
