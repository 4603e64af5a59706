//! What a worker is told, and who it is.

use std::time::Duration;

use tokenbus_bus::BusOptions;
use tokenbus_bus::clock::unix_ms;
use tokenbus_protocol::{Claim, Labels, MAX_NAME, Name};

use crate::limits;

/// Random characters behind the host name in a worker's default id.
const SUFFIX: usize = 6;

/// What a worker is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// How to reach NATS.
    pub bus: BusOptions,
    /// The cluster.
    pub namespace: Name,
    /// The worker's id, unique in the cluster at any time. By default the host name and a short
    /// random suffix, so that several workers of one host, and a restarted one, do not collide.
    pub worker: Option<Name>,
    /// Requests that run at once, instead of what the engine tells.
    pub slots: Option<u32>,
    /// Requests accepted beyond the slots. 0 by default: a full worker answers `Busy` at once, and
    /// the gateways queue, where priorities and all workers are known.
    pub queue: u32,
    /// How long running streams may go on after the worker was asked to stop.
    pub grace: Duration,
    /// Bytes that may wait for one gateway.
    pub outbox: usize,
    /// Time to the first output beyond which a request is traced in any case, where traces are on.
    pub trace_slow: Duration,
    /// Its labels.
    pub labels: Labels,
    /// Its tier.
    pub tier: u32,
}

impl Options {
    /// The defaults for the cluster `namespace` on the NATS of `bus`.
    pub fn new(bus: BusOptions, namespace: Name) -> Self {
        Self {
            bus,
            namespace,
            worker: None,
            slots: None,
            queue: 0,
            grace: limits::GRACE,
            outbox: limits::OUTBOX,
            trace_slow: tokenbus_telemetry::SLOW,
            labels: Labels::default(),
            tier: 0,
        }
    }
}

/// Who a worker is, in one life of it.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// Its id.
    pub(crate) worker: Name,
    /// Drawn at each start.
    pub(crate) instance: u64,
    /// The host's name.
    pub(crate) host: String,
    /// Unix time of the start in milliseconds.
    pub(crate) started_at_ms: u64,
    /// Its labels.
    pub(crate) labels: Labels,
    /// Its tier.
    pub(crate) tier: u32,
}

impl Identity {
    /// A new life of `worker`, or of a worker named after the host.
    pub(crate) fn new(worker: Option<Name>, fallback: &Name) -> Self {
        let host = nix::unistd::gethostname()
            .ok()
            .and_then(|name| name.into_string().ok())
            .unwrap_or_default();
        Self {
            worker: worker.unwrap_or_else(|| default_name(&host, &suffix(), fallback)),
            // 53 bits: JSON readers of the coordinator's page keep them all.
            instance: fastrand::u64(1..1 << 53),
            host,
            started_at_ms: unix_ms(),
            labels: Labels::default(),
            tier: 0,
        }
    }
}

impl Identity {
    /// What it says to others under its id.
    pub(crate) fn claim(&self) -> Claim {
        Claim {
            instance: self.instance,
            started_at_ms: self.started_at_ms,
        }
    }
}

fn suffix() -> String {
    std::iter::repeat_with(fastrand::lowercase).take(SUFFIX).collect()
}

/// `host` up to its first dot, cut so that the suffix fits.
fn default_name(host: &str, suffix: &str, fallback: &Name) -> Name {
    let short = host.split('.').next().unwrap_or_default();
    let legal = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
    let legal: String = short.chars().map(legal).take(MAX_NAME - SUFFIX - 1).collect();
    let base = match legal.trim_matches('-') {
        "" => "worker",
        base => base,
    };
    Name::sanitized(&format!("{base}-{suffix}"), fallback)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_default_id_is_the_host_with_a_suffix_whatever_the_host_is_called() {
        let fallback = Name::new("tb").unwrap();
        let name = |host: &str| default_name(host, "abcdef", &fallback).as_str().to_owned();
        assert_eq!(name("gpu-1.example.org"), "gpu-1-abcdef");
        assert_eq!(name(""), "worker-abcdef");
        assert_eq!(name(".hidden"), "worker-abcdef");
        let long = name(&"x".repeat(200));
        assert!(long.len() == MAX_NAME && long.ends_with("-abcdef"));
        assert_eq!(name(&"ü".repeat(80)), "worker-abcdef");
        assert_eq!(name("büro_2"), "b-ro_2-abcdef");
    }

    #[test]
    fn two_lives_differ() {
        let fallback = Name::new("tb").unwrap();
        let (one, two) = (Identity::new(None, &fallback), Identity::new(None, &fallback));
        assert_ne!(one.instance, two.instance);
        assert_ne!(one.worker, two.worker);
    }
}
