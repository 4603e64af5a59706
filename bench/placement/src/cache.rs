//! An engine's prefix cache: blocks of 16 tokens, shared by all prompts with that prefix, least recently used first out.
//!
//! Blocks are kept by segment: those of one segment are always used together, so its last block leaves first and the
//! segment shrinks from its end. That is exactly what a list of single blocks would do, in a fraction of the time.

use rustc_hash::FxHashMap;

use crate::prompt::{BLOCK, Segment, blocks};

const NONE: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
struct Node {
    id: u64,
    /// Blocks that end in the segment.
    blocks: u32,
    /// Those of them that are held, from the first on.
    resident: u32,
    /// Running requests that use it. Only nodes without any are in the list of what may leave.
    pins: u32,
    older: u32,
    newer: u32,
}

/// A change of what the cache holds: a segment's first block came, or its last left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// The segment.
    pub id: u64,
    /// Whether it came.
    pub came: bool,
}

/// What a running request keeps from leaving.
#[derive(Debug, Default)]
pub struct Hold {
    /// The nodes of its prompt, from the first on.
    nodes: Vec<u32>,
    /// Blocks besides these: what is not computed yet, and the answer.
    reserved: u32,
}

/// The cache.
#[derive(Debug)]
pub struct PrefixCache {
    nodes: Vec<Node>,
    unused: Vec<u32>,
    by_id: FxHashMap<u64, u32>,
    oldest: u32,
    newest: u32,
    capacity: u32,
    used: u32,
    pinned: u32,
    changes: Vec<Change>,
}

impl PrefixCache {
    /// An empty cache for this many tokens.
    pub fn new(tokens: u32) -> Self {
        Self {
            nodes: Vec::new(),
            unused: Vec::new(),
            by_id: FxHashMap::default(),
            oldest: NONE,
            newest: NONE,
            capacity: tokens / BLOCK,
            used: 0,
            pinned: 0,
            changes: Vec::new(),
        }
    }

    /// Blocks in use, cached and reserved.
    pub fn used(&self) -> u32 {
        self.used
    }

    /// Blocks that running requests hold.
    pub fn pinned(&self) -> u32 {
        self.pinned
    }

    /// Tokens of `prompt` that are cached, from its start.
    pub fn matched(&self, prompt: &[Segment]) -> u32 {
        let mut held = 0;
        for segment in prompt {
            let Some(node) = self.node(segment.id) else { break };
            held += node.resident;
            if node.resident < node.blocks {
                break;
            }
        }
        held * BLOCK
    }

    /// Tokens of `prompt` that running requests hold, from its start.
    pub fn in_use(&self, prompt: &[Segment]) -> u32 {
        let nodes = prompt
            .iter()
            .map_while(|segment| self.node(segment.id).filter(|node| node.pins > 0));
        nodes.map(|node| node.resident).sum::<u32>() * BLOCK
    }

    /// Whether all blocks of the segment are held.
    pub fn holds(&self, id: u64) -> bool {
        self.node(id).is_some_and(|node| node.resident == node.blocks)
    }

    /// Blocks held of the segment.
    pub fn resident(&self, id: u64) -> u32 {
        self.node(id).map_or(0, |node| node.resident)
    }

    /// What came and left since the last call.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// Makes room for a prompt and `answer` tokens, and keeps its cached part from leaving. Returns the cached tokens
    /// and the hold; nothing if running requests hold too much.
    pub fn start(&mut self, prompt: &[Segment], answer: u32) -> Option<(u32, Hold)> {
        let mut hold = Hold::default();
        let mut matched = 0;
        for segment in prompt {
            let Some(index) = self.by_id.get(&segment.id).copied() else {
                break;
            };
            self.pin(index);
            hold.nodes.push(index);
            let node = self.nodes[index as usize];
            matched += node.resident;
            if node.resident < node.blocks {
                break;
            }
        }
        let tokens: u32 = prompt.iter().map(|segment| segment.tokens).sum();
        hold.reserved = (tokens + answer).div_ceil(BLOCK) - matched;
        if self.pinned + hold.reserved > self.capacity {
            self.release(&hold.nodes);
            return None;
        }
        while self.used + hold.reserved > self.capacity && self.oldest != NONE {
            self.evict(self.used + hold.reserved - self.capacity);
        }
        self.used += hold.reserved;
        self.pinned += hold.reserved;
        Some((matched * BLOCK, hold))
    }

