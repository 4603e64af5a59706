//! Every bound on a message, with its unit and its reason.

/// First byte of every message. A peer that uses another format gets a clear error; otherwise the decoder would
/// fail at random.
pub const FORMAT: u8 = 0x01;

/// Largest batch of frames in bytes, including the format byte. Beyond 16 KiB the cost of a message is its bytes
/// and no longer its wake-up. 64 KiB stays well under NATS's default `max_payload` of 1 MiB and fits one socket
/// write.
pub const MAX_BATCH: usize = 64 * 1024;

/// Largest message in bytes that is decoded. NATS recommends a `max_payload` of at most 8 MiB, so nothing larger
/// can be ours.
pub const MAX_MESSAGE: usize = 8 * 1024 * 1024;

/// Deepest nesting of a decoded message. Our types need less than 12 levels; a hostile message must not exhaust the
/// stack.
pub(crate) const MAX_DEPTH: usize = 32;

/// Largest request body in bytes that a worker assembles from parts: the gateway's default limit of 32 MiB, with
/// room for a gateway that allows more.
pub const MAX_BODY: u64 = 256 * 1024 * 1024;

/// Most parts of a request body. With the smallest sensible part of 32 KiB this still covers [`MAX_BODY`].
pub const MAX_PARTS: u32 = 8192;

/// Longest model name in bytes. With every byte escaped it still fits a NATS subject (the server's default line
/// limit is 4 KiB).
pub const MAX_MODEL_NAME: usize = 256;

/// Longest namespace, gateway id or worker id in bytes. They are part of every subject.
pub const MAX_NAME: usize = 64;

/// Bytes that a request message may need besides its body: ids, model, deadline, trace context. The gateway leaves
/// this much room under `max_payload` when it cuts a body into parts.
pub const REQUEST_OVERHEAD: usize = 4 * 1024;
