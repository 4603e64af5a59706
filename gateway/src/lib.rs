//! The OpenAI-compatible HTTP gateway: HTTP in, frames out.
// Without `testing`, what that module re-exports is public for nobody.
#![cfg_attr(not(feature = "testing"), allow(unreachable_pub))]

mod auth;
mod call;
mod fast_path;
mod file_watch;
mod http;
mod limits;
mod loops;
mod metrics;
mod model_config;
mod placement;
mod responses_store;
mod service;
mod shared;
mod story;
mod stream;
mod usage;
mod waiting_room;

pub use auth::budget::{Budget, Budgets, Money, MoneyError, Spent, spent};
pub use auth::key_table::{KeyEntry, KeyTable};
pub use auth::pattern::Pattern;
pub use auth::secret::{KeyHash, Secret};
pub use auth::source::KeySource;
pub use auth::source::bucket::{BucketError, open as open_key_bucket};
pub use http::connection::server::connections_within;
pub use http::{MostConnections, Origin};
pub use limits::WAITING as DEFAULT_WAITING;
pub use model_config::ModelFile;
pub use service::{GatewayError, Options, run};
pub use tokenbus_api::{EngineRules, MediaUrls};
pub use tokenbus_http_parts::AllowedHost;
pub use usage::UsageStream;
pub use waiting_room::Bounds;

/// Re-exports for this crate's own tests and benchmarks.
#[cfg(feature = "testing")]
pub mod testing {
    pub use crate::auth::Auth;
    pub use crate::call::{Backend, Call, CallError, CallStream, Output, Prospect, Stage};
    pub use crate::fast_path::bypass::Bypass;
    pub use crate::fast_path::lane::Lane;
    pub use crate::fast_path::splice::{Outlet, Sent, Splice};
    pub use crate::fast_path::stream_wire::StreamWire;
    pub use crate::http::connection::http2::settings as http2_settings;
    pub use crate::http::connection::server;
    pub use crate::http::{Bodies, Edge, HttpOptions, page_paths, paths, router};
    pub use crate::limits::STREAM_BUFFER;
    pub use crate::metrics::Metrics;
    pub use crate::model_config::{ModelConfig, ModelTable};
    pub use crate::placement::{Ask, Choice, Overview, Prefixes, Target, Tried, View, Why};
    pub use crate::responses_store::{ResponsesStore, SealKeys};
    pub use crate::story::{KeptStories, Way};
    pub use crate::stream::demux::Streams;
    pub use crate::stream::inbox::{Fate, Inbox};
    pub use crate::usage::Usage;
}
