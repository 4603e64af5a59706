//! Looks programs up on PATH.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Returns the first executable file called `name` in the directories of `path` (as in `$PATH`).
pub(crate) fn look_up(name: &str, path: Option<&OsStr>) -> Option<PathBuf> {
    std::env::split_paths(path?)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(name))
        .find(|candidate| is_executable(candidate))
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    file.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn finds_executables_only_and_the_first_one() {
        use std::os::unix::fs::PermissionsExt as _;
        let one = tempfile::tempdir().unwrap();
        let two = tempfile::tempdir().unwrap();
        let path = std::env::join_paths([one.path(), two.path()]).unwrap();
        std::fs::write(one.path().join("tool"), "").unwrap();
        std::fs::write(two.path().join("tool"), "").unwrap();
        assert_eq!(look_up("tool", Some(&path)), None);
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(two.path().join("tool"), executable).unwrap();
        assert_eq!(look_up("tool", Some(&path)), Some(two.path().join("tool")));
        assert_eq!(look_up("tool", None), None);
    }
}
