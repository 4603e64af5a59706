//! The lane in the model: in every state it does the same as the long way.

use tokenbus_api::Template;

use std::sync::Arc;

use super::*;
use crate::fast_path::lane::Passed;
use crate::fast_path::splice::Splice;

impl World {
    /// In any state, the lane lets through what the long way delivers, and leaves the same state behind.
    pub(super) fn compare_lane(&self, worker: &Name, frame: &Frame<'static>) {
        let mut frame = frame.clone();
        let Body::Delta(delta) = &mut frame.body else { return };
        delta.token_ids.clear();
        let text = delta.text.to_string();
        let splice = Splice {
            template: Arc::new(Template::new("", "")),
            outlet: None,
        };
        let (mut lane, mut passed) = (self.stream.lane(&splice), Passed::default());
        let passes = lane
            .as_mut()
            .is_some_and(|lane| lane.pass(worker, &frame, self.now, &mut passed));
        let own = self.current == Some(frame.attempt as usize);
        assert!(own || !passes, "a stale frame passes: {frame:?}");
        let (mut long, mut short) = (self.stream.clone(), self.stream.clone());
        let (worker, mut actions) = (worker.clone(), Vec::new());
        long.on_event(Event::Frame { worker, frame }, self.now, &mut actions);
        let delivers = |action: &Action| matches!(action, Action::Output(Output::Delta(delta)) if delta.text == text);
        assert_eq!(passes, actions.iter().any(delivers), "{actions:?}");
        if passes {
            short.on_passed(&passed);
            assert_eq!(format!("{long:?}"), format!("{short:?}"));
        }
    }
}
