//! The tasks of a gateway.

use std::future::Future;

use tokenbus_bus::task;

/// The running loops of a gateway. Dropping this stops them.
#[derive(Default)]
pub(super) struct Tasks(Vec<(&'static str, tokio::task::JoinHandle<()>)>);

impl Tasks {
    /// Starts another loop.
    pub(super) fn add(&mut self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        self.0.push((name, task::spawn(name, future)));
    }

    /// Waits until a loop ends and returns its name. No loop ends by itself.
    pub(super) async fn ended(&mut self) -> &'static str {
        let (_, index, _) = futures_util::future::select_all(self.0.iter_mut().map(|(_, handle)| handle)).await;
        self.0.remove(index).0
    }

    /// Stops all loops, and their subscriptions with them.
    pub(super) async fn end(&mut self) {
        for (_, handle) in &self.0 {
            handle.abort();
        }
        for (_, handle) in self.0.drain(..) {
            // A panic was logged where it happened.
            let _ = handle.await;
        }
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        for (_, handle) in &self.0 {
            handle.abort();
        }
    }
}
