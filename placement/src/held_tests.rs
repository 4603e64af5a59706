//! Tests of what a worker believes that its engine holds, against a plain list.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;
use crate::news::changes;

/// A prompt whose cuts are 100 tokens apart. Those with the same numbers at the beginning share them.
fn prompt(numbers: &[u64]) -> Prompt {
    let mut hash = 0;
    let mut tokens = 0;
    let cuts = numbers.iter().map(|number| {
        hash = twox_hash::XxHash3_64::oneshot_with_seed(hash, &number.to_le_bytes());
        tokens += 100;
        Cut {
            hash,
            bytes: tokens * 4,
            tokens,
        }
    });
    cuts.collect()
}

#[test]
fn what_was_read_is_held_until_newer_prompts_need_its_room() {
    let mut held = Held::new(400, 1000, 1);
    held.read(&prompt(&[1, 2]));
    assert_eq!((held.holds(&prompt(&[1, 2, 3])), held.holds(&prompt(&[2]))), (200, 0));
    held.read(&prompt(&[4]));
    held.read(&prompt(&[1]));
    held.read(&prompt(&[5, 6]));
    assert_eq!(
        held.holds(&prompt(&[1, 2])),
        100,
        "the end is forgotten before the beginning"
    );
    assert_eq!(held.holds(&prompt(&[4])), 100, "it was used after that end");
    assert_eq!(held.used(), 400);
}

#[test]
fn a_restart_forgets_everything_and_is_a_new_epoch() {
    let mut held = Held::new(400, 1000, 1);
    held.clear();
    assert_eq!(held.news(0).unwrap().epoch, 1, "there was nothing to forget");
    held.read(&prompt(&[1]));
    held.clear();
    assert_eq!((held.holds(&prompt(&[1])), held.used(), held.changes()), (0, 0, 0));
    assert_eq!(held.news(0).unwrap().epoch, 2);
}

#[test]
fn an_engine_that_forgot_has_less_room_than_it_said() {
    let mut held = Held::new(10_000, 1000, 1);
    for number in 0..50 {
        held.read(&prompt(&[number]));
    }
    held.found(100, 90);
    assert_eq!(held.room(), 10_000, "nearly all was found");
    held.found(100, 0);
    assert_eq!(held.room(), 4500, "less than is held here");
    assert_eq!(held.len(), 45);
    for _ in 0..1000 {
        held.found(100, 0);
    }
    assert!(held.room() >= 100);
    for _ in 0..1000 {
        held.found(100, 100);
    }
    assert_eq!(held.room(), 10_000);
}

#[test]
fn changes_are_told_in_order_and_a_late_reader_needs_everything() {
    let mut held = Held::new(u64::MAX, 2, 1);
    held.read(&prompt(&[1]));
    held.read(&prompt(&[2]));
    held.read(&prompt(&[3]));
    let gone: Vec<bool> = changes(&held.news(0).unwrap().changes)
        .map(|change| change.gone)
        .collect();
    assert_eq!(gone, [false, false, true, false]);
    held.forget_changes(3);
    assert_eq!(held.news(2), None);
    assert_eq!(held.news(3).unwrap().changes.len(), CHANGE_BYTES);
    assert_eq!(held.all(1).changes.len(), CHANGE_BYTES);
    assert_eq!((held.all(9).from, held.all(9).changes.len()), (4, 2 * CHANGE_BYTES));
}

#[test]
fn a_cut_takes_at_most_32_bytes() {
    let mut held = Held::new(u64::MAX, 1_000_000, 1);
    for number in 0..1_000_000_u64 {
        held.read(&prompt(&[number]));
        held.forget_changes(u64::MAX);
        if held.len() > 10_000 && held.len().is_multiple_of(37_777) {
            let each = held.bytes() as f64 / held.len() as f64;
            assert!(each <= 32.0, "{each} at {}", held.len());
        }
    }
    assert!(held.bytes() <= 32 * held.len(), "{} for {}", held.bytes(), held.len());
}

/// The same as [`Held`], plainly: the most recently used first.
#[derive(Default)]
struct Plain(Vec<(u64, u64)>);

impl Plain {
    fn read(&mut self, prompt: &Prompt, room: u64) {
        for (n, cut) in prompt.cuts().iter().enumerate().rev() {
            let before = n.checked_sub(1).map_or(0, |n| prompt.cuts()[n].tokens);
            self.0.retain(|(hash, _)| *hash != cut.hash);
            self.0.insert(0, (cut.hash, u64::from(cut.tokens - before)));
        }
        while self.0.iter().map(|(_, own)| own).sum::<u64>() > room {
            self.0.pop();
        }
    }
}

proptest! {
    #[test]
    fn it_is_a_list_by_last_use(prompts in proptest::collection::vec(proptest::collection::vec(0..3_u64, 1..5), 1..40)) {
        let (mut held, mut plain) = (Held::new(1000, 1000, 1), Plain::default());
        let mut told = HashMap::new();
        let mut from = 0;
        for numbers in prompts {
            let prompt = prompt(&numbers);
            held.read(&prompt);
            plain.read(&prompt, 1000);
            let news = held.news(from).unwrap();
            from = held.changes();
            for change in changes(&news.changes) {
                told.insert(change.cut, !change.gone);
            }
        }
        prop_assert_eq!(held.len(), plain.0.len());
        for (hash, _) in &plain.0 {
            prop_assert!(held.place(*hash).is_some());
        }
        let known: HashSet<_> = told.into_iter().filter(|(_, held)| *held).map(|(cut, _)| cut).collect();
        let all: HashSet<_> = changes(&held.all(usize::MAX).changes).map(|change| change.cut).collect();
        prop_assert_eq!(known, all, "who hears all changes knows the same");
    }
}
