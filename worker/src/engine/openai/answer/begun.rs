//! Which choices of an answer have begun, and which are complete. Pure.

use super::finish_reason::Calls;

/// The choices that have begun.
#[derive(Debug, Default)]
pub(super) struct Begun(Vec<Choice>);

#[derive(Debug)]
struct Choice {
    index: u32,
    finished: bool,
    calls: Calls,
}

impl Begun {
    /// Notes what a chunk said of the choice `index`: whether it finished it, and the members of its delta.
    pub(super) fn mark<'n>(&mut self, index: u32, finished: bool, names: impl Iterator<Item = &'n str>) {
        let at = match self.0.iter().position(|choice| choice.index == index) {
            Some(at) => at,
            None => {
                let calls = Calls::default();
                self.0.push(Choice {
                    index,
                    finished: false,
                    calls,
                });
                self.0.len() - 1
            }
        };
        if let Some(choice) = self.0.get_mut(at) {
            choice.finished |= finished;
            choice.calls = names.fold(choice.calls, Calls::and);
        }
    }

    /// Whether all `due` choices have begun and are complete.
    pub(super) fn is_complete(&self, due: u32) -> bool {
        !self.0.is_empty()
            && self.0.iter().all(|choice| choice.finished)
            && self.0.len() >= usize::try_from(due).unwrap_or(usize::MAX)
    }

    /// Finishes what is open, because the engine said that all is done: the choices and their reasons. Of an
    /// answer in which nothing has begun all `due` choices are empty. An engine that passes over `n` (Ollama)
    /// has given what it gives.
    pub(super) fn finish(&mut self, due: u32) -> Vec<(u32, &'static str)> {
        if self.0.is_empty() {
            (0..due).for_each(|index| self.mark(index, false, std::iter::empty()));
        }
        let open = self.0.iter_mut().filter(|choice| !choice.finished);
        open.map(|choice| {
            choice.finished = true;
            (choice.index, choice.calls.finish_reason())
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_due_choices_must_begin_and_finish() {
        let mut begun = Begun::default();
        assert!(!begun.is_complete(0), "nothing came");
        begun.mark(1, false, std::iter::empty());
        begun.mark(1, true, std::iter::empty());
        begun.mark(1, false, ["tool_calls"].into_iter());
        assert!(begun.is_complete(1) && !begun.is_complete(2));
        begun.mark(0, true, std::iter::empty());
        assert!(begun.is_complete(2));
    }

    #[test]
    fn what_is_open_is_finished_by_what_it_has() {
        let mut begun = Begun::default();
        begun.mark(0, false, ["content"].into_iter());
        begun.mark(2, false, ["tool_calls"].into_iter());
        begun.mark(1, true, std::iter::empty());
        assert_eq!(begun.finish(5), [(0, "stop"), (2, "tool_calls")]);
        assert_eq!(begun.finish(5), []);
        assert_eq!(Begun::default().finish(2), [(0, "stop"), (1, "stop")]);
    }
}
