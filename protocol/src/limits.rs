//! Every bound on what a message may hold, with its unit and its reason.

/// First byte of every message. A peer that speaks another format is told so, rather than fed to
/// a decoder that would fail at random.
pub const FORMAT: u8 = 0x01;

/// Largest batch of frames in bytes, format byte included. Beyond 16 KiB the price of a message is
/// its bytes and no longer its wake-up; 64 KiB keeps well under NATS's default `max_payload` of
/// 1 MiB and one socket write.
pub const MAX_BATCH: usize = 64 * 1024;

/// Largest single message of any kind in bytes that is decoded. NATS servers are warned off a
/// `max_payload` above 8 MiB; nothing larger can be a message of ours.
pub const MAX_MESSAGE: usize = 8 * 1024 * 1024;

/// Deepest nesting that a decoded message may have. Our own types need less than 12 levels; a
/// hostile message must not exhaust the stack.
pub const MAX_DEPTH: usize = 32;

/// Largest request body in bytes that a worker puts together from parts: the gateway's default
/// body limit of 32 MiB with room for a gateway that was told to allow more.
pub const MAX_BODY: u64 = 256 * 1024 * 1024;

/// Most parts that a request body may come in. At the smallest sensible part of 32 KiB this
/// still covers [`MAX_BODY`].
pub const MAX_PARTS: u32 = 8192;

/// Longest model name in bytes. Four times that, with every byte escaped, still is a legal NATS
/// subject (the server's default line limit is 4 KiB).
pub const MAX_MODEL_NAME: usize = 256;

/// Longest namespace, gateway id or worker id in bytes: they stand in every subject.
pub const MAX_NAME: usize = 64;

/// Bytes that a request message may need beside its body: ids, model, deadline, trace context.
/// The gateway leaves this much room under `max_payload` when it cuts a body into parts.
pub const REQUEST_OVERHEAD: usize = 4 * 1024;
