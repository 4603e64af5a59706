//! Client connections: accepting them, serving one exchange after the other, closing them in order.

mod chunked;
mod exchanges;
mod http2;
mod leftover;
pub mod server;
mod socket;
