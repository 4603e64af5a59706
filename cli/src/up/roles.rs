//! The roles of `up`, all in this process: started together, stopped in order.

use futures_util::future::select_all;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::failure::Failure;

/// One running role.
#[derive(Debug)]
struct Role {
    name: &'static str,
    stop: CancellationToken,
    task: JoinHandle<Result<(), Failure>>,
}

/// The running roles. Dropping this asks all of them to stop.
#[derive(Debug, Default)]
pub(super) struct Roles(Vec<Role>);

/// A role that ended though nobody asked it to.
#[derive(Debug, thiserror::Error)]
#[error("the {name} ended: {reason}")]
pub(super) struct RoleEnded {
    name: &'static str,
    reason: String,
}

impl Roles {
    /// Starts a role; `run` is given the token that asks it to stop. Roles are stopped in the order
    /// in which they were started.
    pub(super) fn start<F>(&mut self, name: &'static str, run: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let task = tokenbus_bus::task::spawn(name, run(stop.clone()));
        self.0.push(Role { name, stop, task });
    }

    /// Waits until a role ends, which none should. Cancel-safe.
    pub(super) async fn ended(&mut self) -> RoleEnded {
        if self.0.is_empty() {
            return std::future::pending().await;
        }
        let (result, index, _) = select_all(self.0.iter_mut().map(|role| &mut role.task)).await;
        let name = self.0.remove(index).name;
        let reason = match result {
            Ok(Ok(())) => "without being asked to".to_owned(),
            Ok(Err(failure)) => failure.to_string(),
            Err(error) => error.to_string(),
        };
        RoleEnded { name, reason }
    }

    /// Stops one role after the other, each when the one before it has ended.
    pub(super) async fn stop(mut self) {
        for role in self.0.drain(..) {
            role.stop.cancel();
            match role.task.await {
                Ok(Ok(())) => {}
                Ok(Err(failure)) => tracing::warn!(role = role.name, %failure, "did not stop in order"),
                // Its panic was logged where it happened.
                Err(error) => tracing::warn!(role = role.name, %error, "did not stop in order"),
            }
        }
    }
}

impl Drop for Roles {
    fn drop(&mut self) {
        for role in &self.0 {
            role.stop.cancel();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[tokio::test]
    async fn roles_stop_in_the_order_of_their_start() {
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut roles = Roles::default();
        for name in ["gateway", "worker", "coordinator"] {
            let order = Arc::clone(&order);
            roles.start(name, |stop| async move {
                stop.cancelled().await;
                order.lock().unwrap().push(name);
                Ok(())
            });
        }
        roles.stop().await;
        assert_eq!(*order.lock().unwrap(), ["gateway", "worker", "coordinator"]);
    }

    #[tokio::test]
    async fn a_role_that_ends_by_itself_is_named() {
        let mut roles = Roles::default();
        roles.start("gateway", |stop| async move {
            stop.cancelled().await;
            Ok(())
        });
        roles.start("worker", |_| async { Err("no engine".into()) });
        assert_eq!(roles.ended().await.to_string(), "the worker ended: no engine");
        roles.stop().await;
    }
}
