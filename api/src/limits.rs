//! Bounds of the APIs, with their units and reasons.

/// Choices that a request may ask for: OpenAI's own bound on `n`.
pub const MAX_CHOICES: u32 = 128;

/// Choices of a text completion, those of all its prompts together. OpenAI's bound on the prompts of
/// one request is as large.
pub(crate) const MAX_TEXT_CHOICES: u32 = 2048;

/// Bytes of output that are collected for a client that does not stream. The longest contexts of
/// today are a few MiB of text; log probabilities multiply that.
pub const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// Distinct member names that are collected per object. Engines send a handful; the bound keeps
/// the search for a name short.
pub(crate) const MAX_MEMBERS: usize = 256;

/// Tool calls that are collected per choice; OpenAI allows 128 tools in a request.
pub(crate) const MAX_TOOL_CALLS: usize = 1024;

/// Responses that one request may refer to by their items; each is looked up.
pub(crate) const MAX_REFERENCES: usize = 64;
