//! Every limit of the simulated HTTP engine, with its unit and its reason.

/// The largest request body, bytes: above what any gateway in front of it lets through by default.
pub(super) const BODY_BYTES: usize = 64 << 20;

/// Without pacing, output gathers until it is so much, bytes: one write carries it.
pub(super) const BLOCK_BYTES: usize = 16 << 10;

/// Output that may wait for a client that does not read, bytes. Beyond it an engine that can pause does, and a
/// paced one cuts the stream, as its tokens come whether they are read or not.
pub(super) const UNREAD_BYTES: usize = 1 << 20;

/// First size of a stream's buffer, bytes: several tokens, so that not each one allocates.
pub(super) const BUFFER_BYTES: usize = 4 << 10;
