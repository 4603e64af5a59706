//! `tokenbus nats-config`: a server configuration that lets each role do its own work only, with its certificates and
//! credentials.

mod certificates;
mod cluster;
mod server;
mod users;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tokenbus_protocol::Name;

use self::certificates::Authority;
use self::cluster::{Changes, Cluster, Node};
use self::users::Users;
use crate::failure::{Failure, Unusable};
use crate::files::{self, Folder};
use crate::size::Size;
use crate::ui;

/// Write a NATS configuration with users, permissions and TLS
///
/// It makes one folder for each server (nats.conf, certificates), and one credentials file for each role and worker.
/// A user may do only what its role needs: a worker cannot read the requests of others, nor API keys, nor stored responses.
///
/// Run it again to add or remove workers or servers: what it does not name stays, and nobody's key changes. Copy the
/// servers' folders again and let the servers read them (`nats-server --signal reload`).
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Folder of the configuration; keep it, and keep it secret
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,

    /// A NATS server as clients dial it; repeated for a cluster of three or five. Clients use this port, servers
    /// among themselves the port + 2000, leaf nodes the port + 3200, monitoring on loopback the port + 4000 [default: 127.0.0.1:4222]
    #[arg(long, value_name = "HOST[:PORT]")]
    node: Vec<Node>,

    /// A worker to add, by its --id, with the models of --model; repeated
    #[arg(long, value_name = "NAME", requires = "model")]
    worker: Vec<Name>,

    /// A model that these workers may serve, * for all; repeated
    #[arg(long, value_name = "MODEL", requires = "worker")]
    model: Vec<String>,

    /// A worker whose user goes; repeated
    #[arg(long, value_name = "NAME")]
    remove_worker: Vec<Name>,

    /// A site to add, whose roles reach the cluster through a NATS server of their own, a leaf node; its configuration
    /// is written too; repeated. The first one needs a restart of the servers
    #[arg(long, value_name = "NAME")]
    site: Vec<Name>,

    /// A site whose user goes; repeated
    #[arg(long, value_name = "NAME")]
    remove_site: Vec<Name>,

    /// A user who gets a new key: gateway, coordinator, operator, keys, billing, worker-NAME or site-NAME; repeated
    #[arg(long, value_name = "USER")]
    new_key: Vec<String>,

    /// Name of the gateways' --usage-stream [default: billing]
    #[arg(long, value_name = "NAME")]
    usage_stream: Option<Name>,

    /// What JetStream may store in files, on each server [default: 4GiB]
    #[arg(long, value_name = "SIZE")]
    store_size: Option<Size>,

    /// Where each server has its folder [default: where it is written]
    #[arg(long, value_name = "FOLDER")]
    server_folder: Option<PathBuf>,

    /// Your own certificate for clients, PEM, instead of one from the generated authority
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// The key of --tls-cert, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// Name of the cluster on the bus: letters, digits, - and _ [default: tb]
    #[arg(long, value_name = "NAME")]
    namespace: Option<Name>,
}

/// Runs the subcommand.
pub(crate) fn run(args: Args) -> Result<ExitCode, Failure> {
    let folder = Folder::open(&args.folder)?;
    let before = match folder.read("cluster.toml")? {
        Some(text) => Cluster::parse(&text).map_err(|error| Unusable(format!("cluster.toml: {error}")))?,
        None => Cluster::new(Name::new("tb")?),
    };
    let changes = Changes {
        nodes: args.node,
        workers: args.worker,
        models: args.model,
        removed: args.remove_worker,
        sites: args.site,
        removed_sites: args.remove_site,
        usage_stream: args.usage_stream,
        store_size: args.store_size.map(|size| size.0 as u64),
        server_folder: args.server_folder,
        tls: args.tls_cert.zip(args.tls_key),
        namespace: args.namespace,
    };
    let mut cluster = before.with(changes).map_err(Unusable)?;
    for name in cluster.users.keys().filter(|name| !cluster.is_user(name)) {
        folder.remove(&users::file_of(name))?;
    }
    let users = Users::make(&folder, &mut cluster, &args.new_key)?;
    let authority = Authority::open(&folder)?;
    for (number, node) in (1..).zip(&cluster.nodes) {
        write_server(&folder, &cluster, &users, &authority, number, node)?;
    }
    for site in &cluster.sites {
        write_site(&folder, &cluster, &users, &authority, site)?;
    }
    // Last: what it names is there.
    folder.write_private("cluster.toml", &cluster.to_text())?;
    report(&folder, &cluster)?;
    Ok(ExitCode::SUCCESS)
}

