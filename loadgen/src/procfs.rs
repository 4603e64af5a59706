//! CPU time and memory of processes, from `/proc`.

use std::path::PathBuf;
use std::time::Duration;

/// Clock ticks per second of the times in `/proc/PID/stat`: the kernel's USER_HZ, which is 100 on every
/// architecture that tokenbus runs on, whatever the kernel's own HZ.
const TICKS_PER_SECOND: u64 = 100;

/// A process cannot be measured.
#[derive(Debug, thiserror::Error)]
pub enum ProcError {
    /// `/proc` does not have it.
    #[error("process {pid}: {source} ({path})", path = path.display())]
    Read {
        /// The process id.
        pid: u32,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// `/proc` has it in an unknown form.
    #[error("process {pid}: {path} is not as expected", path = path.display())]
    Parse {
        /// The process id.
        pid: u32,
        /// The file.
        path: PathBuf,
    },
}

/// CPU time and memory of a process since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sample {
    /// CPU time in its own code.
    pub(crate) user: Duration,
    /// CPU time in the kernel.
    pub(crate) system: Duration,
    /// Start time, in ticks after boot. It tells apart two processes with the same id.
    pub(crate) started: u64,
    /// Resident memory, in bytes.
    pub(crate) memory_bytes: u64,
    /// Peak of the resident memory, in bytes.
    pub(crate) peak_memory_bytes: u64,
}

/// Reads the CPU time and memory of a process.
///
/// # Errors
/// [`ProcError`] if it does not run (any more), or if there is no `/proc`.
pub(crate) fn sample(pid: u32) -> Result<Sample, ProcError> {
    let read = |file: &str| {
        let path = PathBuf::from(format!("/proc/{pid}/{file}"));
        let text = std::fs::read_to_string(&path);
        text.map_err(|source| ProcError::Read { pid, path, source })
    };
    let wrong = |file: &str| ProcError::Parse {
        pid,
        path: PathBuf::from(format!("/proc/{pid}/{file}")),
    };
    let (user, system, started) = parse_stat(&read("stat")?).ok_or_else(|| wrong("stat"))?;
    let (memory_bytes, peak_memory_bytes) = parse_status(&read("status")?).ok_or_else(|| wrong("status"))?;
    Ok(Sample {
        user,
        system,
        started,
        memory_bytes,
        peak_memory_bytes,
    })
}

fn parse_stat(text: &str) -> Option<(Duration, Duration, u64)> {
    // The second field is the program's name in parentheses. It may hold anything, also parentheses.
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11).map(str::parse::<u64>);
    let user = fields.next()?.ok()?;
    let system = fields.next()?.ok()?;
    let started = fields.nth(6)?.ok()?;
    let time = |ticks: u64| Duration::from_millis(ticks.saturating_mul(1000 / TICKS_PER_SECOND));
    Some((time(user), time(system), started))
}

fn parse_status(text: &str) -> Option<(u64, u64)> {
    let field = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib.saturating_mul(1024))
    };
    Some((field("VmRSS:")?, field("VmHWM:")?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn reads_stat_whatever_the_name() {
        let tail = "S 1 2 3 4 5 6 7 8 9 10 123 45 0 0 20 0 4 0 98765 1 2 3";
        for name in ["nats-server", "a b", ") (x) 1 2"] {
            let stat = parse_stat(&format!("77 ({name}) {tail}")).unwrap();
            assert_eq!(stat, (Duration::from_millis(1230), Duration::from_millis(450), 98765));
        }
        assert!(parse_stat("77 (x) S 1").is_none());
    }

    #[test]
    fn reads_status() {
        let text = "Name:\tx\nVmPeak:\t 9 kB\nVmHWM:\t    1024 kB\nVmRSS:\t     512 kB\n";
        assert_eq!(parse_status(text), Some((512 << 10, 1024 << 10)));
        assert!(parse_status("Name:\tzombie\n").is_none());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn knows_this_process_and_no_other() {
        let before = sample(std::process::id()).unwrap();
        assert!(before.peak_memory_bytes >= before.memory_bytes && before.memory_bytes > 0);
        assert!(matches!(sample(u32::MAX), Err(ProcError::Read { .. })));
    }
}
