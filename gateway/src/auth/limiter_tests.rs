//! Tests of the limiter, one decision each.

use std::num::{NonZeroU32, NonZeroU64};

use tokenbus_protocol::Spending;

use super::*;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn limits(requests: u32, tokens: u64, streams: u32) -> Limits {
    Limits {
        requests: NonZeroU32::new(requests),
        tokens: NonZeroU64::new(tokens),
        streams: NonZeroU32::new(streams),
        ..Limits::default()
    }
}

fn after(start: Instant, seconds: f64) -> Instant {
    start + Duration::from_secs_f64(seconds)
}

/// Admits a request and charges it for its tokens; one that is refused ends at once.
pub(super) fn admit(
    limiter: &mut Limiter,
    (key, limits): (&Name, Limits),
    tokens: u64,
    now: Instant,
) -> Result<(Charge, News), Refusal> {
    let (mut charge, first) = limiter.admit(key, limits, now)?;
    match limiter.charge(key, &mut charge, tokens, now) {
        Ok(news) => Ok((charge, first.and(news))),
        Err(refusal) => {
            limiter.settle(key, &charge, 0, now);
            Err(refusal)
        }
    }
}

/// Gateways that hear each other at once, with one key.
struct Cluster {
    limiters: Vec<Limiter>,
    limits: Limits,
    key: Name,
}

impl Cluster {
    fn new(gateways: usize, limits: Limits, now: Instant) -> Self {
        let mut cluster = Self {
            limiters: Vec::new(),
            limits,
            key: name("k"),
        };
        (0..gateways).for_each(|_| cluster.join(now));
        cluster
    }

    fn join(&mut self, now: Instant) {
        let mut new = Limiter::new(name(&format!("g{}", self.limiters.len())));
        let hello = new.hello();
        self.limiters.push(new);
        self.spread(&[hello], now);
        self.gossip(Scope::Urgent, now);
    }

    fn spread(&mut self, messages: &[Consumption], now: Instant) {
        let (key, limits) = (self.key.clone(), self.limits);
        for limiter in &mut self.limiters {
            for message in messages {
                limiter.hear(
                    message,
                    |name| (name == key.as_str()).then(|| (key.clone(), limits)),
                    now,
                );
            }
        }
    }

    fn gossip(&mut self, scope: Scope, now: Instant) {
        for at in 0..self.limiters.len() {
            let messages = self.limiters[at].tell(scope, now);
            self.spread(&messages, now);
        }
    }

    fn admit(&mut self, gateway: usize, tokens: u64, now: Instant) -> Result<(Charge, News), Refusal> {
        admit(&mut self.limiters[gateway], (&self.key, self.limits), tokens, now)
    }

    fn left(&self, gateway: usize, now: Instant) -> (u64, u64) {
        let standing = self.limiters[gateway].remaining(&self.key, self.limits, now);
        let left = |left: Option<Remaining>| left.map_or(0, |left| left.remaining);
        (left(standing.requests), left(standing.tokens))
    }
}

#[test]
fn requests_a_minute_are_counted_and_come_back() {
    let start = Instant::now();
    let mut cluster = Cluster::new(1, limits(60, 0, 0), start);
    for left in (0..60).rev() {
        cluster.admit(0, 0, start).unwrap();
        assert_eq!(cluster.left(0, start).0, left);
    }
    let refusal = cluster.admit(0, 0, start).unwrap_err();
    let after_one = Duration::from_secs(1);
    assert_eq!(
        refusal,
        Refusal::Requests {
            limit: 60,
            after: after_one
        }
    );
    let standing = cluster.limiters[0].remaining(&cluster.key, cluster.limits, start);
    assert_eq!(standing.requests.unwrap().reset, Duration::from_secs(60));
    assert_eq!(standing.tokens, None);
    cluster.admit(0, 0, after(start, 1.0)).unwrap();
    cluster.admit(0, 0, after(start, 1.1)).unwrap_err();
}

#[test]
fn running_requests_are_counted_over_all_gateways() {
    let start = Instant::now();
    let mut cluster = Cluster::new(2, limits(0, 0, 3), start);
    let (charge, _) = cluster.admit(0, 0, start).unwrap();
    cluster.admit(0, 0, start).unwrap();
    cluster.gossip(Scope::Changed, start);
    cluster.admit(1, 0, start).unwrap();
    assert_eq!(cluster.admit(1, 0, start).unwrap_err(), Refusal::Streams { limit: 3 });
    cluster.limiters[0].settle(&cluster.key.clone(), &charge, 0, start);
    cluster.gossip(Scope::Changed, start);
    cluster.admit(1, 0, start).unwrap();
}

