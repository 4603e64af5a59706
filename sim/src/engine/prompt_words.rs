//! Quoted texts and whole numbers of the user's prompt. The simulated engine fills documents with them, each used
//! once, in their order. Pure.
//!
//! So a client can say what it wants to get back: "magic_function(3)" is a call with 3, "named 'Ann'" one with Ann.

use std::collections::VecDeque;

/// Texts and numbers of a prompt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PromptWords {
    texts: VecDeque<String>,
    numbers: VecDeque<i64>,
}

impl PromptWords {
    /// Finds those of `prompt`.
    pub(super) fn read(prompt: &str) -> Self {
        Self {
            texts: quoted(prompt),
            numbers: numbers(prompt),
        }
    }

    /// Takes the next quoted text.
    pub(super) fn text(&mut self) -> Option<String> {
        self.texts.pop_front()
    }

    /// Takes the next number if it is allowed.
    pub(super) fn number(&mut self, allowed: impl Fn(i64) -> bool) -> Option<i64> {
        let next = *self.numbers.front()?;
        if allowed(next) { self.numbers.pop_front() } else { None }
    }

    /// All quoted texts.
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        self.texts.iter().map(String::as_str)
    }
}

/// Texts between two quotation marks of one kind. A mark within a word is an apostrophe.
fn quoted(prompt: &str) -> VecDeque<String> {
    let mut texts = VecDeque::new();
    let mut open: Option<(char, usize)> = None;
    let mut before: Option<char> = None;
    let mut rest = prompt.char_indices().peekable();
    while let Some((at, mark)) = rest.next() {
        let in_word = |side: Option<char>| side.is_some_and(char::is_alphanumeric);
        let after = rest.peek().map(|(_, next)| *next);
        match open {
            None if matches!(mark, '\'' | '"' | '`') && !in_word(before) => open = Some((mark, at + 1)),
            Some((opened, from)) if opened == mark && !in_word(after) => {
                texts.extend(prompt.get(from..at).filter(|text| !text.is_empty()).map(str::to_owned));
                open = None;
            }
            _ => {}
        }
        before = Some(mark);
    }
    texts
}

/// Numbers that are not part of a word.
fn numbers(prompt: &str) -> VecDeque<i64> {
    let words = prompt.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '-'));
    words.filter_map(|word| word.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_texts_are_found_and_apostrophes_are_none() {
        let texts = |prompt: &str| quoted(prompt).into_iter().collect::<Vec<_>>();
        assert_eq!(
            texts("named '你好' and \"B's\", not `c`d, with `e`"),
            ["你好", "B's", "c`d, with `e"]
        );
        assert_eq!(texts("What's the user's name? It isn't 'it"), [""; 0]);
        assert_eq!(texts("'' 'a'"), ["a"]);
    }

    #[test]
    fn numbers_stand_alone() {
        let all = |prompt: &str| numbers(prompt).into_iter().collect::<Vec<_>>();
        assert_eq!(all("magic_function(3), x2 and -7: 99999999999999999999"), [3, -7]);
    }

    #[test]
    fn each_is_given_once_and_only_where_it_fits() {
        let mut prompted = PromptWords::read("'a' 5 'b'");
        assert_eq!(prompted.number(|number| number > 5), None);
        assert_eq!(prompted.number(|number| number == 5), Some(5));
        assert_eq!(prompted.number(|_| true), None);
        assert_eq!(prompted.texts().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(
            (prompted.text().as_deref(), prompted.text().as_deref()),
            (Some("a"), Some("b"))
        );
        assert_eq!(prompted.text(), None);
    }
}
