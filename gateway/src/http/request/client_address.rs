//! Where a request's connection comes from, among the request's extensions.

use std::net::IpAddr;

/// The address at the other end of the connection: the client's, or that of the proxy before the gateway.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClientAddress(pub(crate) IpAddr);
