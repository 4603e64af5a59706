//! The `tokenbus` binary.
fn main(){}