#[test]
fn what_runs_at_a_gateway_that_is_gone_does_not_count() {
    let start = Instant::now();
    let mut cluster = Cluster::new(2, limits(0, 0, 1), start);
    cluster.admit(0, 0, start).unwrap();
    cluster.gossip(Scope::Changed, start);
    let later = start + PEER_LOST;
    cluster.limiters[1].age(later);
    cluster.admit(1, 0, later).unwrap_err();
    let later = later + Duration::from_millis(1);
    cluster.limiters[1].age(later);
    assert_eq!(cluster.limiters[1].peers.len(), 0);
    cluster.admit(1, 0, later).unwrap();
}

#[test]
fn tokens_are_estimated_and_settled() {
    let start = Instant::now();
    let mut cluster = Cluster::new(1, limits(0, 6000, 0), start);
    let key = cluster.key.clone();
    let (charge, _) = cluster.admit(0, 4000, start).unwrap();
    let asked = 2500;
    let refusal = cluster.admit(0, asked, start).unwrap_err();
    let after = Duration::from_secs(5);
    assert_eq!(
        refusal,
        Refusal::Tokens {
            limit: 6000,
            asked,
            after
        }
    );
    // It used less, and the rest is available at once.
    cluster.limiters[0].settle(&key, &charge, 1000, start);
    assert_eq!(cluster.left(0, start).1, 5000);
    // It used more, and owes the difference.
    let (charge, _) = cluster.admit(0, 5000, start).unwrap();
    cluster.limiters[0].settle(&key, &charge, 6000, start);
    assert_eq!(cluster.left(0, start).1, 0);
    assert!(matches!(cluster.admit(0, 1, start), Err(Refusal::Tokens { after, .. }) if after > Duration::from_secs(9)));
}

#[test]
fn what_has_leaked_is_not_given_back_a_second_time() {
    let start = Instant::now();
    let mut cluster = Cluster::new(1, limits(0, 6000, 0), start);
    let key = cluster.key.clone();
    let (charge, _) = cluster.admit(0, 1000, start).unwrap();
    // 1000 tokens leak in 10 s, so others could already use them.
    let later = after(start, 10.0);
    cluster.admit(0, 6000, later).unwrap();
    cluster.limiters[0].settle(&key, &charge, 0, later);
    assert_eq!(cluster.left(0, later).1, 0);
    // Half of it has leaked.
    let mut cluster = Cluster::new(1, limits(0, 6000, 0), start);
    let (charge, _) = cluster.admit(0, 1000, start).unwrap();
    let later = after(start, 5.0);
    cluster.admit(0, 2000, later).unwrap();
    assert_eq!(cluster.left(0, later).1, 3500);
    cluster.limiters[0].settle(&key, &charge, 0, later);
    assert_eq!(cluster.left(0, later).1, 4000);
}

#[test]
fn a_request_larger_than_the_limit_goes_when_nothing_else_has() {
    let start = Instant::now();
    let mut cluster = Cluster::new(1, limits(0, 100, 0), start);
    cluster.admit(0, 5000, start).unwrap();
    cluster.admit(0, 5000, after(start, 59.0)).unwrap_err();
    cluster.admit(0, 5000, after(start, 60.0)).unwrap();
}

#[test]
fn a_request_that_its_tokens_refuse_counts_as_a_request_and_no_other_refusal_consumes_anything() {
    let start = Instant::now();
    let mut cluster = Cluster::new(1, limits(10, 100, 5), start);
    cluster.admit(0, 100, start).unwrap();
    for left in (0..9).rev() {
        assert!(matches!(cluster.admit(0, 1, start), Err(Refusal::Tokens { .. })));
        assert_eq!(cluster.left(0, start).0, left);
    }
    for _ in 0..100 {
        assert!(matches!(cluster.admit(0, 1, start), Err(Refusal::Requests { .. })));
    }
    assert_eq!(cluster.limiters[0].tell(Scope::Active, start)[0].keys[0].streams, 1);
}

#[test]
fn what_one_gateway_lets_in_is_missing_at_the_others() {
    let start = Instant::now();
    let mut cluster = Cluster::new(3, limits(60, 6000, 0), start);
    for _ in 0..20 {
        cluster.admit(0, 100, start).unwrap();
    }
    assert_eq!(cluster.left(1, start), (60, 6000), "nobody has told yet");
    cluster.gossip(Scope::Changed, start);
    for gateway in 0..3 {
        assert_eq!(cluster.left(gateway, start), (40, 4000));
    }
    cluster.gossip(Scope::Active, start);
    assert_eq!(cluster.left(1, start), (40, 4000), "what is told twice counts once");
}

