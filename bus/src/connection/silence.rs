//! Says at the start that no server answers, before a time-out tells why.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::link::Link;
use crate::{limits, task};

/// Waits for a moment. If there is no connection then and no reason either, the log and the link name `servers`.
pub(super) fn watch(link: Arc<watch::Sender<Link>>, servers: String) -> JoinHandle<()> {
    task::spawn("nats-silence", async move {
        let mut told = link.subscribe();
        let known = told.wait_for(|link| link.connected || !link.reason.is_empty());
        if timeout(limits::SAY_SILENCE, known).await.is_ok() {
            return;
        }
        tracing::warn!(servers, "cannot connect to NATS so far: no answer yet");
        link.send_if_modified(|link| {
            let is_unknown = !link.connected && link.reason.is_empty();
            if is_unknown {
                link.reason = format!("{servers}: no answer yet");
            }
            is_unknown
        });
    })
}
