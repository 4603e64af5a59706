//! Estimates how many tokens a prompt has, where nobody has counted them.

use memchr::memmem;

use crate::limits::{ASSUMED_ATTACHMENT, BYTES_PER_TOKEN};

/// The text before base64 data: in a data URL, or in an attachment's own member.
const ENCODED: [&[u8]; 2] = [b";base64,", b"\"data\":\""];

/// Tokens of the prompt in `body`, by its bytes. Encoded data (images, sounds) counts as an attachment, not by its
/// length.
pub fn estimated_tokens(body: &[u8]) -> u64 {
    let mut text = body.len() as u64;
    let mut attachments = 0;
    for mark in ENCODED {
        let mut rest = body;
        while let Some(at) = memmem::find(rest, mark) {
            let encoded = rest.get(at + mark.len()..).unwrap_or_default();
            let end = memchr::memchr(b'"', encoded).unwrap_or(encoded.len());
            // Short data counts as text.
            if end as u64 > ASSUMED_ATTACHMENT * BYTES_PER_TOKEN {
                text = text.saturating_sub(end as u64);
                attachments += 1;
            }
            rest = encoded.get(end..).unwrap_or_default();
        }
    }
    text / BYTES_PER_TOKEN + attachments * ASSUMED_ATTACHMENT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_counts_by_its_text_and_not_by_its_images() {
        assert_eq!(estimated_tokens(&[b'x'; 4000]), 1000);
        assert_eq!(estimated_tokens(b"{}"), 0);
        let image = format!(r#"{{"url":"data:image/png;base64,{}"}}"#, "A".repeat(1_000_000));
        let counted = estimated_tokens(format!("[{image},{image}]").as_bytes());
        assert!((2000..2030).contains(&counted), "{counted}");
        let sound = format!(r#"{{"input_audio":{{"data":"{}"}}}}"#, "A".repeat(1_000_000));
        assert!((1000..1020).contains(&estimated_tokens(sound.as_bytes())));
        assert_eq!(
            estimated_tokens(br#"the header says ;base64, and "data":"x" is short"#),
            12
        );
    }
}
