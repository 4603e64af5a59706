//! Every bound of the placement, with its unit and its reason.

/// Most cuts of a prompt. They travel with its request: 16 bytes each, 1 KiB together.
pub const MAX_CUTS: usize = 64;

/// Cuts kept from the beginning of a prompt with too many. The rest are its last ones: system prompts are shared from
/// the beginning, and a conversation goes on where it ended.
pub(crate) const FIRST_CUTS: usize = 16;

/// Distances in bytes of the first cuts inside a long message. Prompts that share only a beginning branch early.
pub(crate) const FIRST_STEPS: [usize; 4] = [512, 1024, 2048, 4096];

/// Distance in bytes of the further cuts inside a long message: about 1,000 tokens, which take an engine some 100 ms.
pub(crate) const STEP: usize = 4096;

/// Bytes of text per token, where nobody has counted. English prose has about 4.
pub(crate) const BYTES_PER_TOKEN: u64 = 4;

/// Tokens that an image or a sound counts.
pub(crate) const ATTACHMENT_TOKENS: u64 = 1000;

/// Changes that a worker keeps for its next news. One that changes faster than it can tell is asked for everything.
pub(crate) const KEPT_CHANGES: usize = 16_384;

/// Bytes of a gateway's knowledge of what workers hold, by default: about 1,800,000 cuts.
pub const DIRECTORY_BYTES: usize = 64 * 1024 * 1024;

/// A gateway's own decisions that it remembers, in cuts: 1,000 requests a second with 20 cuts each, for 3 s.
pub(crate) const RECENT_CUTS: usize = 65_536;

/// Milliseconds for which a gateway counts its own decisions. By then the worker has told of the request.
pub const RECENT_MS: u64 = 3_000;

/// Prefill rate in tokens per millisecond that a worker counts with until it has measured its own: a small model on a
/// small GPU. Others of the model that have measured theirs give a better guess.
pub const PRIOR_PREFILL: f32 = 2.0;

/// Milliseconds that a request holds a slot, where nothing was measured.
pub const PRIOR_SERVICE_MS: f32 = 5_000.0;

/// Milliseconds between tokens, where nothing was measured.
pub const PRIOR_TOKEN_MS: f32 = 20.0;

/// Steps of decoding that a worker with all slots busy costs a new request, in addition to its prefill.
pub(crate) const DECODE_STEPS: f32 = 4.0;

/// Workers within this part of the best expected time are as good as the best: rates are measured, not known.
pub(crate) const SLACK: f32 = 0.05;

/// Workers within this many milliseconds of the best are as good as the best.
pub(crate) const SLACK_MS: f32 = 10.0;

/// A worker is much slower than the fastest if it needs more than this times as long …
pub(crate) const MUCH_SLOWER: f32 = 1.2;

/// … and this many milliseconds: what other gateways may have placed since the last news.
pub(crate) const MUCH_SLOWER_MS: f32 = 60.0;

/// Tokens that another worker must hold more than the chosen one, to count as left for its load.
pub(crate) const SPILLED_TOKENS: u32 = 256;

/// Largest part of a full trust that one answer takes away or gives back.
pub(crate) const TRUST_STEP: f32 = 0.2;

/// Most times that reading a prompt counts where workers read most of the time. Beyond, waiting for a holder would cost
/// a request more than others gain.
pub(crate) const MOST_CROWDED: f32 = 3.0;

/// Workers of which the best is taken. Gateways with the same knowledge must not all choose the same one.
pub(crate) const DRAWN: usize = 8;

/// A prompt that more than one worker in so many holds, and not one alone, is common …
pub(crate) const COMMON_PART: u32 = 4;

/// … and a worker with at most this part of the load of those that hold it is to hold it too …
pub(crate) const IDLE_PART: f32 = 0.5;

/// … by one request in so many. The others do not pay for it.
pub(crate) const SPREAD_ONE_IN: u32 = 16;
