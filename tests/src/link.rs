//! A TCP link between two processes that can be cut, frozen and slowed.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

/// The delay of a [`Link`]. Data stays in order: whatever follows delayed data is delayed too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Late {
    /// Everything by this much.
    By(Duration),
    /// Every other read by this much.
    InTurn(Duration),
    /// One of this many reads by this much, as when TCP retransmits a packet.
    Lost(u32, Duration),
}

impl Late {
    /// The delay of the read numbered `number`.
    fn of(self, number: u32) -> Duration {
        match self {
            Self::By(time) => time,
            Self::InTurn(time) if number.is_multiple_of(2) => time,
            Self::Lost(one_of, time) if number.is_multiple_of(one_of) => time,
            Self::InTurn(_) | Self::Lost(..) => Duration::ZERO,
        }
    }
}

/// What a [`Link`] does with the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    /// Passes it on with this delay.
    Open(Late),
    /// Keeps connections and takes no more data, like a pulled cable: nobody is told.
    Frozen,
    /// Closes every connection, and new ones at once.
    Cut,
}

/// A TCP proxy on loopback in front of one address.
#[derive(Debug)]
pub struct Link {
    address: SocketAddr,
    flow: watch::Sender<Flow>,
    accepting: JoinHandle<()>,
}

/// Delayed reads on a link at once: enough for seconds of a worker's small messages.
const UNDER_WAY: usize = 4096;

const AT_ONCE: Flow = Flow::Open(Late::By(Duration::ZERO));

impl Link {
    /// Starts a link to `target`, open and without delay.
    pub async fn to(target: SocketAddr) -> Self {
        Self::to_one_of(vec![target]).await
    }

    /// Starts a link to several servers. Each connection goes to the next server that accepts it.
    ///
    /// # Panics
    /// Without servers.
    pub async fn to_one_of(targets: Vec<SocketAddr>) -> Self {
        assert!(!targets.is_empty(), "a link needs somewhere to go");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port on loopback");
        let address = listener.local_addr().expect("a listener has an address");
        let (flow, watched) = watch::channel(AT_ONCE);
        let accepting = tokio::spawn(accept(listener, targets, watched));
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

    /// Passes nothing on, without telling anybody, until [`Link::open`].
    pub fn freeze(&self) {
        self.flow.send_replace(Flow::Frozen);
    }

    /// Passes everything on at once.
    pub fn open(&self) {
        self.flow.send_replace(AT_ONCE);
    }

    /// Passes everything on `delay` after its arrival.
    pub fn delay(&self, delay: Duration) {
        self.late(Late::By(delay));
    }

    /// Passes everything on in order, with this delay.
    pub fn late(&self, late: Late) {
        self.flow.send_replace(Flow::Open(late));
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, mut targets: Vec<SocketAddr>, flow: watch::Receiver<Flow>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((near, _)) = accepted else { continue };
                if *flow.borrow() != Flow::Cut {
                    connections.spawn(connect(near, targets.clone(), flow.clone()));
                    targets.rotate_left(1);
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connect(near: TcpStream, targets: Vec<SocketAddr>, flow: watch::Receiver<Flow>) {
    let Ok(far) = TcpStream::connect(targets.as_slice()).await else {
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

/// Passes data from `from` to `to`, in order, until either end closes, and then closes `to`. The delay of each
/// piece is as given, however much is on its way before it.
async fn carry(from: OwnedReadHalf, to: OwnedWriteHalf, flow: watch::Receiver<Flow>) {
    let (queue, under_way) = mpsc::channel(UNDER_WAY);
    tokio::join!(take(from, queue, flow.clone()), hand(under_way, to, flow));
}

async fn take(mut from: OwnedReadHalf, queue: mpsc::Sender<(Instant, Vec<u8>)>, mut flow: watch::Receiver<Flow>) {
    let mut bytes = vec![0; 64 * 1024];
    for number in 0_u32.. {
        if flow.wait_for(|flow| *flow != Flow::Frozen).await.is_err() {
            return;
        }
        // The other end may close while this one is silent.
        let read = tokio::select! {
            read = from.read(&mut bytes) => read,
            () = queue.closed() => return,
        };
        let Ok(read) = read else { return };
        let late = match *flow.borrow() {
            Flow::Open(late) => late.of(number),
            Flow::Frozen | Flow::Cut => Duration::ZERO,
        };
        if read == 0
            || queue
                .send((Instant::now() + late, bytes[..read].to_vec()))
                .await
                .is_err()
        {
            return;
        }
    }
}

async fn hand(
    mut under_way: mpsc::Receiver<(Instant, Vec<u8>)>,
    mut to: OwnedWriteHalf,
    mut flow: watch::Receiver<Flow>,
) {
    while let Some((due, bytes)) = under_way.recv().await {
        tokio::time::sleep_until(due).await;
        // The link was frozen meanwhile: the data stays here until it opens.
        if flow.wait_for(|flow| *flow != Flow::Frozen).await.is_err() {
            return;
        }
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::within;

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

    #[tokio::test]
    async fn what_is_late_is_late_by_no_more_than_was_said() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let link = Link::to(listener.local_addr().unwrap()).await;
        let (mut near, mut far) = pair(&link, &listener).await;
        link.delay(Duration::from_millis(500));
        let sent = Instant::now();
        let mut four = [0; 4];
        // Ten pieces in a row. If each waited for the one before, the last would be five seconds late.
        let send = async {
            for _ in 0..10 {
                near.write_all(b"more").await.unwrap();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let receive = async {
            for _ in 0..10 {
                far.read_exact(&mut four).await.unwrap();
            }
            sent.elapsed()
        };
        let (took, ()) = within("all of it", async { tokio::join!(receive, send) }).await;
        assert!(
            took >= Duration::from_millis(500) && took < Duration::from_secs(4),
            "{took:?}"
        );
    }

    #[test]
    fn lateness_is_a_matter_of_turns() {
        let time = Duration::from_millis(300);
        let late = |late: Late| (0..6).map(|number| late.of(number).is_zero()).collect::<Vec<_>>();
        assert_eq!(late(Late::By(time)), [false; 6]);
        assert_eq!(late(Late::InTurn(time)), [false, true, false, true, false, true]);
        assert_eq!(late(Late::Lost(3, time)), [false, true, true, false, true, true]);
    }

    #[tokio::test]
    async fn connections_go_to_one_server_after_the_other() {
        let (one, two) = (
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
        );
        let link = Link::to_one_of(vec![one.local_addr().unwrap(), two.local_addr().unwrap()]).await;
        let _first = pair(&link, &one).await;
        let _second = pair(&link, &two).await;
        drop(two);
        // A server that does not accept is skipped.
        let _third = pair(&link, &one).await;
        let _fourth = pair(&link, &one).await;
    }
}
