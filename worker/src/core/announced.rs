//! What the worker announces of its models where NATS refuses some of its subjects.

use tokenbus_protocol::ModelInfo;

use crate::core::Core;
use crate::core::refused::Refused;

impl Core {
    /// What NATS refuses has changed, or what the worker listens to.
    pub(crate) fn on_refused(&mut self, refused: Refused) {
        if self.refused == refused {
            return;
        }
        let was_cut_off = self.is_cut_off();
        self.refused = refused;
        match (was_cut_off, self.is_cut_off()) {
            (false, true) => tracing::error!(
                refused = ?self.refused,
                "the worker is not announced, because NATS refuses what it needs; see the refused subjects above"
            ),
            (true, false) => tracing::info!("NATS allows again what the worker needs: it is announced"),
            _ => {}
        }
        self.tell_state();
    }

    /// Whether NATS lets the worker serve nothing.
    pub(crate) fn is_cut_off(&self) -> bool {
        let has_rest = || self.info.models.iter().any(|model| self.refused.rest(model).is_some());
        self.refused.is_everything() || !self.info.models.is_empty() && !has_rest()
    }

    /// The models with what can be asked of them.
    pub(crate) fn announced(&self) -> Vec<ModelInfo> {
        if self.is_cut_off() {
            // They are there, and cannot be had.
            return self.info.models.clone();
        }
        let models = self.info.models.iter();
        models.filter_map(|model| self.refused.rest(model)).collect()
    }
}
