//! Bounds of the APIs, with their units and reasons.

/// The most choices that a request may ask for: OpenAI's own bound on `n`.
pub(crate) const MAX_CHOICES: u32 = 128;

/// The most choices of a text completion, over all its prompts. OpenAI allows as many prompts in one request.
pub(crate) const MAX_TEXT_CHOICES: u32 = 2048;

/// The most bytes of output that are collected for a client that does not stream. Today's longest contexts are a few
/// MiB of text; log probabilities multiply that.
pub const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// The most member names that are collected per object. Engines send a handful; the bound keeps the search for a name
/// short.
pub(crate) const MAX_MEMBERS: usize = 256;

/// The most tool calls that are collected per choice. OpenAI allows 128 tools in a request.
pub(crate) const MAX_TOOL_CALLS: usize = 1024;

/// The most responses that one request may refer to; each is looked up.
pub(crate) const MAX_REFERENCES: usize = 64;

/// Assumed tokens of an image, a sound or a file in a request, whatever its size.
pub(crate) const ASSUMED_ATTACHMENT: u64 = 1000;

/// Assumed bytes of text per token. English has four; where an engine counts, its count replaces the estimate.
pub(crate) const BYTES_PER_TOKEN: u64 = 4;

/// The most members and elements of a body that a check may have to keep. A long agent's conversation with many tools has
/// some ten thousand; each costs a check up to 400 bytes.
pub(crate) const MAX_VALUES: usize = 200_000;

/// The most bytes of kept items that one request may stand for: as many as a body may have by default.
pub(crate) const MAX_REFERRED: usize = 32 * 1024 * 1024;
