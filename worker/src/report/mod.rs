//! What a worker tells of itself: how full it is, how fast it is, what it has done.

pub(crate) mod load;
pub(crate) mod malformed;
pub(crate) mod metrics;
pub(crate) mod news;
pub(crate) mod pace;
pub(crate) mod reading;
mod recent;
pub(crate) mod spans;
pub(crate) mod status;
