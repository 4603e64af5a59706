//! Model names in which `*` stands for any characters.

use serde::{Deserialize, Serialize};

/// A pattern. `*` stands for any number of any characters, and every other character for itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Pattern(String);

impl Pattern {
    /// Makes a pattern of `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it matches `name`, in time linear in both lengths.
    pub fn matches(&self, name: &str) -> bool {
        let Some((first, rest)) = self.0.split_once('*') else {
            return self.0 == name;
        };
        let Some(mut name) = name.strip_prefix(first) else {
            return false;
        };
        let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
        // The first match is the best, because it leaves most of the name for the rest.
        for piece in middle.split('*') {
            match name.split_once(piece) {
                Some((_, behind)) => name = behind,
                None => return false,
            }
        }
        name.ends_with(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_number_of_any_characters() {
        for (pattern, name, fits) in [
            ("m", "m", true),
            ("m", "mm", false),
            ("*", "", true),
            ("*", "anything/at:all", true),
            ("gpt-*", "gpt-4o", true),
            ("gpt-*", "gpt-", true),
            ("gpt-*", "chatgpt-4", false),
            ("*-instruct", "llama-8b-instruct", true),
            ("*-instruct", "llama-instruct-8b", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("a*ab*b", "aab", false),
            ("a*ab*b", "aabb", true),
            ("**", "x", true),
            ("a**b", "ab", true),
            ("grüße-*", "grüße-模型", true),
            ("", "", true),
            ("", "m", false),
            ("M", "m", false),
        ] {
            assert_eq!(Pattern::new(pattern).matches(name), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn it_agrees_with_trying_everything() {
        fn tried(pattern: &[u8], name: &[u8]) -> bool {
            match pattern.split_first() {
                None => name.is_empty(),
                Some((b'*', rest)) => (0..=name.len()).any(|at| tried(rest, &name[at..])),
                Some((letter, rest)) => name.first() == Some(letter) && tried(rest, &name[1..]),
            }
        }
        let mut random = fastrand::Rng::with_seed(7);
        let mut draw = |letters: &str, length: usize| -> String {
            (0..random.usize(..=length))
                .map(|_| char::from(letters.as_bytes()[random.usize(..letters.len())]))
                .collect()
        };
        for _ in 0..20_000 {
            let (pattern, name) = (draw("ab*", 7), draw("ab", 8));
            let expected = tried(pattern.as_bytes(), name.as_bytes());
            assert_eq!(Pattern::new(&pattern).matches(&name), expected, "{pattern} {name}");
        }
    }
}
