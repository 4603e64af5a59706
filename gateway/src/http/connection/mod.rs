//! Client connections: accepted, served one exchange after the other, and closed in good order.

mod chunked;
mod exchanges;
mod leftover;
pub mod server;
mod socket;