#[test]
fn a_lost_message_is_made_good_by_the_next() {
    let start = Instant::now();
    let mut cluster = Cluster::new(2, limits(60, 0, 0), start);
    for _ in 0..20 {
        cluster.admit(0, 0, start).unwrap();
    }
    let lost = cluster.limiters[0].tell(Scope::Changed, start);
    assert_eq!(lost.len(), 1);
    assert_eq!(cluster.limiters[0].tell(Scope::Changed, start), []);
    cluster.gossip(Scope::Active, start);
    assert_eq!(cluster.left(1, start).0, 40);
    // The message arrives after all, late.
    cluster.spread(&lost, start);
    assert_eq!(cluster.left(1, start).0, 40);
}

#[test]
fn a_gateway_that_joins_is_told_what_was_consumed() {
    let start = Instant::now();
    let mut cluster = Cluster::new(2, limits(60, 6000, 0), start);
    for _ in 0..20 {
        cluster.admit(0, 100, start).unwrap();
        cluster.admit(1, 100, start).unwrap();
    }
    cluster.gossip(Scope::Changed, start);
    cluster.join(start);
    assert_eq!(cluster.left(2, start), (20, 2000));
    // The others know all its new requests, although they have not known it for long.
    for _ in 0..5 {
        cluster.admit(2, 100, start).unwrap();
    }
    cluster.gossip(Scope::Changed, start);
    for gateway in 0..3 {
        assert_eq!(cluster.left(gateway, start), (15, 1500));
    }
}

#[test]
fn a_gateway_that_was_cut_off_is_believed_no_more_than_there_can_be() {
    let start = Instant::now();
    let mut cluster = Cluster::new(2, limits(60, 0, 0), start);
    for second in 0..100 {
        let now = after(start, f64::from(second));
        cluster.limiters[0]
            .admit(&cluster.key.clone(), cluster.limits, now)
            .unwrap();
    }
    let now = after(start, 100.0);
    cluster.limiters[1].age(now);
    assert_eq!(cluster.limiters[1].peers.len(), 0);
    cluster.gossip(Scope::Active, now);
    // It has admitted a hundred, but one per second.
    assert!(cluster.left(1, now).0 >= 58, "{:?}", cluster.left(1, now));
}

#[test]
fn a_key_that_was_away_does_not_bring_its_past_along() {
    let start = Instant::now();
    let mut cluster = Cluster::new(2, limits(60, 0, 0), start);
    for second in 0..1000 {
        let now = after(start, f64::from(second));
        cluster.admit(0, 0, now).unwrap();
        cluster.gossip(Scope::Active, now);
    }
    let now = after(start, 1000.0);
    // One forgets the other's count, then the other forgets its own.
    cluster.limiters[1].retain(|_| false);
    cluster.admit(0, 0, now).unwrap();
    cluster.gossip(Scope::Active, now);
    assert!(cluster.left(1, now).0 >= 57, "{:?}", cluster.left(1, now));
    cluster.limiters[0].retain(|_| false);
    for _ in 0..10 {
        cluster.admit(0, 0, now).unwrap();
    }
    cluster.gossip(Scope::Active, now);
    let left = cluster.left(1, now).0;
    assert!((47..=50).contains(&left), "{left}");
}

#[test]
fn it_is_urgent_where_the_others_might_go_beyond_the_limit() {
    let start = Instant::now();
    let mut alone = Cluster::new(1, limits(60, 0, 0), start);
    assert_eq!(alone.admit(0, 0, start).unwrap().1, News::default(), "nobody to tell");
    let mut cluster = Cluster::new(2, limits(60, 0, 0), start);
    let urgent: Vec<bool> = (0..60).map(|_| cluster.admit(0, 0, start).unwrap().1.urgent).collect();
    // Four times the untold amount reaches what is left at 12.
    assert_eq!(urgent.iter().position(|urgent| *urgent), Some(11));
    assert!(urgent[11..].iter().all(|urgent| *urgent));
    cluster.gossip(Scope::Urgent, start);
    assert_eq!(cluster.left(1, start).0, 0);
    let mut large = Cluster::new(2, limits(1_000_000, 0, 0), start);
    assert!((0..1000).all(|_| !large.admit(0, 0, start).unwrap().1.urgent));
}

