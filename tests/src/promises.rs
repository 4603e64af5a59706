//! Compares the list of promises with the tests that keep them.

use std::collections::{BTreeMap, BTreeSet};

use crate::tidy::{Source, function_name};

/// Path of the list from the root of the repository.
pub const LIST: &str = "tests/PROMISES.md";

/// The tests that the list must name.
const TESTS: &str = "tests/tests/";

/// Sections whose points name no test.
const WITHOUT_TESTS: [&str; 2] = ["What users of other gateways complain of", "Not tested"];

/// A test, or all tests of a file, as the list names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Mention<'a> {
    /// Path of the file from the root of the repository.
    path: String,
    /// Name of the test; `*` for every test of the file.
    test: &'a str,
}

impl<'a> Mention<'a> {
    /// Reads `file::test`, or the path of a file and a test.
    fn read(code: &'a str) -> Option<Self> {
        let (file, test) = code.split_once("::")?;
        let path = if file.contains('/') {
            file.to_owned()
        } else {
            format!("{TESTS}{file}.rs")
        };
        Some(Self { path, test })
    }
}

/// The differences between the list and the tests in `sources`, one sentence each.
pub fn complaints(list: &str, sources: &[Source]) -> Vec<String> {
    let tests: BTreeMap<&str, BTreeSet<&str>> = sources
        .iter()
        .map(|source| (source.path.as_str(), tests(&source.text)))
        .collect();
    let (mentions, mut all) = promises(list);
    all.extend(mentions.iter().filter_map(|mention| missing(mention, &tests)));
    for (path, names) in &tests {
        let named = |test| {
            let path = (*path).to_owned();
            mentions.contains(&Mention { path, test })
        };
        for name in names {
            if path.starts_with(TESTS) && !named("*") && !named(*name) {
                all.push(format!("{path}: `{name}` is not in {LIST}: what does it promise?"));
            }
            if name.starts_with("row_") {
                all.push(format!("{path}: `{name}` is named for a row and not for a promise"));
            }
        }
    }
    all
}

/// The tests that the list names, and its promises that name none.
fn promises(list: &str) -> (BTreeSet<Mention<'_>>, Vec<String>) {
    let mut mentions = BTreeSet::new();
    let mut bare = Vec::new();
    let mut section = "";
    for (at, line) in list.lines().enumerate() {
        if let Some(title) = line.strip_prefix("## ") {
            section = title.trim();
        }
        let Some(promise) = line.strip_prefix("- ") else {
            continue;
        };
        let kept_by: Vec<Mention<'_>> = code(promise).filter_map(Mention::read).collect();
        if kept_by.is_empty() && !WITHOUT_TESTS.contains(&section) {
            bare.push(format!("{LIST}:{}: no test keeps this promise: {promise}", at + 1));
        }
        mentions.extend(kept_by);
    }
    (mentions, bare)
}

/// The texts between backticks in `line`.
fn code(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

fn missing(mention: &Mention<'_>, tests: &BTreeMap<&str, BTreeSet<&str>>) -> Option<String> {
    let Mention { path, test } = mention;
    match tests.get(path.as_str()) {
        None => Some(format!("{LIST}: there is no file {path}")),
        Some(names) if *test == "*" && names.is_empty() => Some(format!("{LIST}: {path} has no tests")),
        Some(names) if *test != "*" && !names.contains(test) => {
            Some(format!("{LIST}: {path} has no test named `{test}`"))
        }
        Some(_) => None,
    }
}

/// The names of the test functions in a file's text.
fn tests(text: &str) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    let mut is_test = false;
    for line in text.lines() {
        let attribute = line.trim_start();
        if attribute == "#[test]" || attribute.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some(name) = function_name(line) {
            if is_test {
                found.insert(name);
            }
            is_test = false;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "#[tokio::test(flavor = \"multi_thread\")]\n#[expect(x)]\nasync fn streams_end() {\n}\n\nfn help() {\n}\n\n#[test]\nfn it_starts() {\n}\n";

    fn judge(list: &str, files: &[(&str, &str)]) -> Vec<String> {
        let sources: Vec<Source> = files
            .iter()
            .map(|(path, text)| Source {
                path: (*path).to_owned(),
                text: (*text).to_owned(),
            })
            .collect();
        complaints(list, &sources)
    }

    #[test]
    fn tests_are_told_from_other_functions() {
        assert_eq!(tests(FILE), BTreeSet::from(["it_starts", "streams_end"]));
    }

    #[test]
    fn a_list_that_names_every_test_passes() {
        let files = [("tests/tests/a.rs", FILE), ("worker/tests/b.rs", FILE)];
        for list in [
            "As `file::test`.\n## All\n- It ends. `a::streams_end`, `a::it_starts`\n",
            "## All\n- It ends. `a::*`\n- It starts. `worker/tests/b.rs::it_starts`\n",
            "## All\n- It ends. `a::*`\n## Not tested\n- Ten thousand `--streams`.\n",
        ] {
            assert_eq!(judge(list, &files), Vec::<String>::new(), "{list}");
        }
    }

    #[test]
    fn a_test_that_is_not_there_is_found() {
        let files = [("tests/tests/a.rs", FILE)];
        for wrong in ["a::streams", "a::help", "b::*", "worker/tests/b.rs::it_starts"] {
            let list = format!("## All\n- It ends. `a::*`, `{wrong}`\n");
            assert_eq!(judge(&list, &files).len(), 1, "{wrong}");
        }
    }

    #[test]
    fn a_test_that_is_not_listed_is_found() {
        let found = judge("## All\n- It ends. `a::streams_end`\n", &[("tests/tests/a.rs", FILE)]);
        assert!(found.len() == 1 && found[0].contains("`it_starts`"), "{found:?}");
    }

    #[test]
    fn a_promise_without_a_test_is_found() {
        let list = "## All\n- It ends. `a::*`\n- It never ends.\n";
        let found = judge(list, &[("tests/tests/a.rs", FILE)]);
        assert!(found.len() == 1 && found[0].contains(":3:"), "{found:?}");
    }

    #[test]
    fn a_test_that_is_named_for_a_row_is_found() {
        let text = "#[test]\nfn row_01_it_starts() {\n}\n";
        assert_eq!(judge("", &[("worker/src/a.rs", text)]).len(), 1);
    }
}
