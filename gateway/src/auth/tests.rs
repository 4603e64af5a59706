//! Tests of the handle that requests use.

use super::*;

fn on(keys: &str) -> Auth {
    let auth = Auth::on(Name::new("g").unwrap(), Metrics::default());
    auth.set(KeyTable::parse(keys).unwrap());
    auth
}

fn entry(name: &str, secret: &str, more: &str) -> String {
    format!("[keys.{name}]\nhash = \"{}\"\n{more}\n", KeyHash::of(secret.as_bytes()))
}

fn estimate(completion: u64) -> Estimate {
    Estimate { prompt: 0, completion }
}

#[test]
fn nobody_is_asked_where_keys_are_off() {
    let auth = Auth::off();
    assert!(auth.is_ready() && !auth.is_on());
    assert!(matches!(auth.authenticate(None), Ok(None)));
}

#[test]
fn only_whoever_has_a_key_is_known() {
    let auth = Auth::on(Name::new("g").unwrap(), Metrics::default());
    let stranger = |auth: &Auth, secret: Option<&[u8]>| auth.authenticate(secret).map(|_| ()).unwrap_err();
    assert!(!auth.is_ready());
    assert_eq!(stranger(&auth, Some(b"a")), AuthError::NotReady);
    auth.set(KeyTable::parse(&entry("alice", "a", "")).unwrap());
    assert!(auth.is_ready());
    assert_eq!(stranger(&auth, None), AuthError::NoKey);
    for wrong in [&b""[..], b"A", b"aa", &[b'a'; MAX_SECRET + 1]] {
        assert_eq!(stranger(&auth, Some(wrong)), AuthError::UnknownKey);
    }
    for secrets in [
        &[&b"a"[..]][..],
        &[b"stale", b"a"],
        &[b"a", b"stale"],
        &[&[b'a'; MAX_SECRET + 1], b"a"],
    ] {
        let caller = auth.authenticate(secrets.iter().copied()).unwrap().unwrap();
        assert_eq!(caller.key().name.as_str(), "alice");
    }
    auth.set(KeyTable::parse(&entry("bob", "b", "")).unwrap());
    assert_eq!(stranger(&auth, Some(b"a")), AuthError::UnknownKey);
}

#[test]
fn a_request_counts_as_running_until_its_grant_is_dropped() {
    let auth = on(&entry("alice", "a", "streams = 1\ntokens-per-minute = 600"));
    let caller = auth.authenticate([&b"a"[..]]).unwrap().unwrap();
    let now = Instant::now();
    let mut grant = caller.admit(now).unwrap();
    grant.charge(|| estimate(500), Price::default(), now).unwrap();
    assert!(matches!(caller.admit(now), Err(Refusal::Streams { limit: 1 })));
    let remaining = || caller.remaining(Instant::now()).tokens.unwrap().remaining;
    assert!((100..110).contains(&remaining()));
    let used = Tokens {
        prompt: 200,
        ..Tokens::default()
    };
    grant.used(used, Price::default());
    drop(grant);
    assert!((400..430).contains(&remaining()));
    drop(caller.admit(now).unwrap());
}

#[test]
fn a_key_without_limits_costs_nothing_and_is_told_nothing() {
    let auth = on(&entry("alice", "a", ""));
    let caller = auth.authenticate([&b"a"[..]]).unwrap().unwrap();
    let grants: Vec<Grant> = (0..100)
        .map(|_| {
            let mut grant = caller.admit(Instant::now()).unwrap();
            grant
                .charge(|| unreachable!(), Price::default(), Instant::now())
                .unwrap();
            grant
        })
        .collect();
    assert_eq!(caller.remaining(Instant::now()), RemainingLimits::default());
    drop(grants);
    assert!(
        caller.auth.limiter().tell(limiter::Scope::Active, Instant::now())[0]
            .keys
            .is_empty()
    );
}

#[test]
fn requests_that_run_go_on_when_their_key_is_revoked() {
    let auth = on(&entry("alice", "a", "streams = 1"));
    let caller = auth.authenticate([&b"a"[..]]).unwrap().unwrap();
    let grant = caller.admit(Instant::now()).unwrap();
    auth.set(KeyTable::default());
    drop(grant);
    auth.set(KeyTable::parse(&entry("alice", "a", "streams = 1")).unwrap());
    drop(caller.admit(Instant::now()).unwrap());
}
