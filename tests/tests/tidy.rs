//! The house rules, applied to every source file of the repository, and the list of promises, held against the tests.

use std::path::Path;

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
