//! The text of one server's `nats.conf`. Pure.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;
use tokenbus_protocol::Name;

use super::cluster::{Cluster, Node};
use super::users::{User, Users};

/// A role may answer a question this long after it came. Each answers at once; the server remembers as many questions
/// as come in this time.
const ANSWER_WITHIN: &str = "10s";

/// The configuration of server `number`, from 1, whose folder is `folder` where it runs.
pub(super) fn configuration(cluster: &Cluster, users: &Users, number: usize, folder: &Path) -> String {
    let Some(node) = number.checked_sub(1).and_then(|at| cluster.nodes.get(at)) else {
        return String::new();
    };
    let file = |name: &str| quoted(&folder.join(name).to_string_lossy());
    let mut text = format!(
        "# Written by `tokenbus nats-config`: run it again rather than change this file.\n\
         # It needs nats-server 2.12.7, 2.11.16 or a later version.\n\
         server_name: \"{name}\"\n\
         listen: {listen}\n\
         client_advertise: \"{node}\"\n\
         http: \"127.0.0.1:{monitor}\"\n\
         max_payload: 8MB\n\
         ping_interval: \"2s\"\n\
         ping_max: 2\n\
         write_deadline: \"5s\"\n\n\
         tls {{\n  cert_file: {certificate}\n  key_file: {key}\n  timeout: 5\n}}\n\n\
         jetstream {{\n  store_dir: {store}\n  max_file_store: {files}\n  max_memory_store: 64MB\n{domain}}}\n\n",
        name = server_name(cluster, number),
        listen = listen(node, node.port),
        monitor = node.monitor(),
        certificate = file("server.pem"),
        key = file("server-key.pem"),
        store = file("jetstream"),
        files = cluster.store_size,
        domain = domain(cluster),
    );
    if cluster.nodes.len() > 1 {
        text.push_str(&routes(cluster, node, &file));
    }
    if !cluster.sites.is_empty() {
        text.push_str(&leaf_nodes(node, &file));
    }
    text.push_str("system_account: SYS\naccounts {\n  SYS {}\n  TOKENBUS {\n    jetstream: enabled\n    users: [\n");
    for user in &users.0 {
        write_user(&mut text, user);
    }
    text.push_str("    ]\n  }\n}\n");
    text
}

/// The configuration of the leaf node of a site, whose folder is `folder` where it runs. `seed` is its user's.
pub(super) fn leaf_node(cluster: &Cluster, site: &Name, user: &User, seed: &str, folder: &Path) -> String {
    let hubs = cluster.nodes.iter().map(|node| quoted(&node.leaf().url()));
    let ca = match cluster.tls {
        Some(_) => String::new(),
        None => format!("ca_file: {}, ", quoted(&folder.join("ca.pem").to_string_lossy())),
    };
    format!(
        "# Written by `tokenbus nats-config`: the NATS server of the site {site}, a leaf node. Keep it secret.\n\
         server_name: \"{name}-{site}\"\n\
         listen: \"127.0.0.1:4222\"\n\
         max_payload: 8MB\n\
         ping_interval: \"2s\"\n\
         ping_max: 2\n\
         write_deadline: \"5s\"\n\n\
         accounts {{\n  TOKENBUS {{\n    users: [ {{ nkey: {key} }} ]\n  }}\n}}\n\n\
         leafnodes {{\n  reconnect: \"1s\"\n  remotes: [ {{\n    account: TOKENBUS\n    urls: [{hubs}]\n    nkey: {seed}\n    \
         tls {{ {ca}timeout: 5 }}\n  }} ]\n}}\n",
        name = cluster.namespace,
        key = user.public_key,
        hubs = hubs.collect::<Vec<_>>().join(", "),
    )
}

/// The domain of JetStream, which only leaf nodes ask for.
fn domain(cluster: &Cluster) -> String {
    match cluster.sites.is_empty() {
        true => String::new(),
        false => format!("  domain: \"{}\"\n", cluster.domain()),
    }
}

/// Where leaf nodes join.
fn leaf_nodes(node: &Node, file: &impl Fn(&str) -> String) -> String {
    format!(
        "leafnodes {{\n  listen: {listen}\n  advertise: \"{leaf}\"\n  tls {{ cert_file: {certificate}, key_file: {key}, \
         timeout: 5 }}\n}}\n\n",
        listen = listen(node, node.leaf().port),
        leaf = node.leaf(),
        certificate = file("server.pem"),
        key = file("server-key.pem"),
    )
}

fn server_name(cluster: &Cluster, number: usize) -> String {
    format!("{}-{number}", cluster.namespace)
}

fn listen(node: &Node, port: u16) -> String {
    let host = node.listens();
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    quoted(&format!("{host}:{port}"))
}

/// The other servers. They show each other certificates of the generated authority, and a password.
fn routes(cluster: &Cluster, node: &Node, file: &impl Fn(&str) -> String) -> String {
    let password = &cluster.route_password;
    let mut text = format!(
        "cluster {{\n  name: \"{name}\"\n  listen: {listen}\n  advertise: \"{route}\"\n\
        \x20 authorization {{ user: route, password: {quoted_password}, timeout: 5 }}\n\
        \x20 tls {{ cert_file: {certificate}, key_file: {key}, ca_file: {ca}, verify: true, timeout: 5 }}\n  routes: [\n",
        name = cluster.namespace,
        route = node.route(),
        listen = listen(node, node.route().port),
        quoted_password = quoted(password),
        certificate = file("route.pem"),
        key = file("route-key.pem"),
        ca = file("ca.pem"),
    );
    for other in cluster.nodes.iter().filter(|other| *other != node) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "    \"nats-route://route:{password}@{}\"", other.route());
    }
    text.push_str("  ]\n}\n\n");
    text
}

fn write_user(text: &mut String, user: &User) {
    let allow = user.permissions.publish.iter();
    let publish: Vec<String> = allow.map(|subject| quoted(subject)).collect();
    let subscribe: Vec<String> = user
        .permissions
        .subscribe
        .iter()
        .map(|subject| quoted(subject))
        .collect();
    let answers = match user.permissions.answers {
        true => format!(", allow_responses: {{ max: 1, expires: \"{ANSWER_WITHIN}\" }}"),
        false => String::new(),
    };
    let _ = writeln!(
        text,
        "      # {}\n      {{ nkey: {}, permissions: {{\n        publish: {{ allow: [{}] }}\n        subscribe: {{ allow: [{}] \
         }}{answers}\n      }} }}",
        user.name,
        user.public_key,
        publish.join(", "),
        subscribe.join(", "),
    );
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}
