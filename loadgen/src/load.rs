//! The threads that make the load. Each has its own runtime, connections and counts. They share only the budget and the
//! progress counters.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::args::Arrivals;
use super::arrivals::DueTimes;
use super::budget::Budget;
use super::conn::Connector;
use super::error::Error;
use super::exchange::{Outcome, Plan, Session};
use super::failure::Kind;
use super::limits::{BACKOFF, BACKOFF_MAX, PACER_QUEUE, PACER_SLICE};
use super::stats::Stats;

/// The work of one thread.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shape {
    /// This many connections, with one request after the other on each.
    Closed {
        /// Connections of this thread.
        connections: usize,
    },
    /// Requests at given times.
    Open {
        /// Requests per second of all threads.
        rate: f64,
        /// Their spread in time.
        arrivals: Arrivals,
        /// Seed of the spread.
        seed: u64,
        /// This thread's number.
        index: u32,
        /// How many threads there are.
        threads: u32,
        /// Most requests of this thread in flight.
        in_flight: usize,
    },
}

/// Counters for the progress bar.
#[derive(Debug, Default)]
pub(crate) struct ProgressCounts {
    /// Requests that ended.
    pub(crate) ended: AtomicU64,
    /// Requests that failed.
    pub(crate) failed: AtomicU64,
    /// Tokens of requests that ended.
    pub(crate) tokens: AtomicU64,
}

/// One stretch of load: the warm-up, or the measurement.
#[derive(Debug, Clone)]
pub(crate) struct Phase {
    /// The end of the phase.
    pub(crate) budget: Arc<Budget>,
    /// Cuts off the requests under way.
    pub(crate) cut: CancellationToken,
    /// The counters that the progress bar shows.
    pub(crate) live: Arc<ProgressCounts>,
}

type Command = (Phase, oneshot::Sender<Result<Stats, Error>>);

/// A thread of load.
#[derive(Debug)]
pub(crate) struct LoadThread {
    commands: mpsc::Sender<Command>,
}

impl LoadThread {
    /// Starts a thread, which ends when this is dropped.
    ///
    /// # Errors
    /// The operating system's error if it gives no thread or no poller.
    pub(crate) fn start(connector: Connector, plan: Plan, shape: Shape) -> std::io::Result<Self> {
        let (commands, mut received) = mpsc::channel::<Command>(1);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut driver = Driver {
            connector: Arc::new(connector),
            plan: Arc::new(plan),
            shape,
            idle: Vec::new(),
        };
        std::thread::Builder::new()
            .name("bench-load".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    while let Some((phase, reply)) = received.recv().await {
                        // Nobody waits for the answer once the run was given up.
                        let _ = reply.send(driver.run(phase).await);
                    }
                });
            })?;
        Ok(Self { commands })
    }

    /// Runs a phase to its end.
    ///
    /// # Errors
    /// [`Error::Crashed`] if the thread is gone.
    pub(crate) async fn run(&self, phase: Phase) -> Result<Stats, Error> {
        let (reply, answer) = oneshot::channel();
        self.commands.send((phase, reply)).await.map_err(|_| Error::Crashed)?;
        answer.await.map_err(|_| Error::Crashed)?
    }
}

/// The state that the tasks of one phase share. One thread runs them all, so the lock is never contended.
struct Shared {
    connector: Arc<Connector>,
    plan: Arc<Plan>,
    phase: Phase,
    stats: Mutex<Stats>,
}

impl Shared {
    fn stats(&self) -> MutexGuard<'_, Stats> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes one request and counts it. Returns whether there was a connection.
    async fn request(&self, session: &mut Session, due: Option<Instant>) -> bool {
        self.stats().started += 1;
        let fold = |gaps: &[Duration]| self.stats().add_gaps(gaps);
        let outcome: Outcome = session.request(&self.connector, &self.plan, due, fold).await;
        let live = &self.phase.live;
        live.ended.fetch_add(1, Ordering::Relaxed);
        live.tokens.fetch_add(outcome.tokens, Ordering::Relaxed);
        live.failed
            .fetch_add(u64::from(outcome.failure.is_some()), Ordering::Relaxed);
        let connected = outcome.failure.as_ref().is_none_or(|f| f.kind != Kind::Connect);
        self.stats().add(outcome, session.gaps());
        connected
    }
}

