//! Counts the deaths of a child that is restarted.

use std::time::Duration;

/// Deaths in a row. The caller's pause before a restart grows with them.
#[derive(Debug)]
pub struct Deaths {
    healthy_after: Duration,
    in_a_row: usize,
}

impl Deaths {
    /// A life of at least `healthy_after` resets the count.
    pub fn new(healthy_after: Duration) -> Self {
        Self {
            healthy_after,
            in_a_row: 0,
        }
    }

    /// Counts the death of a child that lived for `life`, or could not be started (zero). Returns the number of
    /// deaths in a row.
    pub fn count(&mut self, life: Duration) -> usize {
        if life >= self.healthy_after {
            self.in_a_row = 0;
        }
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.in_a_row
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_life_resets_the_count() {
        let second = Duration::from_secs(1);
        let mut deaths = Deaths::new(second * 10);
        let lives = [Duration::ZERO, second * 9, second * 10, Duration::ZERO];
        assert_eq!(lives.map(|life| deaths.count(life)), [1, 2, 1, 2]);
    }
}
