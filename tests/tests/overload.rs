//! More clients than the engines can serve: who cannot be served in time hears so at once, and the engines work for
//! those who still listen.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::print_stderr
)]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokenbus_tests::ask::ask_for;
use tokenbus_tests::{Client, Cluster, Role, eventually, metrics};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;

/// Slots of the only worker.
const SLOTS: u32 = 8;

/// What a client heard.
#[derive(Debug, Clone, Copy)]
struct Heard {
    status: u16,
    retry_after: Option<Duration>,
}

/// Asks on a connection of its own and reads the answer to its end. When it is dropped, so is the connection, at once.
async fn ask(local: Ipv4Addr, gateway: SocketAddr, tokens: u64) -> Option<Heard> {
    let socket = TcpSocket::new_v4().ok()?;
    socket.set_zero_linger().ok()?;
    socket.bind(SocketAddr::from((local, 0))).ok()?;
    let mut stream = socket.connect(gateway).await.ok()?;
    let body = ask_for("m", tokens).to_string();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok()?;
    let answer = String::from_utf8_lossy(&answer);
    let after = answer.lines().find_map(|line| line.strip_prefix("retry-after: "));
    Some(Heard {
        status: answer.split(' ').nth(1)?.parse().ok()?,
        retry_after: after
            .and_then(|after| after.trim().parse().ok())
            .map(Duration::from_secs),
    })
}

/// Seconds that one request takes while all slots are busy and nobody waits.
async fn service_time(gateway: SocketAddr, tokens: u64) -> f64 {
    let began = Instant::now();
    let all = join_all((0..SLOTS).map(|_| ask(Ipv4Addr::LOCALHOST, gateway, tokens))).await;
    assert!(
        all.iter().all(|heard| heard.is_some_and(|heard| heard.status == 200)),
        "{all:?}"
    );
    began.elapsed().as_secs_f64()
}

async fn waiting(cluster: &Cluster) -> f64 {
    let page = cluster.client().get("/metrics").await.text();
    metrics::sum(&metrics::parse(&page), "tokenbus_gateway_requests_waiting", &[])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_would_wait_longer_than_its_time_limit_is_refused_at_once_and_told_when_to_come() {
    let worker = Role::sim("m", SLOTS).pace("1ms", "20ms");
    let cluster = Cluster::plan().worker(worker).start().await;
    let gateway = cluster.gateways[0].address();
    let tokens = 30;
    // Until 32 requests have ended, the wait is not known, and nobody is refused because of it.
    for _ in 0..5 {
        service_time(gateway, tokens).await;
    }
    let crowd: Vec<_> = (0..80)
        .map(|_| tokio::spawn(ask(Ipv4Addr::LOCALHOST, gateway, tokens)))
        .collect();
    eventually("the crowd to wait", async || match waiting(&cluster).await {
        count if count >= 70.0 => Ok(()),
        count => Err(count),
    })
    .await;
    // It comes from the crowd's address; about 72 others go first, at 13 a second.
    let client = Client::new(gateway);
    let (began, limit) = (Instant::now(), Duration::from_secs(2));
    let hasty = [("x-request-timeout", "2")];
    let refused = client.chat_with(&hasty, &ask_for("m", tokens)).await;
    let error = refused.error(503);
    assert_eq!(error["code"], "wait_too_long", "{error}");
    assert!(began.elapsed() < limit / 2, "at once, not after {:?}", began.elapsed());
    let after = Duration::from_secs(refused.retry_after());
    assert!((2..=8).contains(&after.as_secs()), "{after:?}");
    tokio::time::sleep(after).await;
    client.chat_with(&hasty, &ask_for("m", tokens)).await.ok();
    for one in crowd {
        assert_eq!(one.await.unwrap().unwrap().status, 200, "who has time waits");
    }
}

/// As many as a debug build carries on two processors that it shares with the clients and other tests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_fifteen_hundred_impatient_clients_leave_the_goodput_as_it_was() {
    storm(1500, 0.6).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "for a release build (TOKENBUS_BIN), or a machine that does nothing else"]
async fn load_three_thousand_impatient_clients_leave_the_goodput_as_it_was() {
    storm(3000, 0.8).await;
}

/// So many clients on 8 slots, which give up after a second. Those that are refused come back when they were told to, the
/// others at once. At least `part` of the capacity goes to those who still listen.
async fn storm(clients: u16, part: f64) {
    let worker = Role::sim("m", SLOTS).pace("1ms", "20ms");
    let cluster = Cluster::plan().worker(worker).start().await;
    let gateway = cluster.gateways[0].address();
    let tokens = 20;
    service_time(gateway, tokens).await;
    let before = service_time(gateway, tokens).await;
    let storm = Storm::default();
    let crowd: Vec<_> = (0..clients)
        .map(|number| {
            let local = Ipv4Addr::new(127, 0, 0, u8::try_from(10 + number % 20).unwrap());
            tokio::spawn(storm.clone().client(local, gateway, tokens))
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(4)).await;
    let (began, first) = (Instant::now(), storm.served.load(Ordering::Relaxed));
    tokio::time::sleep(Duration::from_secs(10)).await;
    let goodput = f64::from(storm.served.load(Ordering::Relaxed) - first) / began.elapsed().as_secs_f64();
    storm.over.store(true, Ordering::Relaxed);
    for client in &crowd {
        client.abort();
    }
    let ended = Instant::now();
    let capacity = f64::from(SLOTS) / before;
    let told = storm.told.load(Ordering::Relaxed);
    eprintln!(
        "measured {{\"scenario\":\"{clients} impatient\",\"goodput\":{goodput:.1},\"capacity\":{capacity:.1},\"told_s\":{told}}}"
    );
    tokio::time::sleep_until((ended + Duration::from_secs(5)).into()).await;
    let left = waiting(&cluster).await;
    assert!(left.abs() < 0.5, "{left} still wait");
    let after = service_time(gateway, tokens).await;
    assert!(after <= before * 1.5, "{after} s after the storm, {before} s before");
    assert!(
        goodput >= capacity * part,
        "{goodput} of {capacity} a second while clients gave up"
    );
    // The last of them has its turn when all before it were served.
    let all = f64::from(clients) / capacity;
    assert!(
        (0.5 * all..2.0 * all + 10.0).contains(&f64::from(told)),
        "the longest Retry-After was {told} s, all are served in {all} s"
    );
}

/// What the clients of a storm count.
#[derive(Clone, Default)]
struct Storm {
    served: Arc<AtomicU32>,
    /// The longest `Retry-After`, in seconds.
    told: Arc<AtomicU32>,
    over: Arc<AtomicBool>,
}

impl Storm {
    /// Asks again and again.
    async fn client(self, local: Ipv4Addr, gateway: SocketAddr, tokens: u64) {
        while !self.over.load(Ordering::Relaxed) {
            let answer = ask(local, gateway, tokens);
            match tokio::time::timeout(Duration::from_secs(1), answer).await {
                Ok(Some(Heard { status: 200, .. })) => {
                    self.served.fetch_add(1, Ordering::Relaxed);
                }
                Ok(heard) => {
                    let told = heard.and_then(|heard| heard.retry_after);
                    let pause = told.unwrap_or(Duration::from_secs(1));
                    self.told
                        .fetch_max(u32::try_from(pause.as_secs()).unwrap(), Ordering::Relaxed);
                    tokio::time::sleep(pause).await;
                }
                Err(_) => {}
            }
        }
    }
}
