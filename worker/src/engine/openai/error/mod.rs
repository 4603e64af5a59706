//! What an engine's refusals and failures mean to the cluster.

mod failure;
mod meaning;
mod object;
mod secrets;

pub(crate) use failure::{
    came_out_otherwise, continuation_refused, died, given_up, hung, is_fault, is_not_continuable, lost, nonsense,
    not_continuable, plain, refuses_continuation, timeout, truncated, unreachable, unsupported,
};
pub(crate) use meaning::{from_response, from_stream};
pub(crate) use object::is_error_object;
pub(crate) use secrets::Secrets;

#[cfg(test)]
mod tests;
