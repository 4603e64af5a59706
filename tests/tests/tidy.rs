//! The house rules, applied to every source file of the repository, the list of promises, held against the tests, and the
//! links of the pages.

#![allow(clippy::expect_used)]

use std::path::{Path, PathBuf};

use tokenbus_tests::{promises, tidy};

#[test]
fn every_source_file_keeps_the_rules_of_the_house() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ lies in the repository");
    let sources = tidy::sources(root);
    for room in [
        "protocol",
        "http-parts",
        "placement",
        "bus",
        "engine",
        "api",
        "gateway",
        "worker",
        "coordinator",
        "sim",
        "loadgen",
        "cli",
        "tests",
    ] {
        assert!(
            sources.iter().any(|source| source.path.starts_with(room)),
            "no source of {room} was looked at"
        );
    }
    let complaints: Vec<String> = sources.iter().flat_map(tidy::complaints).collect();
    assert!(
        complaints.is_empty(),
        "{} complaints:\n{}",
        complaints.len(),
        complaints.join("\n")
    );
}

#[test]
fn every_promise_has_its_tests_and_every_test_its_promise() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ lies in the repository");
    let list = std::fs::read_to_string(root.join(promises::LIST)).expect("the list of promises can be read");
    let complaints = promises::complaints(&list, &tidy::sources(root));
    assert!(
        complaints.is_empty(),
        "{} complaints:\n{}",
        complaints.len(),
        complaints.join("\n")
    );
}

/// The anchor that a heading has.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    let kept = kept
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// The targets of the links of a page that lead to files.
fn links(page: &str) -> Vec<&str> {
    let mut fenced = false;
    let text = page.lines().filter(|line| {
        fenced ^= line.trim_start().starts_with("```");
        !fenced
    });
    let targets = text.flat_map(|line| line.split("](").skip(1).filter_map(|rest| rest.split(')').next()));
    targets
        .filter(|target| !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:"))
        .collect()
}

fn lost(root: &Path, page: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(page).expect("a page can be read");
    let folder = page.parent().expect("a page lies in a folder");
    let broken = |target: &&str| {
        let (file, to) = target.split_once('#').unwrap_or((target, ""));
        let file = if file.is_empty() {
            page.to_owned()
        } else {
            folder.join(file)
        };
        let known = |heading: &str| {
            heading
                .strip_prefix('#')
                .is_some_and(|rest| anchor(rest.trim_start_matches('#')) == to)
        };
        match std::fs::read_to_string(&file) {
            Ok(there) => !to.is_empty() && !there.lines().any(known),
            Err(_) => !file.exists(),
        }
    };
    let name = page.strip_prefix(root).unwrap_or(page).display().to_string();
    links(&text)
        .iter()
        .filter(|target| broken(target))
        .map(|target| format!("{name}: {target}"))
        .collect()
}

#[test]
fn every_page_is_in_the_book_and_every_link_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ lies in the repository");
    let of = |folder: &str| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(root.join(folder)).expect("the folder is there");
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        paths
            .filter(|path| path.extension().is_some_and(|ext| ext == "md"))
            .collect()
    };
    let summary = std::fs::read_to_string(root.join("docs/SUMMARY.md")).expect("the book has a summary");
    let listed = links(&summary);
    let mut complaints = Vec::new();
    for page in of("docs") {
        let name = page.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name != "SUMMARY.md" && !listed.contains(&name) {
            complaints.push(format!("docs/SUMMARY.md does not list {name}"));
        }
    }
    for page in ["", "docs", "deploy", "tests", "bench", "examples"]
        .iter()
        .flat_map(|folder| of(folder))
    {
        complaints.extend(lost(root, &page));
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}
