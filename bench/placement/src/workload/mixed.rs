//! Agents, system prompts and what shares nothing, a third of the requests each.

use super::demand::Demand;
use super::{agents, groups, unshared};
use crate::prompt::Request;

pub(super) fn requests(demand: Demand) -> Vec<Request> {
    let third = Demand {
        rate: demand.rate / 3.0,
        ..demand
    };
    let mut all = agents::requests(third);
    all.extend(groups::requests(third));
    all.extend(unshared::requests(third));
    all
}