struct Driver {
    connector: Arc<Connector>,
    plan: Arc<Plan>,
    shape: Shape,
    /// Idle sessions, the last used one on top.
    idle: Vec<Session>,
}

impl Driver {
    async fn run(&mut self, phase: Phase) -> Result<Stats, Error> {
        let shared = Arc::new(Shared {
            connector: Arc::clone(&self.connector),
            plan: Arc::clone(&self.plan),
            phase,
            stats: Mutex::new(Stats::new()?),
        });
        match self.shape {
            Shape::Closed { connections } => self.closed(&shared, connections).await?,
            Shape::Open { in_flight, .. } => self.open(&shared, in_flight).await?,
        }
        let stats = std::mem::replace(&mut *shared.stats(), Stats::new()?);
        Ok(stats)
    }

    fn session(&mut self) -> Session {
        self.idle.pop().unwrap_or_else(|| Session::new(self.plan.rules))
    }

    async fn closed(&mut self, shared: &Arc<Shared>, connections: usize) -> Result<(), Error> {
        let mut slots = JoinSet::new();
        for _ in 0..connections {
            slots.spawn(closed_slot(Arc::clone(shared), self.session()));
        }
        loop {
            tokio::select! {
                ended = slots.join_next() => match ended {
                    Some(session) => self.take_back(session)?,
                    None => return Ok(()),
                },
                () = shared.phase.cut.cancelled() => {
                    slots.shutdown().await;
                    return Ok(());
                }
            }
        }
    }

    async fn open(&mut self, shared: &Arc<Shared>, in_flight: usize) -> Result<(), Error> {
        let mut due = start_pacer(self.shape, Arc::clone(&shared.phase.budget)).map_err(Error::Thread)?;
        let mut running = JoinSet::new();
        let mut more = true;
        while more || !running.is_empty() {
            tokio::select! {
                biased;
                Some(session) = running.join_next() => self.take_back(session)?,
                at = due.recv(), if more && running.len() < in_flight => match at {
                    Some(at) => {
                        let (shared, mut session) = (Arc::clone(shared), self.session());
                        running.spawn(async move {
                            shared.request(&mut session, Some(at)).await;
                            session
                        });
                    }
                    None => more = false,
                },
                () = shared.phase.cut.cancelled() => {
                    running.shutdown().await;
                    more = false;
                }
            }
        }
        Ok(())
    }

    fn take_back(&mut self, session: Result<Session, JoinError>) -> Result<(), Error> {
        self.idle.push(session.map_err(|_| Error::Crashed)?);
        Ok(())
    }
}

async fn closed_slot(shared: Arc<Shared>, mut session: Session) -> Session {
    let mut pause = BACKOFF;
    while shared.phase.budget.take(Instant::now()) {
        if shared.request(&mut session, None).await {
            pause = BACKOFF;
        } else {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(BACKOFF_MAX);
        }
    }
    session
}

/// Starts the open loop's clock. It has its own thread, because the runtime's timer rounds up to whole milliseconds,
/// which would add to every latency.
fn start_pacer(shape: Shape, budget: Arc<Budget>) -> std::io::Result<mpsc::Receiver<Instant>> {
    let (send, receive) = mpsc::channel(PACER_QUEUE);
    let Shape::Open {
        rate,
        arrivals,
        seed,
        index,
        threads,
        ..
    } = shape
    else {
        return Ok(receive);
    };
    std::thread::Builder::new()
        .name("bench-pacer".to_owned())
        .spawn(move || {
            let start = Instant::now();
            for after in DueTimes::new(arrivals, rate, seed, index, threads) {
                let Some(due) = start.checked_add(after) else { return };
                wait_until(due, &budget);
                if !budget.take(due) || send.blocking_send(due).is_err() {
                    return;
                }
            }
        })?;
    Ok(receive)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a thread of its own, which no task shares; see start_pacer"
)]
fn wait_until(due: Instant, budget: &Budget) {
    loop {
        let now = Instant::now();
        let left = due.saturating_duration_since(now);
        if left.is_zero() || budget.is_over(now) {
            return;
        }
        std::thread::sleep(left.min(PACER_SLICE));
    }
}
