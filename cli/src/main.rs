//! The `tokenbus` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    tokenbus::main()
}
