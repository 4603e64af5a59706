//! The tasks that read what the bus brings and tell it what is to be told. Each owns its
//! subscription and ends only with it.

pub mod courier;
pub mod frames;
pub mod liveness;
pub mod news;
pub mod pings;
pub mod survey;
pub mod tell_waiting;
