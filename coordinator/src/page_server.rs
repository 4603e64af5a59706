//! Serves the status page's connections, within bounds: whoever reaches the port must not take the coordinator's memory or
//! its open files.

use std::collections::VecDeque;

use axum::Router;
use axum::serve::Listener;
use hyper::server::conn::http1::Builder;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::limits::{PAGE_CONNECTIONS, PAGE_HEAD_BYTES, PAGE_HEAD_TIME, PAGE_WARNING, SHUTDOWN};

/// Serves `router` on `listener` until `shutdown`. Open requests then get [`SHUTDOWN`] to finish.
pub(crate) async fn serve(router: Router, mut listener: TcpListener, shutdown: CancellationToken) {
    let mut http1 = Builder::new();
    http1
        .timer(TokioTimer::new())
        // This also bounds the silence between two requests.
        .header_read_timeout(PAGE_HEAD_TIME)
        .max_buf_size(PAGE_HEAD_BYTES);
    let mut connections = JoinSet::new();
    let mut open = Open::default();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => {}
            // Its errors are dealt with there: it pauses where open files are lacking.
            (tcp, _) = Listener::accept(&mut listener) => {
                let served = connection(tcp, http1.clone(), router.clone(), shutdown.clone());
                open.add(connections.spawn(served));
            }
        }
    }
    let all = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(SHUTDOWN, all).await;
    connections.shutdown().await;
}

async fn connection(tcp: TcpStream, http1: Builder, router: Router, shutdown: CancellationToken) {
    if let Err(error) = tcp.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let served = http1.serve_connection(TokioIo::new(tcp), TowerToHyperService::new(router));
    let mut served = std::pin::pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = shutdown.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the status page ended");
    }
}

/// The open connections, the oldest first.
#[derive(Debug, Default)]
struct Open {
    tasks: VecDeque<AbortHandle>,
    quiet_until: Option<Instant>,
}

impl Open {
    /// Adds one more. If there are too many, the oldest is closed: answers take moments, so what has been open for long is
    /// a connection that is kept for later, or one that will never ask.
    fn add(&mut self, task: AbortHandle) {
        if self.tasks.len() >= PAGE_CONNECTIONS {
            self.tasks.retain(|task| !task.is_finished());
        }
        if self.tasks.len() >= PAGE_CONNECTIONS
            && let Some(oldest) = self.tasks.pop_front()
        {
            oldest.abort();
            let now = Instant::now();
            if self.quiet_until.is_none_or(|until| until <= now) {
                self.quiet_until = Some(now + PAGE_WARNING);
                tracing::warn!(
                    connections = PAGE_CONNECTIONS,
                    "as many connections to the status page are open as may be: the oldest are closed"
                );
            }
        }
        self.tasks.push_back(task);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_head_that_does_not_end_is_given_up_in_time() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let _stop = shutdown.clone().drop_guard();
        drop(tokenbus_bus::task::spawn(
            "page",
            serve(Router::new(), listener, shutdown),
        ));
        let mut client = TcpStream::connect(address).await.unwrap();
        client
            .write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n")
            .await
            .unwrap();
        let begun = Instant::now();
        let _ = client.read_to_end(&mut Vec::new()).await;
        let held = begun.elapsed();
        assert!((PAGE_HEAD_TIME..2 * PAGE_HEAD_TIME).contains(&held), "{held:?}");
    }
}
