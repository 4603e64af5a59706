//! The tasks of a gateway.

use std::future::Future;

use tokenbus_bus::task;

/// The loops of a gateway; they stop when this is dropped.
#[derive(Default)]
pub(super) struct Tasks(Vec<(&'static str, tokio::task::JoinHandle<()>)>);

impl Tasks {
    /// Starts another one.
    pub(super) fn add(&mut self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        self.0.push((name, task::spawn(name, future)));
    }

    /// Waits until one of them ends: none does by itself.
    pub(super) async fn ended(&mut self) -> &'static str {
        let (_, index, _) = futures_util::future::select_all(self.0.iter_mut().map(|(_, handle)| handle)).await;
        self.0.remove(index).0
    }

    /// Stops all of them, and with them their subscriptions.
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
