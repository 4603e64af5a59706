//! Tests of what a gateway knows of the workers' caches.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;
use crate::chain::Cut;
use crate::held::Held;

fn prompt(hashes: &[u32]) -> Prompt {
    let cuts = (1..).zip(hashes).map(|(n, hash)| Cut {
        hash: u64::from(*hash) << 32 | u64::from(*hash),
        bytes: n * 400,
        tokens: n * 100,
    });
    cuts.collect()
}

fn held(directory: &Directory, prompt: &Prompt, worker: WorkerNumber) -> u32 {
    let mut holdings = Holdings::default();
    directory.look(prompt, &mut holdings);
    holdings.of(worker)
}

#[test]
fn the_deepest_cut_of_each_holder_counts() {
    let mut directory = Directory::new(1 << 20);
    let (mut a, mut b) = (directory.join().unwrap(), directory.join().unwrap());
    for (worker, read) in [(&mut a, &prompt(&[1, 2, 3])), (&mut b, &prompt(&[1]))] {
        let mut mine = Held::new(1000, 100, 1);
        mine.read(read);
        assert_eq!(directory.apply(worker, &mine.news(0).unwrap()), Applied::Known);
    }
    let asked = prompt(&[1, 2, 4]);
    assert_eq!((held(&directory, &asked, a), held(&directory, &asked, b)), (200, 100));
    assert_eq!(held(&directory, &prompt(&[9]), a), 0);
    assert_eq!(
        (directory.cuts(), directory.cuts_of(a), directory.cuts_of(b)),
        (3, 3, 1)
    );
}

#[test]
fn a_gap_is_asked_for_and_a_repetition_is_not() {
    let mut directory = Directory::new(1 << 20);
    let mut worker = directory.join().unwrap();
    let mut mine = Held::new(10_000, 100, 7);
    mine.read(&prompt(&[1, 2]));
    let first = mine.news(0).unwrap();
    mine.read(&prompt(&[1, 2, 3]));
    let both = mine.news(0).unwrap();
    mine.read(&prompt(&[1, 2, 3, 4]));
    let last = mine.news(3).unwrap();
    let asked = prompt(&[1, 2, 3, 4]);
    assert_eq!(
        directory.apply(&mut worker, &last),
        Applied::Gap,
        "nothing of before is known"
    );
    assert_eq!(directory.apply(&mut worker, &first), Applied::Known);
    assert_eq!(directory.apply(&mut worker, &both), Applied::Known);
    assert_eq!(
        directory.apply(&mut worker, &first),
        Applied::Known,
        "late, and heard before"
    );
    assert_eq!(held(&directory, &asked, worker), 300);
    mine.read(&prompt(&[1, 2, 3, 4, 5]));
    assert_eq!(directory.apply(&mut worker, &mine.news(4).unwrap()), Applied::Gap);
    assert_eq!(held(&directory, &asked, worker), 0, "what may be gone does not count");
    assert_eq!(directory.apply(&mut worker, &mine.all(99)), Applied::Known);
    assert_eq!(held(&directory, &asked, worker), 400);
    mine.clear();
    mine.read(&prompt(&[8]));
    assert_eq!(directory.apply(&mut worker, &mine.news(0).unwrap()), Applied::Known);
    assert_eq!(
        (
            held(&directory, &asked, worker),
            held(&directory, &prompt(&[8]), worker)
        ),
        (0, 100)
    );
}

