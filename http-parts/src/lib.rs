//! Parts of streamed HTTP answers: the chunked transfer coding, server-sent events, and the pattern of completion
//! chunks. Pure: bytes in, bytes out. Input may be cut anywhere without changing the result.

mod chunked;
mod completion_pattern;
mod event_stream;

pub use chunked::{ChunkedDecoder, LAST_CHUNK, MalformedChunks, encode_chunk};
pub use completion_pattern::{CompletionPattern, PatternMatch};
pub use event_stream::{Event, EventParser, EventTooLong};
