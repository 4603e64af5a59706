//! `tokenbus keys`: make, list and revoke API keys, in a file or in the bucket that gateways share.

mod bucket;
mod error;
mod file;

use std::num::{NonZeroU32, NonZeroU64};
use std::process::ExitCode;

use clap::ArgAction;
use comfy_table::presets::NOTHING;
use comfy_table::{Cell, Table};
use tokenbus_gateway::{KeyEntry, KeyHash, KeySource, Pattern, Secret};
use tokenbus_protocol::Name;

use self::bucket::Bucket;
use self::error::KeysError;
use self::file::File;
use crate::failure::{Failure, Unusable};
use crate::shared::{BusArgs, KeptArgs};
use crate::ui;

/// Make, list and revoke API keys
///
/// Keys are kept as hashes: a key is shown once, when it is made. Gateways read the file or the bucket again
/// when it changes; --keys is the same as theirs.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum Action {
    /// Make a key and print it, once
    Create(Create),
    /// List the keys and what they may do
    List(Place),
    /// Take a key back: gateways refuse it within moments, what runs goes on
    Revoke(Revoke),
}

/// Where the keys are.
#[derive(Debug, Clone, clap::Args)]
struct Place {
    #[command(flatten)]
    bus: BusArgs,

    #[command(flatten)]
    kept: KeptArgs,

    /// Where the keys are: a TOML file, kv for the cluster's bucket in JetStream, or kv:BUCKET
    #[arg(long, value_name = "FILE|kv[:BUCKET]", required = true)]
    keys: Option<KeySource>,
}

#[derive(Debug, Clone, clap::Args)]
struct Create {
    #[command(flatten)]
    place: Place,

    /// The key's name, in logs, metrics and usage records: letters, digits, - and _
    #[arg(value_name = "NAME")]
    name: Name,

    /// Who takes turns and pays [default: the key's name]
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,

    /// A model that it may use, with * for any characters; repeated [default: all]
    #[arg(long, value_name = "MODEL")]
    allow: Vec<String>,

    /// Requests a minute, over all gateways [default: no limit]
    #[arg(long, value_name = "N")]
    requests_per_minute: Option<NonZeroU32>,

    /// Tokens a minute, prompt and completion, over all gateways [default: no limit]
    #[arg(long, value_name = "N")]
    tokens_per_minute: Option<NonZeroU64>,

    /// Requests that run at once, over all gateways [default: no limit]
    #[arg(long, value_name = "N")]
    streams: Option<NonZeroU32>,

    /// Priority of its requests, and the highest that they may ask for: -1000 to 1000
    #[arg(long, value_name = "N", default_value_t = 0, allow_hyphen_values = true)]
    priority: i32,

    /// Let it read /metrics
    #[arg(long, action = ArgAction::SetTrue)]
    read_metrics: bool,

    /// Let it see workers, hosts and loads in /cluster
    #[arg(long, action = ArgAction::SetTrue)]
    see_cluster: bool,

    /// Let its requests have members that steer the inside of an engine
    #[arg(long, action = ArgAction::SetTrue)]
    engine_members: bool,
}

#[derive(Debug, Clone, clap::Args)]
struct Revoke {
    #[command(flatten)]
    place: Place,

    /// The key's name
    #[arg(value_name = "NAME")]
    name: Name,
}

/// Where keys are kept.
enum Store {
    File(File),
    Bucket(Box<Bucket>),
}

impl Store {
    async fn open(place: &Place) -> Result<Self, Failure> {
        match &place.keys {
            Some(KeySource::File(path)) => Ok(Self::File(File::new(path))),
            Some(KeySource::Bucket(name)) => Ok(Self::Bucket(Box::new(
                Bucket::open(&place.bus, &place.kept, name.as_deref()).await?,
            ))),
            None => Err(Unusable("say where the keys are: --keys FILE, or --keys kv".to_owned()).into()),
        }
    }

    async fn add(&self, name: &Name, entry: &KeyEntry) -> Result<(), KeysError> {
        match self {
            Self::File(file) => file.add(name, entry),
            Self::Bucket(bucket) => bucket.add(name, entry).await,
        }
    }

    async fn remove(&self, name: &Name) -> Result<(), KeysError> {
        match self {
            Self::File(file) => file.remove(name),
            Self::Bucket(bucket) => bucket.remove(name).await,
        }
    }

    async fn list(&self) -> Result<Vec<(String, KeyEntry)>, KeysError> {
        match self {
            Self::File(file) => file.list(),
            Self::Bucket(bucket) => bucket.list().await,
        }
    }
}

/// Runs the subcommand.
pub(crate) async fn run(args: Args) -> Result<ExitCode, Failure> {
    match args.action {
        Action::Create(create) => {
            let secret = Secret::draw()?;
            let entry = create.entry(KeyHash::of(secret.expose().as_bytes()));
            entry.check().map_err(Unusable)?;
            let store = Store::open(&create.place).await?;
            store.add(&create.name, &entry).await?;
            ui::println(secret.expose())?;
            ui::complain(format_args!("key {} is made; it is shown this once", create.name));
        }
        Action::List(place) => {
            let keys = Store::open(&place).await?.list().await?;
            ui::println(table(&keys))?;
        }
        Action::Revoke(revoke) => {
            Store::open(&revoke.place).await?.remove(&revoke.name).await?;
            ui::complain(format_args!("key {} is revoked", revoke.name));
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl Create {
    fn entry(&self, hash: KeyHash) -> KeyEntry {
        let models = self.allow.iter().map(Pattern::new).collect();
        KeyEntry {
            tenant: self.tenant.clone(),
            models: Some(models).filter(|models: &Vec<Pattern>| !models.is_empty()),
            requests_per_minute: self.requests_per_minute,
            tokens_per_minute: self.tokens_per_minute,
            streams: self.streams,
            priority: self.priority,
            metrics: self.read_metrics,
            cluster: self.see_cluster,
            engine_members: self.engine_members,
            ..KeyEntry::new(hash)
        }
    }
}

const HEADER: [&str; 7] = [
    "KEY",
    "TENANT",
    "MODELS",
    "REQUESTS/MIN",
    "TOKENS/MIN",
    "STREAMS",
    "PRIORITY",
];

fn table(keys: &[(String, KeyEntry)]) -> String {
    if keys.is_empty() {
        return "no key".to_owned();
    }
    let limit = |limit: Option<String>| limit.unwrap_or_else(|| "-".to_owned());
    let row = |cells: [String; 7]| cells.map(|text| Cell::new_owned(harmless(&text))).to_vec();
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(row(HEADER.map(str::to_owned)));
    for (name, entry) in keys {
        let models = entry.models.as_ref().map_or_else(
            || "*".to_owned(),
            |models| models.iter().map(Pattern::as_str).collect::<Vec<_>>().join(" "),
        );
        table.add_row(row([
            name.clone(),
            entry.tenant.clone().unwrap_or_else(|| name.clone()),
            models,
            limit(entry.requests_per_minute.map(|limit| limit.to_string())),
            limit(entry.tokens_per_minute.map(|limit| limit.to_string())),
            limit(entry.streams.map(|limit| limit.to_string())),
            entry.priority.to_string(),
        ]));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect::<Vec<_>>()
        .join("\n")
}

/// Makes text from others safe for a terminal.
fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}
