//! Which server is dialled next, how the role logs in there, and what is said of a server that could not be reached.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use async_nats::{Auth, AuthError, ReconnectToServer, Server, ServerAddr, ServerInfo};
use tokio::sync::watch;

use crate::address::{Address, Login};
use crate::credentials::Credentials;
use crate::link::Link;
use crate::{backoff, limits};

/// Chooses servers and logs in. The client calls it from one task.
pub(crate) struct Dialer {
    addresses: Vec<Address>,
    credentials: Option<PathBuf>,
    link: Arc<watch::Sender<Link>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The server that is being tried, until it is connected or another is chosen.
    trying: Option<Trying>,
    /// The connection that was made last: id of the server, number of the connection there.
    last: (String, u64),
    /// When a server was dialled last.
    dialled: Option<Instant>,
    /// Connections in a row that ended soon.
    short_lives: usize,
    /// What went wrong at each server since the last connection.
    failures: BTreeMap<String, Failure>,
}

struct Trying {
    server: ServerAddr,
    /// The server's failures before this attempt.
    failed_before: usize,
    /// Why the role could not log in, if it knows better than the client.
    no_login: Option<String>,
}

/// What is said of a server that refuses the login.
const LOGIN_REFUSED: &str = "it refuses the login (authorization violation)";

struct Failure {
    reason: String,
    said: Instant,
}

impl Dialer {
    pub(crate) fn new(addresses: Vec<Address>, credentials: Option<PathBuf>, link: Arc<watch::Sender<Link>>) -> Self {
        Self {
            addresses,
            credentials,
            link,
            state: Mutex::default(),
        }
    }

    /// The server after the one that was tried last; after a connection, the first. `pool` has the servers that the
    /// user named, in order, and then those that the cluster announced.
    pub(crate) fn choose(&self, pool: &[Server], info: &ServerInfo, now: Instant) -> Option<ReconnectToServer> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let connection = (info.server_id.clone(), info.client_id);
        if state.last != connection {
            let dialled = state.dialled.filter(|at| now < *at + limits::SHORT_LIFE);
            *state = State {
                last: connection,
                short_lives: dialled.map_or(0, |_| state.short_lives + 1),
                ..State::default()
            };
        }
        let next = match state.trying.take() {
            None => 0,
            Some(tried) => {
                let place = pool.iter().position(|server| server.addr == tried.server);
                let failure = describe(&tried, place.and_then(|place| pool.get(place)));
                self.report(&mut state.failures, &tried.server, failure, now);
                place.map_or(0, |place| place + 1)
            }
        };
        let server = pool.get(next).or_else(|| pool.first())?;
        state.trying = Some(Trying {
            server: server.addr.clone(),
            failed_before: server.failed_attempts,
            no_login: None,
        });
        let short_lives = state.short_lives;
        let pause = || backoff::jittered(short_lives, limits::RECONNECT_FIRST, limits::RECONNECT_MAX);
        // The client's own pause grows with each attempt, but begins anew with each connection.
        let delay = (short_lives > 0 && state.failures.is_empty()).then(pause);
        state.dialled = Some(now + delay.unwrap_or_default());
        Some(ReconnectToServer {
            addr: server.addr.clone(),
            delay,
        })
    }

    /// Says it once, and again now and then, and shows it as the state of the connection.
    fn report(&self, failures: &mut BTreeMap<String, Failure>, server: &ServerAddr, reason: String, now: Instant) {
        let server = server.as_url_str().to_owned();
        let old = failures.get(&server);
        let is_new = old.is_none_or(|old| old.reason != reason || now >= old.said + limits::SAY_AGAIN);
        if is_new {
            tracing::warn!(server, reason, "cannot connect to NATS; it is tried again");
        }
        let said = old.filter(|_| !is_new).map_or(now, |old| old.said);
        failures.insert(server, Failure { reason, said });
        let all: Vec<String> = failures
            .iter()
            .take(limits::SHOWN_SERVERS)
            .map(|(server, failure)| format!("{server}: {}", failure.reason))
            .collect();
        self.link.send_modify(|link| {
            link.reason = all.join("; ");
            link.login_refused = failures.values().any(|failure| failure.reason == LOGIN_REFUSED);
        });
    }

    /// Logs in at the server that is being tried.
    pub(crate) async fn log_in(&self, nonce: Vec<u8>) -> Result<Auth, AuthError> {
        let mut auth = Auth::new();
        match self.login() {
            Some(Login::User { name, password }) => {
                auth.username = Some(name);
                auth.password = Some(password);
            }
            Some(Login::Token(token)) => auth.token = Some(token),
            None => {}
        }
        if let Some(path) = &self.credentials {
            let signed = Credentials::read(path).await.and_then(|read| read.sign(&nonce));
            let signed = signed.map_err(|error| {
                let reason = format!("cannot read NATS credentials {}: {error}", path.display());
                self.no_login(&reason);
                AuthError::new(reason)
            })?;
            auth.nkey = signed.jwt.is_none().then_some(signed.public_key);
            auth.jwt = signed.jwt;
            auth.signature = Some(signed.signature);
        }
        Ok(auth)
    }

    /// The login for the server that is being tried. A server that the cluster announced gets that of the first
    /// server that has one.
    fn login(&self) -> Option<Login> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let trying = state.trying.as_ref().map(|trying| &trying.server);
        match self.addresses.iter().find(|address| Some(&address.server) == trying) {
            Some(named) => named.login.clone(),
            None => self.addresses.iter().find_map(|address| address.login.clone()),
        }
    }

    fn no_login(&self, reason: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(trying) = &mut state.trying {
            trying.no_login = Some(reason.to_owned());
        }
    }
}

