//! The text of one server's `nats.conf`. Pure.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

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
         jetstream {{\n  store_dir: {store}\n  max_file_store: {files}\n  max_memory_store: 64MB\n}}\n\n",
        name = server_name(cluster, number),
        listen = listen(node, node.port),
        monitor = node.monitor(),
        certificate = file("server.pem"),
        key = file("server-key.pem"),
        store = file("jetstream"),
        files = cluster.store_size,
    );
    if cluster.nodes.len() > 1 {
        text.push_str(&routes(cluster, node, &file));
    }
    text.push_str("system_account: SYS\naccounts {\n  SYS {}\n  TOKENBUS {\n    jetstream: enabled\n    users: [\n");
    for user in &users.0 {
        write_user(&mut text, user);
    }
    text.push_str("    ]\n  }\n}\n");
    text
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
