//! Reasoning that a client carries from one request to the next, in `encrypted_content`.
//!
//! Clients hand this member back as they got it, where they do not hand back the reasoning itself. It holds the text,
//! in a form that any gateway reads at any time. It is no secret: the client has the text already.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// What the content begins with: others' contents do not.
const MARK: &str = "tb1.";

/// The content that holds `reasoning`.
pub(super) fn pack(reasoning: &str) -> String {
    let mut content = MARK.to_owned();
    URL_SAFE_NO_PAD.encode_string(reasoning, &mut content);
    content
}

/// The reasoning in `content`; `None` if another made it.
pub(super) fn unpack(content: &str) -> Option<String> {
    let text = URL_SAFE_NO_PAD.decode(content.strip_prefix(MARK)?).ok()?;
    String::from_utf8(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_packed_comes_back_and_others_contents_are_nothing() {
        for text in ["", "a", "Zürich 😀\n"] {
            assert_eq!(unpack(&pack(text)).as_deref(), Some(text));
        }
        for other in ["", "gAAAAABo", "tb1.*", "tb1.gIA"] {
            assert_eq!(unpack(other), None, "{other}");
        }
    }
}