#[test]
fn it_is_urgent_that_there_is_room_again_where_there_was_none() {
    let start = Instant::now();
    let mut cluster = Cluster::new(2, limits(0, 0, 2), start);
    let key = cluster.key.clone();
    let (first, _) = cluster.admit(0, 0, start).unwrap();
    let (second, news) = cluster.admit(0, 0, start).unwrap();
    assert!(news.urgent);
    cluster.gossip(Scope::Urgent, start);
    cluster.admit(1, 0, start).unwrap_err();
    assert!(cluster.limiters[0].settle(&key, &first, 0, start).urgent);
    cluster.gossip(Scope::Urgent, start);
    let (third, _) = cluster.admit(1, 0, start).unwrap();
    assert!(
        cluster.limiters[0].settle(&key, &second, 0, start)
            == News {
                some: true,
                urgent: false
            }
    );
    cluster.gossip(Scope::Changed, start);
    assert!(!cluster.limiters[1].settle(&key, &third, 0, start).urgent);
    let mut alone = Cluster::new(1, limits(0, 0, 1), start);
    let (charge, _) = alone.admit(0, 0, start).unwrap();
    assert_eq!(alone.limiters[0].settle(&key, &charge, 0, start), News::default());
}

#[test]
fn messages_are_of_bounded_size_and_idle_keys_are_not_told_for_ever() {
    let start = Instant::now();
    let mut limiter = Limiter::new(name("g"));
    let limits = limits(60, 0, 0);
    let keys: Vec<Name> = (0..KEYS_PER_MESSAGE * 2 + 1)
        .map(|at| name(&format!("{at:064}")))
        .collect();
    for key in &keys {
        let (charge, _) = limiter.admit(key, limits, start).unwrap();
        limiter.settle(key, &charge, 0, start);
    }
    let told = limiter.tell(Scope::Active, start);
    assert_eq!(
        told.iter().map(|message| message.keys.len()).collect::<Vec<_>>(),
        [400, 400, 1]
    );
    for message in &told {
        assert!(tokenbus_protocol::encode(message).unwrap().len() <= 64 * 1024);
    }
    limiter.age(after(start, 0.5));
    assert_eq!(limiter.tell(Scope::Active, start).len(), 3);
    limiter.age(after(start, 1.1));
    let told = limiter.tell(Scope::Active, start);
    assert!(
        told.len() == 1 && told[0].keys.is_empty(),
        "it still says that it lives"
    );
}

#[test]
fn nonsense_from_the_bus_does_no_harm() {
    let start = Instant::now();
    let mut cluster = Cluster::new(1, limits(60, 6000, 5), start);
    let mut seq = 0;
    for requests in [0, u64::MAX, 3] {
        for tokens in [i64::MIN, i64::MAX, 0] {
            for level in [f64::NAN, f64::INFINITY, -1.0, 1e300] {
                let told = KeyConsumption {
                    key: "k".to_owned(),
                    requests,
                    tokens,
                    streams: u32::MAX,
                    requests_level: level,
                    tokens_level: level,
                    expected: Amount {
                        tokens: u64::MAX,
                        cost: u64::MAX,
                    },
                    unsaved: Spending::default(),
                };
                let gateway = name(&format!("x{}", seq % 5));
                seq += 1;
                cluster.spread(
                    &[Consumption {
                        gateway,
                        seq,
                        hello: false,
                        complete: seq % 2 == 0,
                        keys: vec![told],
                    }],
                    start,
                );
                let _ = cluster.admit(0, u64::MAX, start);
                assert!(cluster.left(0, start).0 <= 60);
            }
        }
    }
}

#[test]
fn invented_gateways_fill_the_memory_to_a_bound() {
    let (start, mut limiter) = (Instant::now(), Limiter::new(name("g")));
    let keys: Vec<Name> = (0..2000).map(|n| name(&format!("k{n}"))).collect();
    let told = |key: &Name| KeyConsumption {
        key: key.to_string(),
        requests: 1,
        tokens: 0,
        streams: 1,
        requests_level: 0.0,
        tokens_level: 0.0,
        expected: Amount::default(),
        unsaved: Spending::default(),
    };
    let one = Consumption {
        gateway: name("x"),
        seq: 1,
        hello: false,
        complete: true,
        keys: keys.iter().map(told).collect(),
    };
    for number in 0..MAX_TOLD / keys.len() + 10 {
        let gateway = name(&format!("x{number}"));
        limiter.hear(
            &Consumption { gateway, ..one.clone() },
            |key| Some((name(key), limits(0, 0, 1))),
            start,
        );
    }
    assert_eq!(limiter.told, MAX_TOLD);
    // They fall silent, and there is room again.
    limiter.age(start + PEER_LOST + Duration::from_secs(1));
    assert_eq!(limiter.told, 0);
}
