//! Ports for servers that a test stops and starts again at the same address.
//!
//! A port that the system chose comes from the range out of which every outgoing connection takes its
//! own: while its server is away, one of hundreds of clients can be given it, and the server cannot come
//! back. These lie below that range.

use std::hash::{BuildHasher as _, RandomState};
use std::net::TcpListener;

/// Where Linux (from 32768) and macOS (from 49152) take no ports for outgoing connections.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// A port of loopback that nobody listens on and that no outgoing connection is given.
///
/// # Panics
/// When there is none.
pub fn lasting() -> u16 {
    // The hasher's keys are drawn by the system: tests that run at the same time draw others.
    let seed = RandomState::new().hash_one(std::process::id());
    let size = u64::from(RANGE.end - RANGE.start);
    let free = (0..size)
        .map(|step| RANGE.start + ((seed % size + step) % size) as u16)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.expect("a free port")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lasting_port_is_free_and_outside_the_range_of_outgoing_connections() {
        let port = lasting();
        assert!(RANGE.contains(&port));
        let _held = TcpListener::bind(("127.0.0.1", port)).unwrap();
        assert_ne!(lasting(), port);
    }
}
