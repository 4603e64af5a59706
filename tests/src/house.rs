//! The plan of the house: which file of a crate imports which, read from the text of the sources.
//!
//! It finds circles (files that import each other, directly or through others) and imports from a lower floor to a
//! higher one. Test code may import anything.

use std::collections::{BTreeMap, BTreeSet};

use crate::tidy::{Source, production};

/// Most files of a circle: a module and its helper may import each other.
pub const CIRCLE_FILES: usize = 2;

/// A module within its crate, such as `core::claim`; empty for the root of the crate.
pub type Module = String;

/// The modules of one crate, each with its imports.
#[derive(Debug, Default, Clone)]
pub struct Imports(BTreeMap<Module, BTreeSet<Module>>);

/// The imports of every crate among `sources`, by the crate's folder.
pub fn crates(sources: &[Source]) -> BTreeMap<String, Imports> {
    let mut files: BTreeMap<String, Vec<(Module, String)>> = BTreeMap::new();
    for source in sources.iter().filter(|source| !is_test(&source.path)) {
        let Some((folder, path)) = source.path.split_once("/src/") else {
            continue;
        };
        let text = without_comments(production(&source.text));
        files.entry(folder.to_owned()).or_default().push((module(path), text));
    }
    files
        .into_iter()
        .map(|(folder, files)| (folder, Imports::of(files)))
        .collect()
}

/// Whether the file at `path` is test code. The harness itself is not.
fn is_test(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    path.contains("/tests/") || name == "tests.rs" || name.ends_with("_tests.rs")
}

impl Imports {
    /// Reads the imports from the text of each module.
    fn of(mut files: Vec<(Module, String)>) -> Self {
        let tests: Vec<Module> = files
            .iter()
            .flat_map(|(module, text)| test_modules(module, text))
            .collect();
        files.retain(|(module, _)| !tests.iter().any(|test| is_within(module, test)));
        let known: BTreeSet<Module> = files.iter().map(|(module, _)| module.clone()).collect();
        let mut imports = Self::default();
        for (module, text) in &files {
            let found = imports.0.entry(module.clone()).or_default();
            let paths = paths(text)
                .into_iter()
                .filter_map(|path| absolute(module, &path, &known));
            found.extend(paths.map(|path| nearest(&path, &known)).filter(|other| other != module));
        }
        imports
    }

    /// Circles of more than [`CIRCLE_FILES`] files, each sorted.
    pub fn circles(&self) -> Vec<Vec<Module>> {
        let reach: BTreeMap<&Module, BTreeSet<&Module>> = self.0.keys().map(|from| (from, self.reach(from))).collect();
        let mut circles: BTreeSet<Vec<Module>> = BTreeSet::new();
        for (from, reached) in &reach {
            let circle: Vec<Module> = reached
                .iter()
                .filter(|other| reach.get(**other).is_some_and(|back| back.contains(from)))
                .map(|other| (*other).clone())
                .collect();
            if circle.len() > CIRCLE_FILES {
                circles.insert(circle);
            }
        }
        circles.into_iter().collect()
    }

    /// All modules that `from` imports, directly or through others.
    fn reach<'i>(&'i self, from: &'i Module) -> BTreeSet<&'i Module> {
        let mut reached = BTreeSet::new();
        let mut left = vec![from];
        while let Some(module) = left.pop() {
            let new = self.0.get(module).into_iter().flatten();
            left.extend(new.filter(|other| reached.insert(*other)));
        }
        reached
    }

    /// Imports that do not run downwards, one sentence each. `floors` are the floors of a crate from the lowest up,
    /// each a list of rooms. A module is in the room with the longest matching name. The root of the crate is above
    /// all floors. Rooms on the same floor may not import each other.
    pub fn upward(&self, floors: &[&[&str]]) -> Vec<String> {
        let mut complaints = Vec::new();
        for (module, others) in &self.0 {
            if module.is_empty() {
                continue;
            }
            let Some((room, floor)) = place(module, floors) else {
                complaints.push(format!("`{module}` is in no room of any floor"));
                continue;
            };
            for other in others {
                let fine = match place(other, floors) {
                    Some((other_room, other_floor)) => other_room == room || other_floor < floor,
                    None => !other.is_empty(), // `other` has its own complaint
                };
                if !fine {
                    let name = if other.is_empty() { "the crate's root" } else { other };
                    complaints.push(format!("`{module}` imports `{name}`, which is not below it"));
                }
            }
        }
        complaints
    }
}

