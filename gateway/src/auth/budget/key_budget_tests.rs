//! Tests of the budgets of one key.

use tokenbus_protocol::{Amount, Date, Name};

use super::*;

const TODAY: Date = Date { day: 31, month: 1 };
const TOMORROW: Date = Date { day: 32, month: 2 };

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn tokens(tokens: u64) -> Amount {
    Amount { tokens, cost: 0 }
}

fn daily(limit: u64) -> Budgets {
    Budgets {
        tokens_day: NonZeroU64::new(limit),
        ..Budgets::default()
    }
}

/// A bucket with one key.
#[derive(Default)]
struct Bucket {
    entry: Entry,
    revision: u64,
}

impl Bucket {
    fn write(&mut self, (entry, over): (Entry, u64)) -> bool {
        let fits = over == self.revision;
        if fits {
            self.entry = entry;
            self.revision += 1;
        }
        fits
    }
}

fn check(budget: &KeyBudget, limit: u64) -> Result<(), Exhausted> {
    budget.check(&daily(limit), Told::default(), true, TODAY)
}

#[test]
fn a_budget_is_over_when_it_is_used_up_and_waits_for_what_is_expected() {
    let mut budget = KeyBudget::default();
    budget.expect(tokens(10));
    assert_eq!(check(&budget, 10), Err(Exhausted::Expected(Budget::TokensDay)));
    assert_eq!(check(&budget, 11), Ok(()));
    budget.settle(tokens(10), tokens(4), TODAY);
    assert_eq!(check(&budget, 5), Ok(()));
    assert_eq!(check(&budget, 4), Err(Exhausted::Spent(Budget::TokensDay)));
    assert_eq!(budget.check(&daily(4), Told::default(), true, TOMORROW), Ok(()));
    let others = Told {
        expected: tokens(3),
        unsaved: Spending::on(TODAY, tokens(3)),
    };
    let with = |limit, kept| budget.check(&daily(limit), others, kept, TODAY);
    assert_eq!(with(10, true), Err(Exhausted::Expected(Budget::TokensDay)));
    assert_eq!(
        with(7, true),
        Err(Exhausted::Expected(Budget::TokensDay)),
        "it may count twice"
    );
    assert_eq!(with(7, false), Err(Exhausted::Spent(Budget::TokensDay)));
    assert_eq!(with(11, true), Ok(()));
}

#[test]
fn each_amount_is_stored_once_whatever_is_lost_and_in_any_order() {
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..500 {
        let mut bucket = Bucket::default();
        let names = [name("g0"), name("g1"), name("g2")];
        let mut gateways: [KeyBudget; 3] = Default::default();
        let (mut used, mut seq) = (0, 0);
        // Writes under way: they arrive later, or never.
        let mut late: Vec<(Entry, u64)> = Vec::new();
        for _ in 0..60 {
            let at = random.usize(..3);
            let (gateway, me) = (&mut gateways[at], &names[at]);
            match random.u8(..6) {
                0 | 1 => {
                    let amount = random.u64(1..10);
                    used += amount;
                    gateway.settle(tokens(0), tokens(amount), TODAY);
                }
                2 => {
                    seq += 1;
                    if let Some(write) = gateway.send(me, seq) {
                        let entry = write.0.clone();
                        if bucket.write(write) && random.bool() {
                            gateway.stored(me, entry, bucket.revision);
                        }
                    }
                }
                3 => {
                    seq += 1;
                    late.extend(gateway.send(me, seq));
                }
                4 => {
                    if !late.is_empty() {
                        let write = late.swap_remove(random.usize(..late.len()));
                        bucket.write(write);
                    }
                }
                _ => gateway.stored(me, bucket.entry.clone(), bucket.revision),
            }
        }
        for (gateway, me) in gateways.iter_mut().zip(&names) {
            for _ in 0..3 {
                gateway.stored(me, bucket.entry.clone(), bucket.revision);
                seq += 1;
                if let Some(write) = gateway.send(me, seq) {
                    assert!(bucket.write(write));
                }
            }
            assert!(!{
                gateway.stored(me, bucket.entry.clone(), bucket.revision);
                gateway.is_unsaved()
            });
        }
        assert_eq!(bucket.entry.spending.daily, tokens(used));
    }
}

#[test]
fn a_bucket_that_is_lost_gets_back_what_gateways_know_and_a_deleted_entry_begins_anew() {
    let me = name("g");
    let mut budget = KeyBudget::default();
    budget.settle(tokens(0), tokens(5), TODAY);
    let mut bucket = Bucket::default();
    let write = budget.send(&me, 1).unwrap();
    assert!(bucket.write(write));
    budget.stored(&me, bucket.entry.clone(), 1);
    assert!(!budget.is_unsaved() && budget.send(&me, 2).is_none());

    budget.forget_revision();
    let mut bucket = Bucket::default();
    let write = budget.send(&me, 3).unwrap();
    assert!(bucket.write(write));
    budget.stored(&me, bucket.entry.clone(), 1);
    assert_eq!(bucket.entry.spending.daily, tokens(5));
    assert!(!budget.is_unsaved());

    budget.deleted(2);
    assert!(!budget.is_unsaved() && check(&budget, 1).is_ok());
}
