//! The `tokenbus` binary.

use std::process::ExitCode;

/// A request allocates some 150 times in a gateway; the system's allocator took a fifth of its time (docs/performance.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    tokenbus::main()
}