/// The room of `module`, and its floor.
fn place<'f>(module: &str, floors: &[&'f [&'f str]]) -> Option<(&'f str, usize)> {
    let rooms = floors
        .iter()
        .enumerate()
        .flat_map(|(floor, rooms)| rooms.iter().map(move |room| (*room, floor)));
    rooms
        .filter(|(room, _)| is_within(module, room))
        .max_by_key(|(room, _)| room.len())
}

/// Whether `module` is `folder` or lies in it. Everything lies in the root.
pub fn is_within(module: &str, folder: &str) -> bool {
    let rest = module.strip_prefix(folder);
    folder.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The module of the file at `path` under `src/`.
fn module(path: &str) -> Module {
    let path = path.trim_end_matches(".rs").replace('/', "::");
    match path.rsplit_once("::") {
        Some((folder, "mod")) => folder.to_owned(),
        None if path == "lib" || path == "main" => String::new(),
        _ => path,
    }
}

/// Modules that `text` declares for tests only.
fn test_modules(module: &str, text: &str) -> Vec<Module> {
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim() != "#[cfg(test)]" {
            continue;
        }
        let declared = lines.by_ref().find(|line| !line.trim_start().starts_with("#["));
        let name = declared.and_then(|line| line.split_once("mod ")?.1.strip_suffix(';'));
        found.extend(name.map(|name| joined(module, name)));
    }
    found
}

fn joined(folder: &str, name: &str) -> Module {
    if folder.is_empty() {
        name.to_owned()
    } else {
        format!("{folder}::{name}")
    }
}

fn without_comments(text: &str) -> String {
    let code = |line: &str| line.split("//").next().unwrap_or_default().to_owned() + "\n";
    text.lines().map(code).collect()
}

/// Every path of two names or more in `text`, and every imported one. `a::{b, c::d}` counts as two.
fn paths(text: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find(is_name) {
        let end = rest[start..].find(|c| !is_name(c)).map_or(rest.len(), |at| start + at);
        let imported = &rest[start..end] == "use";
        // A use tree begins behind `use`, any other path with its first name.
        let (tree, after) = tree(&rest[if imported { end } else { start }..]);
        found.extend(tree.into_iter().filter(|path| imported || path.len() > 1));
        rest = after;
    }
    found
}

