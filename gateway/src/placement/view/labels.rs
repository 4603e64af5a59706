//! Which workers have the labels that keys and models require. Each such label has a mark among the features, so
//! whatever looks for able workers looks for the labels too.

use std::sync::Arc;

use tokenbus_protocol::{Features, Label, Labels, Name};

use super::View;

impl View {
    /// The marks of the labels that a request requires. Labels beyond [`Features::MARKS`] less one share a mark that no
    /// worker has: their requests find no worker.
    pub fn require(&mut self, required: &Labels) -> Features {
        let mut needs = Features::NONE;
        for label in required.iter() {
            let number = self.marks.iter().position(|known| known == label);
            let number = number.unwrap_or_else(|| self.mark(label));
            needs = needs.or(Features::mark(u32::try_from(number).unwrap_or(u32::MAX)));
        }
        needs
    }

    /// Gives a label its mark.
    fn mark(&mut self, label: &Label) -> usize {
        let number = self.marks.len();
        if number + 1 >= Features::MARKS as usize {
            return usize::MAX;
        }
        self.marks.push(label.clone());
        for worker in self.workers.values_mut() {
            if worker.labels.has(label) {
                worker.marks = worker
                    .marks
                    .or(Features::mark(u32::try_from(number).unwrap_or(u32::MAX)));
            }
        }
        number
    }

    /// The marks of a worker with these labels.
    pub(super) fn marks_of(&self, labels: &Labels) -> Features {
        let marks = (0_u32..).zip(&self.marks);
        let had = marks.filter(|(_, label)| labels.has(label));
        had.fold(Features::NONE, |marks, (number, _)| marks.or(Features::mark(number)))
    }

    /// A worker told itself what it is: its labels, the tier with which it was started, and its slots. They count as free
    /// until it tells more.
    pub fn introduced(&mut self, name: &Name, labels: &Labels, tier: u32, slots: u32) {
        let marks = self.marks_of(labels);
        if let Some(worker) = self.workers.get_mut(name) {
            worker.labels = Arc::new(labels.clone());
            worker.marks = marks;
            worker.tier = tier;
            if worker.slots == 0 {
                worker.room.free = slots;
            }
            worker.slots = worker.slots.max(slots);
        }
        self.tiered |= tier > 0;
        self.rank(name);
    }
}
