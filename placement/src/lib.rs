//! Where a request goes: the cuts of its prompt, who holds them, and the expected time to the first token.
//!
//! Everything here is pure: time is an argument in milliseconds, chance a seeded generator. Gateways, workers and the
//! simulator run the same code.

mod chain;
mod directory;
mod held;
mod limits;
mod news;
mod pending;
mod pick;
mod rates;
mod recent;
mod score;
mod trust;
mod turns;

pub use chain::{Chain, Cut, Prompt, session_hash};
pub use directory::{Applied, Directory, Holdings, WorkerNumber};
pub use held::Held;
pub use limits::{DIRECTORY_BYTES, MAX_CUTS, PRIOR_PREFILL, PRIOR_SERVICE_MS, PRIOR_TOKEN_MS, RECENT_MS};
pub use news::{CHANGE_BYTES, Change, News, ShortCut, changes};
pub use pending::Pending;
pub use pick::{Candidate, Decision, Hold, Pick, Reason, Room, Verdict};
pub use rates::PrefillRate;
pub use recent::Recent;
pub use score::{Expected, Facts, crowding, expected};
pub use trust::Trust;
pub use turns::Turns;
