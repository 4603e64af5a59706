//! The house rules, applied to every source file of the repository.

use std::path::Path;

use tokenbus_tests::tidy;

#[test]
fn every_source_file_keeps_the_rules_of_the_house() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ lies in the repository");
    let sources = tidy::sources(root);
    for room in [
        "protocol",
        "bus",
        "api",
        "gateway",
        "worker",
        "coordinator",
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
