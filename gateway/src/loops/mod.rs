//! The tasks that read from the bus and write to it. Each owns its subscription and ends only with it.

pub(crate) mod courier;
pub(crate) mod frames;
pub(crate) mod liveness;
pub(crate) mod news;
pub(crate) mod pings;
mod rounds;
pub(crate) mod stories;
pub(crate) mod survey;
pub(crate) mod tell_waiting;