    /// The prompt of a started request is computed: its blocks can be shared from now on.
    pub fn computed(&mut self, prompt: &[Segment], hold: &mut Hold) {
        let mut before = 0;
        for (number, segment) in prompt.iter().enumerate() {
            if number == hold.nodes.len() {
                let index = self.find_or_insert(segment.id, blocks(before, segment.tokens));
                self.pin(index);
                hold.nodes.push(index);
            }
            self.fill(hold.nodes[number], hold);
            before += segment.tokens;
        }
    }

    /// A request has ended: its answer can be shared too, and nothing of it is kept from leaving any more.
    pub fn ended(&mut self, prompt: &[Segment], answer: Segment, mut hold: Hold) {
        let before = prompt.iter().map(|segment| segment.tokens).sum();
        let index = self.find_or_insert(answer.id, blocks(before, answer.tokens));
        self.pin(index);
        self.fill(index, &mut hold);
        hold.nodes.push(index);
        self.used -= hold.reserved;
        self.pinned -= hold.reserved;
        self.release(&hold.nodes);
    }

    /// Unpins the nodes of a path, the last first: the end of a path is to leave before its beginning.
    fn release(&mut self, nodes: &[u32]) {
        for index in nodes.iter().rev() {
            self.unpin(*index);
        }
    }

    /// Blocks that the pinned node lacks become its own.
    fn fill(&mut self, index: u32, hold: &mut Hold) {
        let node = &mut self.nodes[index as usize];
        let lacking = (node.blocks - node.resident).min(hold.reserved);
        node.resident += lacking;
        hold.reserved -= lacking;
    }

    fn pin(&mut self, index: u32) {
        if self.nodes[index as usize].pins == 0 {
            self.unlink(index);
            self.pinned += self.nodes[index as usize].resident;
        }
        self.nodes[index as usize].pins += 1;
    }

    fn unpin(&mut self, index: u32) {
        let newest = self.newest;
        let node = &mut self.nodes[index as usize];
        node.pins -= 1;
        if node.pins > 0 {
            return;
        }
        self.pinned -= node.resident;
        node.older = newest;
        node.newer = NONE;
        match newest {
            NONE => self.oldest = index,
            newest => self.nodes[newest as usize].newer = index,
        }
        self.newest = index;
    }

    fn unlink(&mut self, index: u32) {
        let Node { older, newer, .. } = self.nodes[index as usize];
        if older == NONE && newer == NONE && self.oldest != index {
            return;
        }
        match older {
            NONE => self.oldest = newer,
            older => self.nodes[older as usize].newer = newer,
        }
        match newer {
            NONE => self.newest = older,
            newer => self.nodes[newer as usize].older = older,
        }
        let node = &mut self.nodes[index as usize];
        (node.older, node.newer) = (NONE, NONE);
    }

    /// Takes up to `most` blocks from the least recently used segment.
    fn evict(&mut self, most: u32) {
        let index = self.oldest;
        let node = &mut self.nodes[index as usize];
        let taken = node.resident.min(most);
        node.resident -= taken;
        self.used -= taken;
        if node.resident == 0 {
            let id = node.id;
            self.unlink(index);
            self.by_id.remove(&id);
            self.unused.push(index);
            self.changes.push(Change { id, came: false });
        }
    }

    fn find_or_insert(&mut self, id: u64, count: u32) -> u32 {
        if let Some(index) = self.by_id.get(&id) {
            return *index;
        }
        self.insert(id, count)
    }

    fn insert(&mut self, id: u64, count: u32) -> u32 {
        let node = Node {
            id,
            blocks: count,
            resident: 0,
            pins: 0,
            older: NONE,
            newer: NONE,
        };
        let index = if let Some(index) = self.unused.pop() {
            self.nodes[index as usize] = node;
            index
        } else {
            self.nodes.push(node);
            u32::try_from(self.nodes.len() - 1).unwrap_or(NONE)
        };
        self.by_id.insert(id, index);
        self.changes.push(Change { id, came: true });
        index
    }

