//! A TCP link between two processes that can be cut, frozen and slowed.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

/// What a [`Link`] does with what it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    /// Hands it on, this much later.
    Open(Duration),
    /// Keeps connections and takes nothing more, like a cable pulled out: nobody is told.
    Frozen,
    /// Closes every connection, and each new one at once.
    Cut,
}

/// A TCP proxy on loopback in front of one address.
#[derive(Debug)]
pub struct Link {
    address: SocketAddr,
    flow: watch::Sender<Flow>,
    accepting: JoinHandle<()>,
}

impl Link {
    /// Starts one in front of `target`, open and without delay.
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port on loopback");
        let address = listener.local_addr().expect("a listener has an address");
        let (flow, watched) = watch::channel(Flow::Open(Duration::ZERO));
        let accepting = tokio::spawn(accept(listener, target, watched));
        Self {
            address,
            flow,
            accepting,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes all connections and refuses new ones until [`Link::open`].
    pub fn cut(&self) {
        self.flow.send_replace(Flow::Cut);
    }

    /// Hands nothing on any more, and tells nobody, until [`Link::open`].
    pub fn freeze(&self) {
        self.flow.send_replace(Flow::Frozen);
    }

    /// Hands everything on at once.
    pub fn open(&self) {
        self.flow.send_replace(Flow::Open(Duration::ZERO));
    }

    /// Hands everything on `delay` after it came.
    pub fn delay(&self, delay: Duration) {
        self.flow.send_replace(Flow::Open(delay));
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, flow: watch::Receiver<Flow>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((near, _)) = accepted else { continue };
                if *flow.borrow() != Flow::Cut {
                    connections.spawn(connect(near, target, flow.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connect(near: TcpStream, target: SocketAddr, flow: watch::Receiver<Flow>) {
    let Ok(far) = TcpStream::connect(target).await else {
        return;
    };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
    let mut cut = flow.clone();
    let forth = carry(near_read, far_write, flow.clone());
    let back = carry(far_read, near_write, flow);
    tokio::select! {
        _ = async { tokio::join!(forth, back) } => {}
        _ = cut.wait_for(|flow| *flow == Flow::Cut) => {}
    }
}

/// Hands on what `from` gives to `to`, in order, until either end is closed; then closes `to`.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut flow: watch::Receiver<Flow>) {
    let mut bytes = vec![0; 64 * 1024];
    loop {
        if flow.wait_for(|flow| *flow != Flow::Frozen).await.is_err() {
            return;
        }
        let Ok(read) = from.read(&mut bytes).await else { return };
        let came = Instant::now();
        // Frozen while we waited for bytes: they stay here until the link opens again.
        let Ok(flow) = flow.wait_for(|flow| *flow != Flow::Frozen).await.map(|flow| *flow) else {
            return;
        };
        if let Flow::Open(delay) = flow
            && !delay.is_zero()
        {
            tokio::time::sleep_until(came + delay).await;
        }
        if read == 0 {
            let _ = to.shutdown().await;
            return;
        }
        if to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::within;

    async fn pair(link: &Link, listener: &TcpListener) -> (TcpStream, TcpStream) {
        let (near, far) = tokio::join!(TcpStream::connect(link.address()), listener.accept());
        (near.unwrap(), far.unwrap().0)
    }

    #[tokio::test]
    async fn a_link_carries_freezes_and_cuts() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let link = Link::to(listener.local_addr().unwrap()).await;
        let (mut near, mut far) = pair(&link, &listener).await;
        let mut four = [0; 4];
        near.write_all(b"ping").await.unwrap();
        within("ping", far.read_exact(&mut four)).await.unwrap();

        link.freeze();
        far.write_all(b"pong").await.unwrap();
        let early = tokio::time::timeout(Duration::from_millis(50), near.read_exact(&mut four)).await;
        assert!(early.is_err(), "a frozen link carried something");
        link.delay(Duration::from_millis(50));
        let opened = Instant::now();
        near.write_all(b"more").await.unwrap();
        within("more", far.read_exact(&mut four)).await.unwrap();
        assert!(opened.elapsed() >= Duration::from_millis(50), "the delay was not kept");
        within("pong", near.read_exact(&mut four)).await.unwrap();
        assert_eq!(&four, b"pong");

        link.cut();
        assert_eq!(within("the cut", near.read(&mut four)).await.unwrap_or(0), 0);
        let (mut refused, _) = (TcpStream::connect(link.address()).await.unwrap(), ());
        assert_eq!(within("the refusal", refused.read(&mut four)).await.unwrap_or(0), 0);

        link.open();
        let (mut near, mut far) = pair(&link, &listener).await;
        near.write_all(b"back").await.unwrap();
        within("back", far.read_exact(&mut four)).await.unwrap();
        assert_eq!(&four, b"back");
    }
}