#[test]
fn numbers_of_workers_that_have_gone_come_back_clean() {
    let mut directory = Directory::new(1 << 20);
    let mut mine = Held::new(10_000, 100, 7);
    mine.read(&prompt(&[1]));
    let mut numbers: Vec<WorkerNumber> = (0..100).map(|_| directory.join().unwrap()).collect();
    for number in &mut numbers {
        directory.apply(number, &mine.news(0).unwrap());
    }
    for number in &numbers[..99] {
        directory.leave(*number);
        directory.leave(*number);
    }
    assert_eq!(held(&directory, &prompt(&[1]), numbers[0]), 0, "at once");
    for _ in 0..SHARDS {
        directory.sweep();
    }
    let again = directory.join().unwrap();
    assert!(again.0 < 99, "{again:?}");
    assert_eq!(held(&directory, &prompt(&[1]), numbers[99]), 100);
    directory.leave(numbers[99]);
    (0..SHARDS).for_each(|_| directory.sweep());
    assert_eq!(directory.cuts(), 0);
}

#[test]
fn the_tables_stay_within_their_bound() {
    let bound = 1 << 20;
    let mut directory = Directory::new(bound);
    let mut worker = directory.join().unwrap();
    let mut mine = Held::new(u64::MAX, 1_000_000, 7);
    for hash in 0..200_000_u32 {
        mine.read(&prompt(&[hash.wrapping_mul(2_654_435_761)]));
        directory.apply(&mut worker, &mine.news(u64::from(hash)).unwrap());
        mine.forget_changes(u64::from(hash) + 1);
    }
    assert!(directory.bytes() <= bound, "{}", directory.bytes());
    assert!(directory.cuts() > bound / 40, "{}", directory.cuts());
}

#[test]
fn ten_million_cuts_take_400_mb_at_most() {
    // The table of one shard, as it would be with its part of them.
    assert!(table_bytes(10_000_000 / SHARDS) * SHARDS <= 400_000_000);
    assert_eq!(ENTRY_BYTES, 17);
}

proptest! {
    #[test]
    fn it_knows_what_the_workers_hold(
        steps in proptest::collection::vec((0..6_usize, proptest::collection::vec(0..4_u32, 1..4), any::<bool>()), 1..80)
    ) {
        let mut directory = Directory::new(1 << 20);
        let mut workers: Vec<(WorkerNumber, Held, u64)> =
            (0..6).map(|n| (directory.join().unwrap(), Held::new(700, 100, n), 0)).collect();
        for (n, numbers, restart) in steps {
            let hashes: Vec<u32> = numbers.iter().scan(1_u32, |hash, number| {
                *hash = hash.wrapping_mul(31).wrapping_add(*number);
                Some(*hash)
            }).collect();
            let (number, mine, told) = &mut workers[n];
            if restart && numbers.len() == 1 {
                mine.clear();
                *told = 0;
            }
            mine.read(&prompt(&hashes));
            prop_assert_eq!(directory.apply(number, &mine.news(*told).unwrap()), Applied::Known);
            *told = mine.changes();
            directory.sweep();
            for (number, mine, _) in &workers {
                prop_assert_eq!(held(&directory, &prompt(&hashes), *number), mine.holds(&prompt(&hashes)));
                prop_assert_eq!(directory.cuts_of(*number) as usize, mine.len());
            }
        }
    }

    #[test]
    fn a_shard_is_a_map_of_sets(
        steps in proptest::collection::vec((0..3_u64, 0..200_u16, 0..3_u8), 1..300)
    ) {
        let (mut shard, mut plain) = (Shard::default(), HashMap::<u64, HashSet<u16>>::new());
        for (key, number, kind) in steps {
            match kind {
                0 | 1 => prop_assert_eq!(shard.insert(key, number), plain.entry(key).or_default().insert(number)),
                _ if number < 5 => {
                    shard.retain(|other| other % 5 != number);
                    plain.values_mut().for_each(|set| set.retain(|other| other % 5 != number));
                }
                _ => prop_assert_eq!(shard.remove(key, number), plain.entry(key).or_default().remove(&number)),
            }
            plain.retain(|_, set| !set.is_empty());
            prop_assert_eq!(shard.cuts.len(), plain.len());
            for (key, set) in &plain {
                let mut found = HashSet::new();
                shard.each_holder(*key, |number| { found.insert(number); });
                prop_assert_eq!(&found, set);
            }
        }
    }
}
