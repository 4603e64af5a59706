//! Ports for servers that a test stops and restarts at the same address.
//!
//! A port that the system chooses comes from the range for outgoing connections. While its server is away, one of
//! hundreds of clients may get that port, and the server cannot return. These ports lie below that range.

use std::hash::{BuildHasher as _, RandomState};
use std::net::TcpListener;

/// A range from which Linux (from 32768) and macOS (from 49152) take no ports for outgoing connections.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// A port of loopback that is free and that no outgoing connection gets.
///
/// # Panics
/// When there is none.
pub fn lasting() -> u16 {
    // The system draws the keys of the hasher, so that tests at the same time get different seeds.
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
