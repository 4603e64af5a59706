//! Budgets of keys: tokens and money in a day and in a month, over all gateways. See docs/limits.md.
//!
//! `key_budget.rs` decides, with `calendar.rs`, `money.rs` and `entry.rs`; `books.rs` has all keys. All of that is pure.
//! `bucket.rs` is where it is kept.

pub(super) mod books;
pub(super) mod bucket;
mod calendar;
mod entry;
mod key_budget;
mod money;

pub use bucket::{Spent, spent};
pub use key_budget::{Budget, Budgets};
pub(crate) use key_budget::{Exhausted, Told};
pub(crate) use money::Price;
pub(crate) use money::currency;
pub use money::{Money, MoneyError};
