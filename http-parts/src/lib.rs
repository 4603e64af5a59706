//! Parts of HTTP that several rooms need. Of streamed answers: the chunked transfer coding, server-sent events, and the
//! pattern of completion chunks; bytes in, bytes out, and input may be cut anywhere without changing the result. Of
//! requests: which of them come from foreign web pages. Pure.

mod chunked;
mod completion_pattern;
mod event_stream;
mod json_text;
mod web_guard;

pub use chunked::{ChunkedDecoder, LAST_CHUNK, MalformedChunks, encode_chunk};
pub use completion_pattern::{CompletionPattern, PatternMatch};
pub use event_stream::{Event, EventParser, EventTooLong};
pub use json_text::{Unescape, code_unit, may_have_halves, whole_characters};
pub use web_guard::{AllowedHost, ForeignRequest, NoHost, WebGuard};
