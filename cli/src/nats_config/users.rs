//! The users of the bus and their keys: one for each kind of role, one for each worker.

use std::collections::BTreeMap;

use nkeys::KeyPair;
use tokenbus_protocol::{Models, Name, Permissions, Subjects};

use super::cluster::Cluster;
use crate::failure::{Failure, Unusable};
use crate::files::Folder;

/// Folder of the credentials files.
const FOLDER: &str = "creds";

/// The users that every cluster has, each with what uses it.
pub(super) const ROLES: [(&str, &str); 5] = [
    ("gateway", "all gateways"),
    ("coordinator", "all coordinators"),
    ("operator", "tokenbus status, top and drain"),
    ("keys", "tokenbus keys --keys kv"),
    ("billing", "whoever reads the usage records"),
];

/// The credentials file of a user.
pub(super) fn file_of(user: &str) -> String {
    format!("{FOLDER}/{user}.nk")
}

/// The user of a worker.
pub(super) fn of_worker(worker: &Name) -> String {
    format!("worker-{worker}")
}

/// The user of a site's leaf node, and of the roles behind it.
pub(super) fn of_site(site: &Name) -> String {
    format!("site-{site}")
}

/// The user for a command line that begins so.
pub(super) fn credentials_for(role: &str) -> String {
    match role.split_whitespace().collect::<Vec<_>>().as_slice() {
        ["worker", "--id", id, ..] => format!("worker-{id}"),
        ["status" | "top" | "drain", ..] => "operator".to_owned(),
        [role, ..] => (*role).to_owned(),
        [] => String::new(),
    }
}

/// One user.
#[derive(Debug)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) public_key: String,
    pub(super) permissions: Permissions,
}

/// All users of a cluster.
#[derive(Debug)]
pub(super) struct Users(pub(super) Vec<User>);

impl Users {
    /// Makes the keys that are missing or to be replaced, and writes their files. A user whose file was moved away keeps
    /// its key.
    pub(super) fn make(folder: &Folder, cluster: &mut Cluster, renewed: &[String]) -> Result<Self, Failure> {
        let wanted = permissions(cluster);
        if let Some(unknown) = renewed.iter().find(|name| !wanted.contains_key(name.as_str())) {
            let known: Vec<_> = wanted.keys().map(String::as_str).collect();
            return Err(Unusable(format!(
                "--new-key {unknown}: no such user; there are {}",
                known.join(", ")
            ))
            .into());
        }
        drop(folder.within(FOLDER)?);
        let mut users = Vec::with_capacity(wanted.len());
        let mut keys = BTreeMap::new();
        for (name, permissions) in wanted {
            let public_key = match cluster.users.get(&name) {
                Some(key) if !renewed.contains(&name) => key.clone(),
                _ => make_key(folder, &name)?,
            };
            keys.insert(name.clone(), public_key.clone());
            let permissions = permissions.with_inbox(&tokenbus_bus::inbox_prefix(&public_key));
            users.push(User {
                name,
                public_key,
                permissions,
            });
        }
        cluster.users = keys;
        Ok(Self(users))
    }
}

fn make_key(folder: &Folder, user: &str) -> Result<String, Failure> {
    let pair = KeyPair::new_user();
    let seed = pair.seed()?;
    let text = format!("# The key of the NATS user {user}. Keep it secret.\n{seed}\n");
    folder.write_private(&file_of(user), &text)?;
    Ok(pair.public_key())
}

fn permissions(cluster: &Cluster) -> BTreeMap<String, Permissions> {
    let subjects = Subjects::new(cluster.namespace.clone());
    let usage = cluster.usage_stream.as_str();
    let mut all: BTreeMap<String, Permissions> = [
        ("gateway", Permissions::gateway(&subjects, usage)),
        ("coordinator", Permissions::coordinator(&subjects)),
        ("operator", Permissions::operator(&subjects)),
        ("keys", Permissions::keys(&subjects)),
        ("billing", Permissions::billing(&subjects, usage)),
    ]
    .map(|(name, permissions)| (name.to_owned(), permissions))
    .into();
    for (worker, models) in &cluster.workers {
        let any = models.iter().any(|model| model == "*");
        let models = if any { Models::All } else { Models::Only(models) };
        all.insert(of_worker(worker), Permissions::worker(&subjects, worker, models));
    }
    for site in &cluster.sites {
        let permissions = Permissions::site(&subjects, usage, cluster.domain());
        all.insert(of_site(site), permissions);
    }
    all
}
