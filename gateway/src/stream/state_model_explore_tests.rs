//! The exploration: walks through every world of the model.

use std::collections::HashMap;

use super::*;

/// The worlds explored, and how they ended.
#[derive(Default)]
struct Explorer {
    /// The faults that were left when each world was explored.
    seen: HashMap<u64, u32>,
    path: Vec<Step>,
    whole: usize,
    failed: usize,
    left: usize,
    /// Worlds that ended with tokens of two runs in one text.
    moved: usize,
}

impl Explorer {
    /// Explores every world that can follow `world`.
    fn explore(&mut self, world: &World) {
        if world.left || world.ended {
            self.left += usize::from(world.left);
            self.whole += usize::from(world.ended && world.text.len() == ANSWER.len());
            self.failed += usize::from(world.ended && world.text.len() < ANSWER.len());
            self.moved += usize::from(world.text.first() != world.text.last());
            return;
        }
        let world_is = world.fingerprint();
        if self.seen.get(&world_is).is_some_and(|left| *left >= world.faults) {
            return;
        }
        self.seen.insert(world_is, world.faults);
        for step in world.steps() {
            let Some(faults) = world.faults.checked_sub(world.cost(step)) else {
                continue;
            };
            let mut next = world.clone();
            next.faults = faults;
            self.path.push(step);
            if let Err(what) = next.apply(step) {
                panic!("{what}\nafter {:?}\n{:?}", self.path, next.stream);
            }
            self.explore(&next);
            self.path.pop();
        }
    }

    fn run(faults: u32, not_resumable: Option<&'static str>, resumable: bool) -> Self {
        Self::walk(&World::new(faults, not_resumable, resumable))
    }

    fn walk(world: &World) -> Self {
        let mut explorer = Self::default();
        explorer.explore(world);
        let Self {
            seen,
            whole,
            failed,
            left,
            moved,
            ..
        } = &explorer;
        eprintln!(
            "{} worlds; ends: {whole} with all of the text, {failed} failed, {left} left; {moved} moved",
            seen.len()
        );
        explorer
    }
}

#[test]
fn every_interleaving_keeps_the_text_whole_and_leaves_nobody_generating() {
    // 334,232 worlds, 17 s on one core when this was written. Far fewer would check little.
    let explorer = Explorer::run(2, None, true);
    assert!(explorer.seen.len() > 100_000, "{}", explorer.seen.len());
    assert!(explorer.whole > 100 && explorer.failed > 100 && explorer.left > 100 && explorer.moved > 10);
}

#[test]
fn every_interleaving_without_resume_ends_honestly() {
    for (not_resumable, resumable) in [(Some("its output follows a grammar"), true), (None, false)] {
        let explorer = Explorer::run(1, not_resumable, resumable);
        assert!(explorer.seen.len() > 1000, "{}", explorer.seen.len());
        assert!(explorer.whole > 100 && explorer.failed > 100, "{}", explorer.whole);
        assert_eq!(explorer.moved, 0, "what cannot be continued was continued");
    }
}

#[test]
fn every_interleaving_in_one_piece_is_one_answer_whatever_can_be_continued() {
    for (not_resumable, resumable) in [
        (Some("its output follows a grammar"), true),
        (None, false),
        (None, true),
    ] {
        let explorer = Explorer::walk(&World::new(1, not_resumable, resumable).in_one_piece());
        assert!(explorer.seen.len() > 1000, "{}", explorer.seen.len());
        assert!(explorer.whole > 100 && explorer.failed > 100, "{}", explorer.whole);
        let joined = explorer.moved > 0;
        assert!(
            resumable && not_resumable.is_none() || !joined,
            "parts of two answers were joined"
        );
    }
}
