//! Tools that are only offered to a model that knows none. Some clients (Open WebUI) offer theirs with every chat.

use tokenbus_api::{Checked, without_offered_tools};
use tokenbus_protocol::{Feature, Features, Labels};

use crate::call::{Backend, Prospect};
use crate::http::edge::Edge;

/// What the answer's head names as left out.
const TOOLS: &str = "tools";

/// Leaves the tools out of `checked`, whose chat body is `body` if it has none of its own: if no worker of its model
/// knows tools, and it demands no call.
pub(super) fn leave_out<C: Backend>(edge: &Edge<C>, checked: &mut Checked, body: &[u8]) {
    if !checked.needs.has(Feature::Tools) || edge.models.keeps_offered_tools(&checked.model) {
        return;
    }
    let cannot = |needs: Features| {
        let no = |model: &str| {
            matches!(
                edge.core.prospect(model, needs, &Labels::default()),
                Prospect::Cannot | Prospect::Unknown
            )
        };
        match edge.models.route(&checked.model) {
            Some(route) => route.targets.iter().all(|target| no(&target.model)),
            None => no(&checked.model),
        }
    };
    if !cannot(checked.needs) {
        return;
    }
    let Some(without) = without_offered_tools(checked.body.as_deref().unwrap_or(body)) else {
        return;
    };
    // Otherwise the error names all that the model lacks.
    if !cannot(without.needs) {
        checked.body = Some(without.body);
        checked.needs = without.needs;
        checked.not_resumable = without.not_resumable;
        checked.ignored.push(TOOLS.to_owned());
    }
}
