//! The tasks that read what the bus brings, and tell it what is to be told.

pub mod frames;
pub mod survey;
pub mod tell_waiting;