fn write_server(
    folder: &Folder,
    cluster: &Cluster,
    users: &Users,
    authority: &Authority,
    number: usize,
    node: &Node,
) -> Result<(), Failure> {
    let name = format!("server-{number}");
    let server = folder.within(&name)?;
    let at = cluster
        .server_folder
        .clone()
        .unwrap_or_else(|| server.path().to_owned());
    let own = authority.certify(&node.host)?;
    server.write("ca.pem", authority.pem())?;
    server.write("route.pem", &own.certificate)?;
    server.write_private("route-key.pem", &own.key)?;
    let (certificate, key) = match &cluster.tls {
        Some(tls) => (files::read(&tls.certificate)?, files::read(&tls.key)?),
        None => (own.certificate, own.key),
    };
    server.write("server.pem", &certificate)?;
    server.write_private("server-key.pem", &key)?;
    server.write_private("nats.conf", &server::configuration(cluster, users, number, &at))?;
    Ok(())
}

/// Writes the configuration of a site's leaf node. The roles there log in with the site's credentials.
fn write_site(
    folder: &Folder,
    cluster: &Cluster,
    users: &Users,
    authority: &Authority,
    site: &Name,
) -> Result<(), Failure> {
    let name = users::of_site(site);
    let user = users.0.iter().find(|user| user.name == name);
    // Whoever moved the credentials away has moved the configuration, too.
    let Some((user, text)) = user.zip(folder.read(&users::file_of(&name))?) else {
        return Ok(());
    };
    let Some(seed) = text.lines().find(|line| line.starts_with("SU")) else {
        return Err(Unusable(format!("{} has no seed", users::file_of(&name))).into());
    };
    let here = folder.within(&name)?;
    let at = cluster.server_folder.as_deref().unwrap_or(here.path());
    let text = server::leaf_node(cluster, site, user, seed, at);
    here.write("ca.pem", authority.pem())?;
    here.write_private("nats.conf", &text)?;
    Ok(())
}

/// Says how the roles are started with what was written.
fn report(folder: &Folder, cluster: &Cluster) -> Result<(), Failure> {
    let root = folder.path().display();
    let urls: Vec<String> = cluster.nodes.iter().map(Node::url).collect();
    let ca = match cluster.tls {
        Some(_) => String::new(),
        None => format!(" --nats-ca {root}/ca.pem"),
    };
    for number in 1..=cluster.nodes.len() {
        ui::println(format_args!("nats-server -c {root}/server-{number}/nats.conf"))?;
    }
    let bus = format!("--nats {}{ca} --namespace {}", urls.join(","), cluster.namespace);
    let workers = cluster.workers.keys().map(|name| format!("worker --id {name}"));
    let roles = ["gateway --keys kv", "coordinator", "status", "keys list --keys kv"];
    let all = roles.into_iter().map(str::to_owned).chain(workers);
    for role in all {
        let file = users::credentials_for(&role);
        let file = Path::new(folder.path()).join(users::file_of(&file));
        ui::println(format_args!("tokenbus {role} {bus} --nats-creds {}", file.display()))?;
    }
    for site in &cluster.sites {
        let (user, domain) = (users::of_site(site), cluster.domain());
        ui::println(format_args!("nats-server -c {root}/{user}/nats.conf"))?;
        ui::println(format_args!(
            "tokenbus gateway --keys kv --namespace {} --js-domain {domain} --nats-creds {root}/{}",
            cluster.namespace,
            users::file_of(&user)
        ))?;
    }
    Ok(())
}
