//! How many of its own requests a gateway has at each worker.

/// What a gateway knows of the workers' loads.
#[derive(Debug)]
pub(super) struct Loads {
    lives: Vec<bool>,
    own: Vec<u32>,
}

impl Loads {
    /// Nothing runs.
    pub(super) fn new(workers: usize) -> Self {
        Self {
            lives: vec![true; workers],
            own: vec![0; workers],
        }
    }

    /// The workers that are there.
    pub(super) fn living(&self) -> impl Iterator<Item = usize> {
        self.lives
            .iter()
            .enumerate()
            .filter_map(|(worker, lives)| lives.then_some(worker))
    }

    /// This gateway's own requests at a worker.
    pub(super) fn own(&self, worker: usize) -> u32 {
        self.own[worker]
    }

    /// A request was sent.
    pub(super) fn sent(&mut self, worker: usize) {
        self.own[worker] += 1;
    }

    /// A request has ended.
    pub(super) fn ended(&mut self, worker: usize) {
        self.own[worker] = self.own[worker].saturating_sub(1);
    }

    /// The worker is gone.
    pub(super) fn lost(&mut self, worker: usize) {
        self.lives[worker] = false;
    }
}
