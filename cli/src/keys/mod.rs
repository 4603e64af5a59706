//! `tokenbus keys`: make, list and revoke API keys, in a file or in the bucket that gateways share.

mod bucket;
mod error;
mod file;

use std::num::{NonZeroU32, NonZeroU64};
use std::process::ExitCode;

use clap::ArgAction;
use comfy_table::presets::NOTHING;
use comfy_table::{Cell, Table};
use tokenbus_bus::Bus;
use tokenbus_gateway::{Budget, KeyEntry, KeyHash, KeySource, Money, Pattern, Secret, Spent};
use tokenbus_protocol::{Label, Labels, Name};

use self::bucket::Bucket;
use self::error::KeysError;
use self::file::File;
use crate::failure::{Failure, Unusable};
use crate::limits::KEYS_CONNECT;
use crate::shared::{BusArgs, KeptArgs, Shared};
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

    /// Tokens a day of the UTC calendar, prompt and completion, over all gateways [default: no limit]
    #[arg(long, value_name = "N")]
    tokens_per_day: Option<NonZeroU64>,

    /// Tokens a month [default: no limit]
    #[arg(long, value_name = "N")]
    tokens_per_month: Option<NonZeroU64>,

    /// Money a day, by the models' prices, in your currency [default: no limit]
    #[arg(long, value_name = "AMOUNT")]
    cost_per_day: Option<Money>,

    /// Money a month [default: no limit]
    #[arg(long, value_name = "AMOUNT")]
    cost_per_month: Option<Money>,

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

    /// Send its requests only to workers with this label, as in region=eu; repeated: with all of them
    #[arg(long, value_name = "NAME=VALUE")]
    label: Vec<Label>,
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
            let labels = Labels::new(create.label.clone()).map_err(|error| Unusable(error.to_string()))?;
            let entry = KeyEntry {
                labels,
                ..create.entry(KeyHash::of(secret.expose().as_bytes()))
            };
            entry.check().map_err(Unusable)?;
            let store = Store::open(&create.place).await?;
            store.add(&create.name, &entry).await?;
            ui::println(secret.expose())?;
            ui::complain(format_args!("key {} is made; it is shown this once", create.name));
        }
        Action::List(place) => {
            let keys = Store::open(&place).await?.list().await?;
            let budgeted = keys.iter().any(|(_, entry)| !entry.budgets().is_none());
            let spent = if budgeted { spent(&place).await } else { None };
            ui::println(table(&keys, spent.as_ref()))?;
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
            tokens_per_day: self.tokens_per_day,
            tokens_per_month: self.tokens_per_month,
            cost_per_day: self.cost_per_day,
            cost_per_month: self.cost_per_month,
            priority: self.priority,
            metrics: self.read_metrics,
            cluster: self.see_cluster,
            engine_members: self.engine_members,
            ..KeyEntry::new(hash)
        }
    }
}

/// What was used of the budgets; says why, if that is not known.
async fn spent(place: &Place) -> Option<Spent> {
    let Shared {
        bus: options,
        namespace,
    } = place.bus.shared("tokenbus keys").keeping(&place.kept);
    let read = async {
        let bus = Bus::connect(&options).await.map_err(|error| error.to_string())?;
        let connected = tokio::time::timeout(KEYS_CONNECT, bus.connected()).await;
        connected.map_err(|_| format!("NATS is not reachable at {}", options.display_urls()))?;
        tokenbus_gateway::spent(&bus, &namespace).await
    };
    let read = read.await;
    let complain = |reason| ui::complain(format_args!("it is not known what was used of the budgets: {reason}"));
    read.map_err(complain).ok()
}

/// The budgets of a key, each as what was used of it and its limit.
fn budgets(name: &str, entry: &KeyEntry, spent: Option<&Spent>) -> Option<String> {
    let all = entry.budgets();
    let one = |budget: Budget| {
        let limit = all.limit(budget)?;
        #[allow(clippy::cast_precision_loss)] // 15 digits are exact
        let number = |amount: u64| {
            if budget.is_money() {
                (amount as f64 / 1e9).to_string()
            } else {
                amount.to_string()
            }
        };
        let used = spent.map_or_else(|| "?".to_owned(), |spent| number(spent.of(name, budget)));
        Some(format!("{} {used}/{}", budget.name(), number(limit)))
    };
    let told: Vec<String> = Budget::ALL.into_iter().filter_map(one).collect();
    Some(told.join(" ")).filter(|told| !told.is_empty())
}

const HEADER: [&str; 8] = [
    "KEY",
    "TENANT",
    "MODELS",
    "REQUESTS/MIN",
    "TOKENS/MIN",
    "STREAMS",
    "BUDGETS",
    "PRIORITY",
];

fn table(keys: &[(String, KeyEntry)], spent: Option<&Spent>) -> String {
    if keys.is_empty() {
        return "no key".to_owned();
    }
    let limit = |limit: Option<String>| limit.unwrap_or_else(|| "-".to_owned());
    let row = |cells: [String; 8]| cells.map(|text| Cell::new_owned(harmless(&text))).to_vec();
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
            limit(budgets(name, entry, spent)),
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
