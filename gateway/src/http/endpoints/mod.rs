//! The endpoints, one file each, and the table of all routes.

pub(crate) mod chat;
pub(crate) mod cluster;
pub(crate) mod completions;
pub(crate) mod embeddings;
pub(crate) mod endpoint;
pub(crate) mod health;
pub(crate) mod messages;
pub(crate) mod models;
mod offered_tools;
pub(crate) mod ollama;
pub(crate) mod ollama_models;
pub(crate) mod page;
pub(crate) mod rank;
pub(crate) mod responses;
pub(crate) mod routes;
pub(crate) mod tokens;
