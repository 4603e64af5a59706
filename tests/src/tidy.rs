//! The rules of the house that no lint checks, as functions over the text of a file.

use std::path::{Path, PathBuf};

/// Most lines of a file: what can be read in one sitting.
pub const FILE_LINES: usize = 500;

/// Most lines of a function, including its signature and braces.
pub const FUNCTION_LINES: usize = 70;

/// The crates that are roles. They share only the wire and never import each other.
const ROLES: [&str; 3] = ["gateway", "worker", "coordinator"];

/// One source file.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its path from the root of the repository, with `/`.
    pub path: String,
    /// Its text.
    pub text: String,
}

impl Source {
    /// The top-level folder of the file.
    fn room(&self) -> &str {
        self.path.split('/').next().unwrap_or_default()
    }

    /// Whether the whole file is test code. [`production`] cuts off unit tests within a file.
    fn is_test(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        self.room() == "tests" || self.path.contains("/tests/") || name == "tests.rs" || name.ends_with("_tests.rs")
    }
}

/// Every `.rs` file of the repository under `root`, sorted by path.
///
/// # Panics
/// When a folder or file cannot be read.
pub fn sources(root: &Path) -> Vec<Source> {
    let mut folders = vec![root.to_owned()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of the repository can be read") {
            let path: PathBuf = entry.expect("an entry of a folder").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("a source file is text");
                let path = path.strip_prefix(root).expect("it lies under the root");
                found.push(Source {
                    path: path.to_string_lossy().replace('\\', "/"),
                    text,
                });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// The violations in `source`, one sentence each, with their place.
pub fn complaints(source: &Source) -> Vec<String> {
    let mut all = Vec::new();
    all.extend(first_line(source));
    all.extend(length(source));
    all.extend(functions(source));
    all.extend(unfinished(source));
    all.extend(foreign_roles(source));
    all.extend(bare_spawns(source));
    all
}

fn first_line(source: &Source) -> Option<String> {
    let first = source.text.lines().next().unwrap_or_default();
    let says = first.strip_prefix("//!").is_some_and(|text| text.trim().len() > 3);
    (!says).then(|| {
        format!(
            "{}:1: the first line is a `//!` that says what the module is for",
            source.path
        )
    })
}

fn length(source: &Source) -> Option<String> {
    let lines = source.text.lines().count();
    (lines > FILE_LINES).then(|| format!("{}: {lines} lines, more than {FILE_LINES}", source.path))
}

/// Functions over the limit. The code is formatted, so a function ends at the first closing brace with its own
/// indentation.
fn functions(source: &Source) -> Vec<String> {
    let lines: Vec<&str> = source.text.lines().collect();
    let mut long = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let Some(name) = function_name(line) else { continue };
        let ends = |line: &&str| line.len() - line.trim_start().len() == indent && line.trim_start().starts_with('}');
        let without_body =
            |line: &&str| line.trim_end().ends_with(';') && line.len() - line.trim_start().len() == indent;
        if without_body(&lines[start]) || lines[start].trim_end().ends_with('}') {
            continue;
        }
        let Some(more) = lines[start + 1..]
            .iter()
            .position(|line| ends(line) || without_body(line))
        else {
            continue;
        };
        let count = more + 2;
        if count > FUNCTION_LINES {
            long.push(format!(
                "{}:{}: `{name}` has {count} lines, more than {FUNCTION_LINES}",
                source.path,
                start + 1
            ));
        }
    }
    long
}

/// The name of the function that begins in `line`.
pub(crate) fn function_name(line: &str) -> Option<&str> {
    let mut rest = line.trim_start();
    if let Some(public) = rest.strip_prefix("pub") {
        rest = match public.strip_prefix('(') {
            Some(scoped) => scoped.split_once(')')?.1,
            None => public,
        };
    }
    let words = ["default", "const", "async", "unsafe", "extern \"C\""];
    loop {
        rest = rest.trim_start();
        match words.iter().find_map(|word| rest.strip_prefix(word)?.strip_prefix(' ')) {
            Some(after) => rest = after,
            None => break,
        }
    }
    let name = rest.strip_prefix("fn ")?;
    let end = name.find(|c: char| !c.is_alphanumeric() && c != '_')?;
    name.get(..end)
}

fn unfinished(source: &Source) -> Vec<String> {
    let words = [concat!("to", "do!"), concat!("unimple", "mented!")];
    let found = |line: &str| words.iter().any(|word| line.contains(word)) && !line.trim_start().starts_with("//");
    at_lines(source, found, "nothing is left unfinished in the tree")
}

/// Roles never import each other, and nothing below them imports a role.
fn foreign_roles(source: &Source) -> Vec<String> {
    let room = source.room();
    let below = [
        "protocol",
        "placement",
        "http-parts",
        "bus",
        "api",
        "engine",
        "telemetry",
        "sim",
        "loadgen",
    ]
    .contains(&room);
    if !below && !ROLES.contains(&room) {
        return Vec::new();
    }
    let foreign = ROLES.iter().chain(&["cli"]).filter(|role| **role != room);
    let names: Vec<String> = foreign.map(|role| format!("tokenbus_{role}::")).collect();
    let found = |line: &str| names.iter().any(|name| line.contains(name.as_str()));
    at_lines(source, found, "roles share the wire, never code")
}

fn bare_spawns(source: &Source) -> Vec<String> {
    if source.is_test() || source.path == "bus/src/task.rs" {
        return Vec::new();
    }
    let production = Source {
        path: source.path.clone(),
        text: production(&source.text).to_owned(),
    };
    let found = |line: &str| {
        let code = line.split("//").next().unwrap_or_default();
        code.contains("tokio::spawn(") || code.contains("tokio::task::spawn(")
    };
    at_lines(
        &production,
        found,
        "tasks are spawned through `tokenbus_bus::task::spawn`, which names them",
    )
}

/// The text before the unit tests, which come last in a file.
pub(crate) fn production(text: &str) -> &str {
    let mut from = 0;
    while let Some(at) = text[from..].find("\n#[cfg(test)]\n").map(|at| from + at) {
        let behind = text[at + 1..].lines().find(|line| !line.starts_with("#["));
        if behind.is_some_and(|line| {
            (line.starts_with("mod ") || line.starts_with("pub")) && line.contains("mod ") && line.ends_with('{')
        }) {
            return &text[..at];
        }
        from = at + 1;
    }
    text
}

fn at_lines(source: &Source, found: impl Fn(&str) -> bool, rule: &str) -> Vec<String> {
    let lines = source.text.lines().enumerate().filter(|(_, line)| found(line));
    lines
        .map(|(at, line)| format!("{}:{}: {rule}: {}", source.path, at + 1, line.trim()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(path: &str, text: &str) -> Vec<String> {
        complaints(&Source {
            path: path.to_owned(),
            text: format!("//! A module.\n{text}"),
        })
    }

    #[test]
    fn a_tidy_file_passes() {
        let text = "use tokenbus_bus::task;\nfn f() {\n    task::spawn(\"x\", async {});\n}\n";
        assert_eq!(judge("gateway/src/a.rs", text), Vec::<String>::new());
    }

    #[test]
    fn a_module_says_what_it_is_for() {
        let bare = Source {
            path: "bus/src/a.rs".into(),
            text: "use std::fmt;\n".into(),
        };
        assert_eq!(complaints(&bare).len(), 1);
    }

    #[test]
    fn long_files_and_functions_are_found_to_the_line() {
        let just = format!("fn f() {{\n{}}}\n", "    g();\n".repeat(FUNCTION_LINES - 2));
        assert_eq!(judge("bus/src/a.rs", &just), Vec::<String>::new());
        let long = format!(
            "impl A {{\n    pub(crate) async fn f(\n        self,\n    ) {{\n{}    }}\n}}\n",
            "        g();\n".repeat(FUNCTION_LINES - 3)
        );
        let found = judge("bus/src/a.rs", &long);
        assert!(
            found.len() == 1 && found[0].contains(":3: `f` has 71 lines"),
            "{found:?}"
        );
        assert_eq!(
            judge("bus/src/a.rs", &"\n".repeat(FILE_LINES - 1)),
            Vec::<String>::new()
        );
        assert_eq!(judge("bus/src/a.rs", &"\n".repeat(FILE_LINES)).len(), 1);
    }

    #[test]
    fn functions_without_a_body_do_not_run_into_the_next() {
        let text = format!(
            "trait T {{\n    fn a(&self);\n    fn b(\n        &self,\n    );\n{}}}\n",
            "\n".repeat(80)
        );
        assert_eq!(judge("bus/src/a.rs", &text), Vec::<String>::new());
    }

    #[test]
    fn unfinished_work_and_foreign_roles_are_found() {
        assert_eq!(judge("cli/src/a.rs", concat!("fn f() { to", "do!() }\n")).len(), 1);
        let import = concat!("use tokenbus_", "worker::Options;\n");
        assert_eq!(judge("gateway/src/a.rs", import).len(), 1);
        assert_eq!(judge("protocol/src/a.rs", import).len(), 1);
        assert_eq!(judge("cli/src/a.rs", import), Vec::<String>::new());
        assert_eq!(judge("worker/tests/a.rs", import), Vec::<String>::new());
    }

    #[test]
    fn bare_spawns_are_found_outside_tests() {
        let spawn = concat!("fn f() {\n    tokio::", "spawn(async {});\n}\n");
        assert_eq!(judge("gateway/src/a.rs", spawn).len(), 1);
        assert_eq!(judge("bus/src/task.rs", spawn), Vec::<String>::new());
        assert_eq!(judge("gateway/tests/a.rs", spawn), Vec::<String>::new());
        let unit = format!("\n#[cfg(test)]\n#[allow(x)]\nmod tests {{\n{spawn}}}\n");
        assert_eq!(judge("gateway/src/a.rs", &unit), Vec::<String>::new());
        let declared = format!("\n#[cfg(test)]\nmod a_tests;\n{spawn}");
        assert_eq!(judge("gateway/src/a.rs", &declared).len(), 1);
    }
}
