//! What engines send as the members of a chat's delta, in the exact form that OpenAI documents. Engines agree on the
//! text, and differ in the rest: tool calls share a number or have none, arguments are objects, a character comes in
//! halves. Everything that reads or passes on a delta's members reads them from here.

mod calls;
mod scan;
mod tidy;

pub(crate) use scan::Scan;
pub(crate) use tidy::Tidy;
