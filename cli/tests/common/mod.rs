//! Runs the real binary in an environment of the test's own.

use std::path::Path;
use std::process::{Command, Output, Stdio};

/// What a run left behind.
#[derive(Debug)]
pub struct Run {
    /// Exit status.
    pub status: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// The binary, without the variables of this machine's user that it reads.
pub fn tokenbus(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tokenbus"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TOKENBUS_") {
            command.env_remove(name);
        }
    }
    command
        .env("HOME", home)
        .env_remove("XDG_CACHE_HOME")
        .stdin(Stdio::null());
    command
}

/// Runs it to its end.
pub fn run(command: &mut Command) -> Run {
    let Output { status, stdout, stderr } = command.output().expect("the binary runs");
    Run {
        status: status.code().unwrap_or(-1),
        stdout: String::from_utf8(stdout).expect("UTF-8"),
        stderr: String::from_utf8(stderr).expect("UTF-8"),
    }
}

/// The only line of a message: errors are one line, without a back-trace.
pub fn only_line(text: &str) -> &str {
    let lines: Vec<&str> = text.lines().collect();
    match lines.as_slice() {
        [line] => line,
        _ => panic!("not one line: {text}"),
    }
}
