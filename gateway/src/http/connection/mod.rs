//! Client connections: accepting them, serving one exchange after the other, closing them in order.

mod chunked;
mod exchanges;
mod head;
pub(crate) mod http2;
mod leftover;
mod places;
mod presence;
pub mod server;
mod socket;
mod turn;
