//! What chat and text completions share: the members of their requests, the encoder of their chunks, the collector of
//! their whole answers. What differs is in a [`Style`], which each of the two APIs implements.

pub(crate) mod collector;
pub(crate) mod encoder;
pub(crate) mod members;
pub(crate) mod merge;
pub(crate) mod style;
pub(crate) mod view;

pub(crate) use style::Style;
