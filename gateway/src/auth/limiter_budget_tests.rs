//! Tests of the limiter with budgets.

use std::num::NonZeroU64;

use super::super::budget::Budgets;
use super::*;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// A limiter that knows what was used before, of a key with a budget of `tokens` a day.
fn budgeted(me: &str, tokens: u64) -> (Limiter, Limits) {
    let mut limiter = Limiter::new(name(me));
    limiter.books.at(1_000_000);
    limiter.books.loaded(true);
    let budgets = Budgets {
        tokens_day: NonZeroU64::new(tokens),
        ..Budgets::default()
    };
    let limits = Limits {
        budgets,
        ..Limits::default()
    };
    (limiter, limits)
}

const fn amount(tokens: u64) -> Amount {
    Amount { tokens, cost: 0 }
}

#[test]
fn what_requests_are_expected_to_use_of_a_budget_counts_at_all_gateways() {
    let (now, key) = (Instant::now(), name("k"));
    let (mut one, limits) = budgeted("one", 100);
    let (mut two, _) = budgeted("two", 100);
    let hear = |to: &mut Limiter, from: &mut Limiter| {
        for message in from.tell(Scope::Active, now) {
            to.hear(&message, |_| Some((key.clone(), limits)), now);
        }
    };
    hear(&mut one, &mut two);
    hear(&mut two, &mut one);
    let (mut charge, _) = one.admit(&key, limits, now).unwrap();
    let news = one.expect(&key, &mut charge, amount(99), now).unwrap();
    assert!(news.urgent);
    hear(&mut two, &mut one);
    let (mut last, _) = two.admit(&key, limits, now).unwrap();
    two.expect(&key, &mut last, amount(5), now).unwrap();
    assert!(matches!(two.admit(&key, limits, now), Err(Refusal::Expected { .. })));
    // It has used less than expected.
    one.settle(&key, &charge, 10, now);
    one.spend(&key, &charge, amount(10), now);
    hear(&mut two, &mut one);
    two.admit(&key, limits, now).unwrap();
    two.settle(&key, &last, 95, now);
    two.spend(&key, &last, amount(95), now);
    let refusal = two.admit(&key, limits, now).unwrap_err();
    assert!(
        matches!(refusal, Refusal::Expected { .. }),
        "the 10 may be in the bucket already"
    );
    last.expected = amount(0);
    two.spend(&key, &last, amount(5), now);
    let refusal = two.admit(&key, limits, now).unwrap_err();
    // 1,000,000 s are 11 days and 49,600 s.
    let after = Duration::from_secs(86_400 - 49_600);
    let budget = Budget::TokensDay;
    assert_eq!(
        refusal,
        Refusal::Spent {
            budget,
            limit: 100,
            after
        }
    );
    let left = two.remaining(&key, limits, now).budgets[0].unwrap();
    assert_eq!((left.limit, left.remaining, left.reset), (100, 0, after));
    two.books.at(1_000_000 + 36_800);
    two.admit(&key, limits, now).unwrap();
}

#[test]
fn until_it_is_known_what_was_used_nothing_of_a_budget_is_given() {
    let (_, limits) = budgeted("one", 100);
    let mut limiter = Limiter::new(name("two"));
    let refusal = limiter.admit(&name("k"), limits, Instant::now()).unwrap_err();
    assert_eq!(refusal, Refusal::BudgetsUnknown);
    limiter.admit(&name("k"), Limits::default(), Instant::now()).unwrap();
}
