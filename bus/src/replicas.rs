//! How many replicas streams and buckets have.

use std::fmt;
use std::str::FromStr;

use crate::limits::{MAX_REPLICAS, SAFE_REPLICAS};

/// How many replicas streams and buckets have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Replicas {
    /// Three if the cluster of servers has room for them, otherwise one.
    #[default]
    Auto,
    /// Exactly this many; otherwise the stream is not made.
    Exactly(usize),
}

/// The text is not a number of replicas.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("write auto, or a number from 1 to {MAX_REPLICAS}")]
pub struct ReplicasError;

impl Replicas {
    /// Wanted replicas of a stream, given whether the servers are a cluster.
    pub(crate) fn wanted(self, clustered: bool) -> usize {
        match self {
            Self::Auto if clustered => SAFE_REPLICAS,
            Self::Auto => 1,
            Self::Exactly(count) => count,
        }
    }
}

impl FromStr for Replicas {
    type Err = ReplicasError;

    fn from_str(text: &str) -> Result<Self, ReplicasError> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let count = text.parse().ok().filter(|count| (1..=MAX_REPLICAS).contains(count));
        count.map(Self::Exactly).ok_or(ReplicasError)
    }
}

impl fmt::Display for Replicas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Exactly(count) => count.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_replicas_is_auto_or_one_to_five() {
        for (text, replicas) in [
            ("auto", Ok(Replicas::Auto)),
            ("1", Ok(Replicas::Exactly(1))),
            ("5", Ok(Replicas::Exactly(5))),
            ("0", Err(ReplicasError)),
            ("6", Err(ReplicasError)),
            ("many", Err(ReplicasError)),
        ] {
            assert_eq!(text.parse(), replicas);
            if let Ok(replicas) = replicas {
                assert_eq!(replicas.to_string(), text);
            }
        }
        assert_eq!(Replicas::Auto.wanted(true), 3);
        assert_eq!(Replicas::Auto.wanted(false), 1);
        assert_eq!(Replicas::Exactly(5).wanted(true), 5);
    }
}