/// The paths of the use tree at the start of `text`, and the rest of `text`.
fn tree(text: &str) -> (Vec<Vec<String>>, &str) {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        let mut all = Vec::new();
        loop {
            rest = rest.trim_start();
            if let Some(after) = rest.strip_prefix('}') {
                return (all, after);
            }
            let (branch, after) = tree(rest);
            if after.len() == rest.len() {
                return (all, after); // not a use tree
            }
            all.extend(branch);
            rest = after.trim_start();
            rest = rest
                .strip_prefix("as ")
                .map_or(rest, |renamed| renamed.trim_start_matches(is_name));
            rest = rest.trim_start().trim_start_matches(',');
        }
    }
    let end = text.find(|c| !is_name(c) && c != '*').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    if name.is_empty() {
        return (Vec::new(), text);
    }
    let (branches, after) = match rest.strip_prefix("::") {
        Some(rest) => tree(rest),
        None => (Vec::new(), rest),
    };
    if branches.is_empty() {
        return (vec![vec![name.to_owned()]], after);
    }
    let with_name = |branch: Vec<String>| [vec![name.to_owned()], branch].concat();
    (branches.into_iter().map(with_name).collect(), after)
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The path from the crate's root; `None` when it leads out of the crate or to something local.
fn absolute(module: &str, path: &[String], known: &BTreeSet<Module>) -> Option<Vec<String>> {
    let own = |module: &str| {
        module
            .split("::")
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let (first, rest) = path.split_first()?;
    match first.as_str() {
        "crate" => Some(rest.to_vec()),
        "self" => Some([own(module), rest.to_vec()].concat()),
        "super" => {
            let mut folder = own(module);
            let up = path.iter().take_while(|name| *name == "super").count();
            folder.truncate(folder.len().checked_sub(up)?);
            Some([&folder, &path[up..]].concat())
        }
        name if known.contains(&joined(module, name)) => Some([own(module), path.to_vec()].concat()),
        _ => None,
    }
}

/// The module of a path from the root: its longest prefix that is a module.
fn nearest(path: &[String], known: &BTreeSet<Module>) -> Module {
    let beginnings = (0..=path.len()).rev().map(|names| path[..names].join("::"));
    beginnings
        .into_iter()
        .find(|module| known.contains(module))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn imports(files: &[(&str, &str)]) -> Imports {
        let source = |(path, text): &(&str, &str)| Source {
            path: format!("worker/src/{path}"),
            text: (*text).to_owned(),
        };
        let sources: Vec<Source> = files.iter().map(source).collect();
        crates(&sources).remove("worker").expect("a crate")
    }

    fn of(imports: &Imports, module: &str) -> Vec<String> {
        imports.0[module].iter().cloned().collect()
    }

    #[test]
    fn imports_are_found_however_they_are_written() {
        let all = imports(&[
            ("lib.rs", "mod a;\npub use a::b::B;\n"),
            ("a/mod.rs", "pub(crate) mod b;\nmod c;\nfn f() { c::g(\"crate\") }\n"),
            ("a/b.rs", "use std::fmt;\nuse super::{c::{self, C as D}, A};\n"),
            (
                "a/c.rs",
                "//! Not crate::d::D.\nfn g() -> crate::e::E { super::super::d::D::<u8>::new() } // crate::a::b\n",
            ),
            (
                "d.rs",
                "pub use crate::{\n    a::{b, c::C},\n    e,\n};\nuse self::x;\n",
            ),
            ("e.rs", "use crate::F;\nuse super::*;\nuse tokio::a::b;\n"),
        ]);
        assert_eq!(of(&all, ""), ["a::b"]);
        assert_eq!(of(&all, "a"), ["a::c"]);
        assert_eq!(of(&all, "a::b"), ["a", "a::c"]);
        assert_eq!(of(&all, "a::c"), ["d", "e"]);
        assert_eq!(of(&all, "d"), ["a::b", "a::c", "e"]);
        assert_eq!(of(&all, "e"), [""]);
    }

    #[test]
    fn test_code_may_import_what_it_likes() {
        let all = imports(&[
            (
                "a.rs",
                "#[cfg(test)]\n#[path = \"a_tests.rs\"]\nmod a_tests;\n#[cfg(test)]\npub(crate) mod bench;\n",
            ),
            ("a_tests.rs", "use crate::b::B;\n"),
            ("a/bench.rs", "use crate::b::B;\n"),
            (
                "b.rs",
                "use crate::c::C;\n\n#[cfg(test)]\nmod tests {\n    use crate::a::A;\n}\n",
            ),
            ("c/tests.rs", "use crate::a::A;\n"),
            ("c.rs", ""),
        ]);
        assert_eq!(all.0.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!((of(&all, "a").len(), of(&all, "b")), (0, vec!["c".to_owned()]));
    }

    #[test]
    fn two_files_may_know_each_other_and_three_are_a_circle() {
        let a = ("a.rs", "use crate::b::B;\n");
        let two = imports(&[a, ("b.rs", "use crate::a::A;\n"), ("c.rs", "use crate::b::B;\n")]);
        assert_eq!(two.circles(), Vec::<Vec<String>>::new());
        let three = imports(&[a, ("b.rs", "use crate::c::C;\n"), ("c.rs", "use crate::a::A;\n")]);
        assert_eq!(three.circles(), [["a", "b", "c"]]);
    }

    #[test]
    fn imports_run_downwards_or_stay_in_their_room() {
        let floors: [&[&str]; 3] = [&["limits"], &["core", "report"], &["core::top"]];
        let fine = imports(&[
            ("lib.rs", "pub use core::top::Top;\n"),
            ("limits.rs", ""),
            ("core/mod.rs", "use crate::limits;\n"),
            ("core/a.rs", "use super::Core;\nuse crate::core::b::B;\n"),
            ("core/b.rs", "use crate::core::a::A;\n"),
            ("core/top.rs", "use crate::report;\nuse super::a;\n"),
            ("report.rs", "use crate::limits;\n"),
        ]);
        assert_eq!(fine.upward(&floors), Vec::<String>::new());
        let wrong = imports(&[
            ("lib.rs", ""),
            ("limits.rs", "use crate::core::Core;\n"),
            ("core/mod.rs", "use crate::report;\n"),
            ("core/a.rs", "use super::top::Top;\n"),
            ("core/top.rs", "use crate::Lib;\n"),
            ("report.rs", "use crate::attic;\n"),
            ("attic.rs", ""),
        ]);
        assert_eq!(wrong.upward(&floors).len(), 5, "{:?}", wrong.upward(&floors));
    }
}
