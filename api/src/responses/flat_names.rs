//! Names of functions for tools that stand in a namespace.

/// The most characters that engines take in the name of a function.
const LONGEST: usize = 64;

/// The name for the tool `name` of `namespace`. It is the same in each request, so that a history names a tool as the
/// list of tools does. A name that has to be changed for engines ends in a mark of what it was.
pub(super) fn flat(namespace: &str, name: &str) -> String {
    let namespace = namespace.trim_end_matches('_');
    let joined = format!("{namespace}__{name}");
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if joined.len() <= LONGEST && joined.chars().all(plain) {
        return joined;
    }
    let mark = format!("_{:08x}", digest(&joined));
    let clean: String = joined.chars().map(|c| if plain(c) { c } else { '_' }).collect();
    // All of it is ASCII.
    let kept = clean.get(..LONGEST - mark.len()).unwrap_or(&clean);
    format!("{kept}{mark}")
}

/// The name `flat` with a number, for the case that another tool has it.
pub(super) fn numbered(flat: &str, n: usize) -> String {
    let number = format!("_{n}");
    let kept = flat.get(..LONGEST.saturating_sub(number.len())).unwrap_or(flat);
    format!("{kept}{number}")
}

/// FNV-1a: the same in every version and on every machine.
fn digest(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_such_as_engines_take_and_differ() {
        assert_eq!(flat("mcp__x", "f"), "mcp__x__f");
        assert_eq!(flat("mcp__x__", "f"), "mcp__x__f");
        let long = [
            flat(&"n".repeat(80), "f"),
            flat(&"n".repeat(80), "g"),
            flat("a.b", "ü"),
            flat("a/b", "ü"),
        ];
        for (n, name) in long.iter().enumerate() {
            assert!(name.len() <= LONGEST, "{name}");
            assert!(
                name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b)),
                "{name}"
            );
            assert!(!long[..n].contains(name), "{name}");
        }
        assert_eq!(numbered(&"x".repeat(64), 2).len(), LONGEST);
    }
}
