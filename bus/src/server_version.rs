//! Versions of nats-server, and which are too old.

/// The first version of each line of releases that has no publicly known hole.
const SAFE: [(u32, u32, u32); 2] = [(2, 11, 16), (2, 12, 7)];

/// What to say of a server that should be replaced.
pub(crate) const ADVICE: &str = "this nats-server has publicly known holes: run 2.12.7, 2.11.16 or a later version";

/// Whether a server of this version has publicly known holes. `false` for a version that is not understood.
pub(crate) fn is_too_old(version: &str) -> bool {
    let Some((major, minor, patch)) = parse(version) else {
        return false;
    };
    let same_line = SAFE.iter().find(|safe| (safe.0, safe.1) == (major, minor));
    match same_line {
        Some(safe) => patch < safe.2,
        None => SAFE.iter().all(|safe| (major, minor) < (safe.0, safe.1)),
    }
}

fn parse(version: &str) -> Option<(u32, u32, u32)> {
    let core = version.trim_start_matches('v').split(['-', '+']).next()?;
    let mut numbers = core.split('.').map(str::parse);
    let mut next = || numbers.next()?.ok();
    Some((next()?, next()?, next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_of_releases_has_its_first_safe_version() {
        for old in ["2.9.25", "2.10.29", "2.11.15", "2.12.6", "v2.12.0-RC.1", "1.4.1"] {
            assert!(is_too_old(old), "{old}");
        }
        for fine in ["2.11.16", "2.12.7", "2.12.10", "2.13.0", "v3.0.0-beta", "", "next"] {
            assert!(!is_too_old(fine), "{fine}");
        }
    }
}
