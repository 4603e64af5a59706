//! The answer to a request, in one piece or as events, and the record of the request.

pub(crate) mod access_log;
pub(crate) mod event_stream;
pub(crate) mod faults;
pub(crate) mod keeping;
pub(crate) mod record;
pub(crate) mod respond;
