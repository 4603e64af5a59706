//! The lines typed in earlier chats, on disk: only their owner may read them.

use std::ffi::OsString;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustyline::history::History as _;

use super::lines::LineEditor;
use crate::limits;

/// The value of `--history` for none.
const OFF: &str = "off";

/// Where lines are kept.
#[derive(Debug)]
pub(crate) struct Kept(Option<PathBuf>);

impl Kept {
    /// The file that `--history` names, or the user's own.
    pub(crate) fn at(given: Option<PathBuf>, variable: impl Fn(&str) -> Option<OsString>) -> Self {
        match given {
            Some(path) if path == Path::new(OFF) => Self(None),
            Some(path) => Self(Some(path)),
            None => Self(state(variable).map(|folder| folder.join("tokenbus/chat_history"))),
        }
    }

    /// The earlier lines, into `editor`. The history is a convenience: what cannot be read or kept is no failure.
    pub(crate) fn load(&self, editor: &mut LineEditor) {
        let Some(path) = &self.0 else { return };
        if let Err(error) = editor.load_history(path) {
            tracing::debug!(%error, path = %path.display(), "no earlier lines");
        }
    }

    /// Keeps `line`: for the arrow keys, and for the next chat.
    pub(crate) fn add(&self, line: &str, editor: &mut LineEditor) {
        if line.len() > limits::CHAT_HISTORY_LINE_BYTES || !editor.add_history_entry(line).unwrap_or(false) {
            return;
        }
        let Some(path) = &self.0 else { return };
        let kept = folder_of(path).map_err(|error| error.to_string());
        let kept = kept.and_then(|()| editor.history_mut().append(path).map_err(|error| error.to_string()));
        if let Err(error) = kept {
            tracing::debug!(%error, path = %path.display(), "this line is not kept");
        }
    }
}

/// `$XDG_STATE_HOME`, else `~/.local/state`.
fn state(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let absolute = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))
}

fn folder_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => DirBuilder::new().recursive(true).mode(0o700).create(folder),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::lines::editor;
    use super::*;

    fn place(given: Option<&str>, variables: &[(&str, &str)]) -> Option<PathBuf> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        };
        Kept::at(given.map(PathBuf::from), variable).0
    }

    #[test]
    fn the_file_is_the_users_own_unless_another_is_named() {
        let home = [("HOME", "/h")];
        assert_eq!(place(None, &home), Some("/h/.local/state/tokenbus/chat_history".into()));
        let state = [("XDG_STATE_HOME", "/s"), ("HOME", "/h")];
        assert_eq!(place(None, &state), Some("/s/tokenbus/chat_history".into()));
        assert_eq!(place(None, &[]), None);
        assert_eq!(place(Some("x"), &home), Some("x".into()));
        assert_eq!(place(Some("off"), &home), None);
    }

    #[test]
    fn lines_outlive_the_chat_for_their_owner_alone_and_within_bounds() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/history");
        let kept = Kept(Some(path.clone()));
        let mut first = editor().unwrap();
        kept.load(&mut first);
        kept.add("\"\"\"\none\ntwo\n\"\"\"", &mut first);
        kept.add("three", &mut first);
        kept.add("three", &mut first);
        kept.add(" a line behind a space is a secret", &mut first);
        kept.add(&"x".repeat(limits::CHAT_HISTORY_LINE_BYTES + 1), &mut first);
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        let mut second = editor().unwrap();
        kept.load(&mut second);
        let lines: Vec<&str> = second.history().iter().map(String::as_str).collect();
        assert_eq!(lines, ["\"\"\"\none\ntwo\n\"\"\"", "three"]);
        for number in 0..limits::CHAT_HISTORY_LINES + 5 {
            kept.add(&format!("line {number}"), &mut second);
        }
        let mut third = editor().unwrap();
        kept.load(&mut third);
        assert_eq!(third.history().len(), limits::CHAT_HISTORY_LINES);
        // The disk is as bounded as the memory.
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= limits::CHAT_HISTORY_LINES + 1, "{lines}");
        let nowhere = Kept(None);
        nowhere.add("not kept", &mut third);
        assert!(!std::fs::read_to_string(&path).unwrap().contains("not kept"));
    }
}
