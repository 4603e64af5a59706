//! What the figures look like: tables in Markdown and plots in SVG.

pub mod plot;
pub mod table;
