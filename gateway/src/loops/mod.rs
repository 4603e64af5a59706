//! The tasks that read from the bus and write to it. Each owns its subscription and ends only with it.

pub mod courier;
pub mod frames;
pub mod liveness;
pub mod news;
pub mod pings;
pub mod survey;
pub mod tell_waiting;