    fn node(&self, id: u64) -> Option<&Node> {
        self.by_id.get(&id).map(|index| &self.nodes[*index as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompt::Path;

    fn path(parts: &[(u64, u32)]) -> Vec<Segment> {
        let mut path = Path::default();
        for (text, tokens) in parts {
            path.message(*text, *tokens);
        }
        path.ask(0, 0, 0, 1).prompt
    }

    fn answer(id: u64, tokens: u32) -> Segment {
        Segment {
            id,
            tokens,
            opens_message: true,
        }
    }

    fn serve(cache: &mut PrefixCache, prompt: &[Segment], answer: Segment) -> u32 {
        let (cached, mut hold) = cache.start(prompt, answer.tokens).expect("there is room");
        cache.computed(prompt, &mut hold);
        cache.ended(prompt, answer, hold);
        cached
    }

    #[test]
    fn whole_blocks_of_a_common_beginning_are_cached() {
        let mut cache = PrefixCache::new(10_000);
        assert_eq!(serve(&mut cache, &path(&[(1, 100), (2, 50)]), answer(7, 10)), 0);
        // 100 tokens are 6 whole blocks; the 7th holds tokens of both segments.
        assert_eq!(cache.matched(&path(&[(1, 100), (3, 50)])), 96);
        assert_eq!(cache.matched(&path(&[(1, 100), (2, 50), (4, 99)])), 144);
        assert_eq!(cache.matched(&path(&[(2, 50), (1, 100)])), 0);
    }

    #[test]
    fn the_end_of_what_was_used_longest_ago_leaves_first() {
        let mut cache = PrefixCache::new(1_600);
        serve(&mut cache, &path(&[(1, 800)]), answer(101, 16));
        serve(&mut cache, &path(&[(2, 640)]), answer(102, 16));
        // 92 of 100 blocks are in use. 17 more take the answer behind the first path, then 8 blocks of its end.
        serve(&mut cache, &path(&[(3, 256)]), answer(103, 16));
        assert_eq!(cache.matched(&path(&[(1, 800)])), 800 - 8 * 16);
        assert_eq!(cache.matched(&path(&[(2, 640)])), 640);
        assert_eq!(cache.used(), 100);
    }

    #[test]
    fn what_runs_does_not_leave() {
        let mut cache = PrefixCache::new(1_600);
        let first = path(&[(1, 800)]);
        let (_, mut hold) = cache.start(&first, 160).expect("there is room");
        cache.computed(&first, &mut hold);
        assert!(cache.start(&path(&[(2, 800)]), 16).is_none());
        assert_eq!(cache.matched(&first), 800);
        cache.ended(&first, answer(101, 160), hold);
        assert!(cache.start(&path(&[(2, 800)]), 16).is_some());
    }

    #[test]
    fn a_long_random_history_keeps_its_accounts() {
        let mut rng = fastrand::Rng::with_seed(3);
        let mut cache = PrefixCache::new(4_000);
        let mut running = Vec::new();
        for turn in 0..20_000_u64 {
            if running.len() < 4 && rng.bool() {
                let prompt = path(&[(rng.u64(..4), 300), (rng.u64(..6), 77), (rng.u64(..9), 130)]);
                if let Some((cached, mut hold)) = cache.start(&prompt, 40) {
                    assert!(cached <= 507);
                    cache.computed(&prompt, &mut hold);
                    running.push((prompt, hold));
                }
            } else if !running.is_empty() {
                let (prompt, hold) = running.swap_remove(rng.usize(..running.len()));
                cache.ended(&prompt, answer(1_000_000 + turn % 50, 40), hold);
            }
            let resident: u32 = cache
                .by_id
                .values()
                .map(|index| cache.nodes[*index as usize].resident)
                .sum();
            let reserved: u32 = running.iter().map(|(_, hold)| hold.reserved).sum();
            assert_eq!(cache.used, resident + reserved);
            assert!(cache.used <= cache.capacity);
        }
        assert!(cache.pinned <= cache.used);
    }
}
