//! What the index takes: bytes for each cut, and no memory at all for a decision.
#![allow(unsafe_code, clippy::unwrap_used, clippy::cast_precision_loss)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokenbus_placement::{
    Applied, CHANGE_BYTES, Candidate, Cut, Directory, Held, Holdings, News, Pick, Prompt, Room, Verdict,
};

/// Counts what is allocated.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);
static TIMES: AtomicUsize = AtomicUsize::new(0);

/// The counters are of the whole process: one test at a time.
static ONE: Mutex<()> = Mutex::new(());

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(now, Ordering::Relaxed);
        TIMES.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are those that are needed.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are those that are needed.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A number whose bits all depend on `n`.
fn spread(n: u64) -> u64 {
    let n = (n + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (n ^ n >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9)
}

/// News of `count` new cuts behind `from` others.
fn news(worker: u64, from: u64, count: u64) -> News {
    let mut changes = Vec::with_capacity(usize::try_from(count).unwrap() * CHANGE_BYTES);
    for n in from..from + count {
        let hash = spread(worker << 40 | n).to_le_bytes();
        changes.extend([hash[4], hash[5], hash[6], hash[7], hash[3] & 0x7F]);
    }
    News {
        epoch: 1,
        from,
        full: false,
        changes,
    }
}

#[test]
fn ten_million_cuts_take_400_megabytes_at_a_gateway_at_most() {
    // Without optimisation, a fifth of it says as much.
    const CUTS: u64 = if cfg!(debug_assertions) { 2_000_000 } else { 10_000_000 };
    let one = ONE.lock();
    let before = NOW.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    let mut directory = Directory::new(400 << 20);
    let mut workers: Vec<_> = (0..64).map(|_| directory.join().unwrap()).collect();
    let (mut told, each) = (0, 2_500);
    while told < CUTS {
        for (worker, number) in (0..).zip(&mut workers) {
            let applied = directory.apply(number, &news(worker, told / 64, each));
            assert_eq!(applied, Applied::Known);
        }
        told += 64 * each;
    }
    let most = MOST.load(Ordering::Relaxed) - before;
    let cuts = directory.cuts();
    drop(directory);
    drop(one);
    eprintln!("{cuts} cuts: {most} bytes, {:.1} each", most as f64 / cuts as f64);
    assert!(cuts as u64 >= CUTS * 99 / 100, "{cuts}");
    assert!(most as u64 <= CUTS * 40, "{most}");
}

#[test]
fn a_cut_takes_32_bytes_at_a_worker_at_most() {
    let one = ONE.lock();
    let before = NOW.load(Ordering::Relaxed);
    let mut held = Held::new(u64::MAX, 1_000_000, 1);
    for n in 0..1_000_000 {
        let cut = Cut {
            hash: spread(n),
            bytes: 400,
            tokens: 100,
        };
        held.read(&std::iter::once(cut).collect());
    }
    held.forget_changes(held.changes());
    let (bytes, cuts) = (NOW.load(Ordering::Relaxed) - before, held.len());
    drop(one);
    let each = bytes as f64 / cuts as f64;
    eprintln!("{cuts} cuts: {bytes} bytes, {each:.1} each");
    assert!(cuts == 1_000_000 && each <= 32.5, "{each}");
}

#[test]
fn a_decision_among_a_thousand_takes_no_memory() {
    let one = ONE.lock();
    let prompt: Prompt = (1..20)
        .map(|n| Cut {
            hash: spread(n),
            bytes: u32::try_from(n).unwrap() * 4000,
            tokens: u32::try_from(n).unwrap() * 1000,
        })
        .collect();
    let mut held = Held::new(1_000_000, 1000, 1);
    held.read(&prompt);
    let mut directory = Directory::new(64 << 20);
    let mut numbers: Vec<_> = (0..1000).map(|_| directory.join().unwrap()).collect();
    for number in numbers.iter_mut().step_by(50) {
        directory.apply(number, &held.news(0).unwrap());
    }
    let (mut holdings, mut pick) = (Holdings::default(), Pick::default());
    let mut random = fastrand::Rng::with_seed(1);
    let mut decide = || {
        holdings.clear();
        pick.clear();
        directory.look(&prompt, &mut holdings);
        for (id, number) in (0..).zip(&numbers) {
            let cached = holdings.of(*number);
            let expected_ms = (prompt.tokens() - cached) as f32;
            pick.offer(Candidate {
                id,
                name: spread(id.into()),
                expected_ms,
                cost: expected_ms,
                cached,
                busy: 0.5,
                room: Room::Free,
            });
        }
        assert!(matches!(pick.decide(None, Some(7), &mut random), Verdict::Send(_)));
    };
    decide();
    let before = TIMES.load(Ordering::Relaxed);
    for _ in 0..100 {
        decide();
    }
    let times = TIMES.load(Ordering::Relaxed) - before;
    drop(one);
    assert_eq!(times, 0);
}
