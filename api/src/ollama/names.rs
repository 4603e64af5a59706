//! Names of models: Ollama's have a tag, and one without a tag means `latest`.

use std::borrow::Cow;

const LATEST: &str = ":latest";

/// The name by which Ollama's clients list a model: with a tag.
pub(super) fn tagged(name: &str) -> Cow<'_, str> {
    if has_tag(name) {
        Cow::Borrowed(name)
    } else {
        Cow::Owned(format!("{name}{LATEST}"))
    }
}

/// The other name of the same model, if there is one: `m` and `m:latest` mean the same.
pub fn other_name(name: &str) -> Option<Cow<'_, str>> {
    match name.strip_suffix(LATEST) {
        Some(short) if short.is_empty() || has_tag(short) => None,
        Some(short) => Some(Cow::Borrowed(short)),
        None if has_tag(name) => None,
        None => Some(Cow::Owned(format!("{name}{LATEST}"))),
    }
}

/// A colon before the last slash belongs to a host.
fn has_tag(name: &str) -> bool {
    name.rsplit('/').next().is_some_and(|last| last.contains(':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_a_tag_means_the_latest() {
        for (name, listed, other) in [
            ("m", "m:latest", Some("m:latest")),
            ("m:latest", "m:latest", Some("m")),
            ("m:7b", "m:7b", None),
            ("org/m", "org/m:latest", Some("org/m:latest")),
            ("host:1/m", "host:1/m:latest", Some("host:1/m:latest")),
            ("host:1/m:latest", "host:1/m:latest", Some("host:1/m")),
            ("m:7b:latest", "m:7b:latest", None),
            (":latest", ":latest", None),
        ] {
            assert_eq!(tagged(name), listed);
            assert_eq!(other_name(name).as_deref(), other, "{name}");
        }
    }
}
