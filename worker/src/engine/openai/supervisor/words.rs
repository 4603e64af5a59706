//! A command line as words, as a shell would split it, without a shell; and the places in it where
//! host and port go.

/// The command line cannot be split.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WordsError {
    /// There is no word in it.
    #[error("the engine's command is empty")]
    Empty,
    /// A quote is not closed.
    #[error("the engine's command has a {0} without its end")]
    Unclosed(char),
    /// It ends with a backslash.
    #[error("the engine's command ends with a backslash")]
    Dangling,
}

/// Splits `line` at blanks. `'…'` is taken as it stands; in `"…"` a backslash escapes `"`, `\`, `$`
/// and a backquote; elsewhere it escapes any character. Nothing is expanded.
pub fn split(line: &str) -> Result<Vec<String>, WordsError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\n' | '\r' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('\'') => break,
                        Some(c) => word.push(c),
                        None => return Err(WordsError::Unclosed('\'')),
                    }
                }
            }
            '"' => double_quoted(&mut chars, word.get_or_insert_default())?,
            '\\' => match chars.next() {
                Some('\n') => {}
                Some(c) => word.get_or_insert_default().push(c),
                None => return Err(WordsError::Dangling),
            },
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    if words.is_empty() {
        Err(WordsError::Empty)
    } else {
        Ok(words)
    }
}

fn double_quoted(chars: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), WordsError> {
    loop {
        match chars.next() {
            Some('"') => return Ok(()),
            Some('\\') => match chars.next() {
                Some(c @ ('"' | '\\' | '$' | '`')) => word.push(c),
                Some('\n') => {}
                Some(c) => {
                    word.push('\\');
                    word.push(c);
                }
                None => return Err(WordsError::Unclosed('"')),
            },
            Some(c) => word.push(c),
            None => return Err(WordsError::Unclosed('"')),
        }
    }
}

/// `word` with `{host}` and `{port}` filled in.
pub(super) fn fill(word: &str, host: &str, port: u16) -> String {
    word.replace("{host}", host).replace("{port}", &port.to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_a_shell_does() {
        let table: [(&str, &[&str]); 9] = [
            (
                "vllm serve m --port {port}",
                &["vllm", "serve", "m", "--port", "{port}"],
            ),
            ("  a\t b \n", &["a", "b"]),
            (r#"'a b' "c d" e\ f"#, &["a b", "c d", "e f"]),
            (r#"a'b'"c"d"#, &["abcd"]),
            (r#""a\"b\\c\$d\xe""#, &[r#"a"b\c$d\xe"#]),
            (r"'a\b'", &[r"a\b"]),
            (r#"a '' """#, &["a", "", ""]),
            ("$HOME *.gguf ~ `x` #y", &["$HOME", "*.gguf", "~", "`x`", "#y"]),
            ("a \\\nb", &["a", "b"]),
        ];
        for (line, expected) in table {
            assert_eq!(split(line).unwrap(), expected, "{line}");
        }
    }

    #[test]
    fn what_has_no_end_is_refused() {
        assert_eq!(split("a 'b"), Err(WordsError::Unclosed('\'')));
        assert_eq!(split("a \"b"), Err(WordsError::Unclosed('"')));
        assert_eq!(split("a \"b\\"), Err(WordsError::Unclosed('"')));
        assert_eq!(split("a \\"), Err(WordsError::Dangling));
        for empty in ["", "  ", "\n"] {
            assert_eq!(split(empty), Err(WordsError::Empty));
        }
    }

    #[test]
    fn places_are_filled() {
        assert_eq!(
            fill("http://{host}:{port}/{x}", "127.0.0.1", 80),
            "http://127.0.0.1:80/{x}"
        );
    }
}
