//! The flags that all gateways have for access and for the names of models.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ArgAction;
use tokenbus_gateway::{
    AllowedHost, EngineRules, GatewayError, KeySource, MediaUrls, ModelFile, Options, Origin, UsageStream,
};

use crate::failure::{Failure, Unusable};
use crate::listen::Listen;
use crate::shared::duration;
use crate::size::Size;

/// Access to a gateway, and the meaning of model names there.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct AccessArgs {
    /// API keys to ask for: a TOML file, kv for the cluster's bucket in JetStream, or kv:BUCKET; see
    /// `tokenbus keys`
    #[arg(long, value_name = "FILE|kv[:BUCKET]", help_heading = "Access")]
    pub(crate) keys: Option<KeySource>,

    /// Serve everybody who can reach it, where it listens beyond this machine and has no --keys
    #[arg(long, action = ArgAction::SetTrue, help_heading = "Access")]
    pub(crate) insecure: bool,

    /// Address at which clients reach it, where that is not --listen: a port that a container publishes. It decides
    /// whether keys are needed
    #[arg(long, value_name = "HOST:PORT", help_heading = "Access")]
    pub(crate) published: Option<Listen>,

    /// Origin whose pages may use it from a browser, as in https://example.org, or * for all; repeated
    #[arg(long, value_name = "ORIGIN", help_heading = "Access")]
    pub(crate) cors_origin: Vec<Origin>,

    /// Name under which it may be asked without keys, beside its addresses and localhost; * for all; repeated
    #[arg(long, value_name = "HOST", help_heading = "Access")]
    pub(crate) allowed_host: Vec<AllowedHost>,

    /// Member with which any request may steer the inside of an engine, as in priority; * for all; repeated
    #[arg(long, value_name = "NAME", help_heading = "Access")]
    pub(crate) engine_member: Vec<String>,

    /// Media that engines may fetch for a request: none, data (what is in the request itself), any, or hosts
    #[arg(
        long,
        value_name = "none|data|HOST,…|any",
        default_value = "data",
        help_heading = "Access"
    )]
    pub(crate) media_urls: MediaUrls,

    /// Keep the cached prompts of tenants apart in engines that can (vLLM, SGLang), so that no tenant can find out by the
    /// time to the first token what another has asked
    #[arg(long, action = ArgAction::SetTrue, help_heading = "Access")]
    pub(crate) cache_salt: bool,

    /// Aliases, fallbacks and defaults of models: a TOML file with tables [models."NAME"]
    /// [default: those of --config]
    #[arg(long, value_name = "FILE")]
    pub(crate) models: Option<PathBuf>,

    /// Keep usage records in a JetStream stream of this name; it is made where there is none
    #[arg(long, value_name = "NAME", help_heading = "Usage")]
    pub(crate) usage_stream: Option<String>,

    /// How long the stream keeps a record
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "30d", help_heading = "Usage")]
    pub(crate) usage_stream_age: Duration,

    /// How much the stream keeps; the oldest records go first
    #[arg(long, value_name = "SIZE", default_value = "1GiB", help_heading = "Usage")]
    pub(crate) usage_stream_size: Size,
}

impl AccessArgs {
    /// Refuses an open gateway that nobody asked for.
    ///
    /// # Errors
    /// [`Unusable`] if others can reach `listen`, or the published address, and no keys are required.
    pub(crate) async fn check(&self, listen: &Listen) -> Result<(), Unusable> {
        let (flag, reached, private) = match &self.published {
            Some(published) => ("--published", published, published.is_private().await),
            None => ("--listen", listen, listen.is_loopback().await),
        };
        if self.keys.is_some() || self.insecure || private {
            return Ok(());
        }
        Err(Unusable(format!(
            "{flag} {reached} can be reached from other machines, and no API key is asked for: \
             give --keys FILE (`tokenbus keys create` makes one), or --insecure to serve everybody"
        )))
    }

    /// Applies the flags; `config` is the file of all settings, if there is one.
    pub(crate) fn apply(self, options: &mut Options, config: Option<&Path>) {
        options.keys = self.keys;
        options.http.cors = self.cors_origin;
        options.http.allowed_hosts = self.allowed_host;
        options.http.cache_salt = self.cache_salt;
        options.http.engine = EngineRules {
            members: self.engine_member,
            media: self.media_urls,
        };
        options.models = self.models.map(|path| ModelFile {
            shared: config == Some(path.as_path()),
            path,
        });
        let (age, size) = (self.usage_stream_age, self.usage_stream_size);
        options.usage_stream = self.usage_stream.map(|name| UsageStream {
            name,
            age,
            bytes: size.0 as u64,
        });
    }
}

/// The error that ended a gateway: a setting that cannot be used, or a failure.
pub(crate) fn failure(error: GatewayError) -> Failure {
    match error {
        GatewayError::Keys(_) | GatewayError::Models(_) | GatewayError::Telemetry(_) => {
            Unusable(error.to_string()).into()
        }
        other => other.into(),
    }
}