/// Why the attempt failed.
fn describe(tried: &Trying, server: Option<&Server>) -> String {
    if let Some(reason) = &tried.no_login {
        return reason.clone();
    }
    // The client counts no failure when it finds no address for the name.
    let counted = server.filter(|server| server.failed_attempts > tried.failed_before);
    let Some(error) = counted.and_then(|server| server.last_error.as_deref()) else {
        return "the host's name cannot be resolved".to_owned();
    };
    if error.contains("authorization violation") {
        return LOGIN_REFUSED.to_owned();
    }
    if error == "timed out" && tried.server.tls_required() {
        return format!(
            "no answer within {:?}; a server that wants TLS at once (handshake_first) needs --nats-tls-first",
            limits::CONNECT_TIMEOUT
        );
    }
    error.to_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn dialer(urls: &[&str]) -> (Dialer, Vec<Server>, watch::Receiver<Link>) {
        let addresses: Vec<_> = urls.iter().map(|url| Address::parse(url).unwrap()).collect();
        let pool = addresses.iter().map(|address| server(address.server.clone())).collect();
        let link = Arc::new(watch::Sender::new(Link::default()));
        let seen = link.subscribe();
        (Dialer::new(addresses, None, link), pool, seen)
    }

    fn server(addr: ServerAddr) -> Server {
        Server {
            addr,
            failed_attempts: 0,
            did_connect: false,
            is_discovered: false,
            last_error: None,
        }
    }

    fn connected(number: u64) -> ServerInfo {
        ServerInfo {
            server_id: "s".into(),
            client_id: number,
            ..ServerInfo::default()
        }
    }

    #[test]
    fn servers_are_tried_in_order_and_after_a_connection_from_the_first() {
        let (dialer, mut pool, link) = dialer(&["nats://a", "nats://b"]);
        let now = Instant::now();
        let chosen = |pool: &[Server], info: &ServerInfo| {
            let next = dialer.choose(pool, info, now).unwrap();
            next.addr.host().to_owned()
        };
        assert_eq!(chosen(&pool, &ServerInfo::default()), "a");
        pool[0].failed_attempts = 1;
        pool[0].last_error = Some("IO error: Connection refused".into());
        assert_eq!(chosen(&pool, &ServerInfo::default()), "b");
        assert_eq!(link.borrow().reason, "nats://a: IO error: Connection refused");
        assert!(!link.borrow().login_refused);
        pool[1].failed_attempts = 1;
        pool[1].last_error = Some("authorization violation: nats: authorization violation".into());
        assert_eq!(chosen(&pool, &ServerInfo::default()), "a", "after the last the first");
        assert!(link.borrow().reason.contains("nats://b: it refuses the login") && link.borrow().login_refused);
        assert_eq!(chosen(&pool, &ServerInfo::default()), "b");
        assert!(
            link.borrow().reason.contains("nats://a: the host's name"),
            "no failure was counted"
        );
        assert_eq!(chosen(&pool, &connected(7)), "a", "b was connected and is lost");
    }

    #[test]
    fn connections_that_end_at_once_make_the_pauses_longer() {
        let (dialer, pool, _) = dialer(&["nats://a"]);
        let mut now = Instant::now();
        let delay = |number, now| dialer.choose(&pool, &connected(number), now).unwrap().delay;
        assert_eq!(delay(0, now), None);
        let mut last = Duration::ZERO;
        for number in 1..20 {
            last = delay(number, now).unwrap();
            now += last;
        }
        assert!(last >= limits::RECONNECT_MAX / 2, "{last:?}");
        now += limits::SHORT_LIFE;
        assert_eq!(delay(20, now), None, "it lasted");
    }

    #[test]
    fn a_failure_is_said_once_and_again_now_and_then() {
        let (dialer, _, _) = dialer(&["nats://a"]);
        let server: ServerAddr = "nats://a".parse().unwrap();
        let (mut failures, start) = (BTreeMap::new(), Instant::now());
        let mut said = |reason: &str, now| {
            dialer.report(&mut failures, &server, reason.to_owned(), now);
            failures[server.as_url_str()].said == now
        };
        assert!(said("refused", start));
        assert!(!said("refused", start + Duration::from_secs(1)));
        assert!(said("refuses the login", start + Duration::from_secs(2)));
        assert!(said(
            "refuses the login",
            start + Duration::from_secs(2) + limits::SAY_AGAIN
        ));
    }

    #[tokio::test]
    async fn each_named_server_has_its_own_login_and_announced_ones_the_first() {
        let (dialer, mut pool, _) = dialer(&["nats://a", "nats://u:p@b"]);
        pool.push(server("c".parse().unwrap()));
        let mut users = Vec::new();
        for _ in &pool {
            dialer.choose(&pool, &ServerInfo::default(), Instant::now()).unwrap();
            users.push(dialer.log_in(Vec::new()).await.unwrap().username);
        }
        assert_eq!(users, [None, Some("u".to_owned()), Some("u".to_owned())]);
    }

    #[tokio::test]
    async fn credentials_are_read_for_each_connection() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let seed = nkeys::KeyPair::new_user().seed().unwrap();
        let write = |jwt: &str| {
            let text = format!("---BEGIN JWT---\n{jwt}\n---END---\n---BEGIN SEED---\n{seed}\n---END---\n");
            std::fs::write(file.path(), text).unwrap();
        };
        let link = Arc::new(watch::Sender::new(Link::default()));
        let addresses = vec![Address::parse("nats://a").unwrap()];
        let pool = [server(addresses[0].server.clone())];
        let dialer = Dialer::new(addresses, Some(file.path().to_owned()), Arc::clone(&link));
        for jwt in ["old", "new"] {
            write(jwt);
            assert_eq!(dialer.log_in(b"n".to_vec()).await.unwrap().jwt.as_deref(), Some(jwt));
        }
        std::fs::write(file.path(), "half").unwrap();
        dialer.choose(&pool, &ServerInfo::default(), Instant::now()).unwrap();
        assert!(dialer.log_in(b"n".to_vec()).await.is_err());
        dialer.choose(&pool, &ServerInfo::default(), Instant::now()).unwrap();
        assert!(
            link.borrow().reason.contains("cannot read NATS credentials"),
            "{link:?}"
        );
    }
}
