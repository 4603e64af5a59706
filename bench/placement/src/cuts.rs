//! The cuts of a simulated prompt, at the places where tokenbus cuts a real one of four bytes a token.

use tokenbus_placement::{Cut, MAX_CUTS, Prompt};

use crate::prompt::Segment;
use crate::random::mix;

/// Cuts kept from the beginning of a prompt with too many.
const FIRST: usize = 16;

/// Bytes of a token.
const BYTES: u32 = 4;

/// The first cut inside a message beyond this many tokens.
fn next_cut(tokens: u32) -> u32 {
    let first = [128, 256, 512].into_iter().find(|step| *step > tokens);
    first.unwrap_or((tokens / 1024 + 1) * 1024)
}

/// The cuts of a prompt.
pub fn of(prompt: &[Segment]) -> Prompt {
    let mut cuts = Vec::with_capacity(2 * MAX_CUTS);
    let mut before = 0;
    let mut message = 0;
    let mut push = |hash: u64, tokens: u32| {
        cuts.push(Cut {
            hash,
            bytes: tokens * BYTES,
            tokens,
        });
    };
    for (number, segment) in prompt.iter().enumerate() {
        if segment.opens_message {
            message = before;
        }
        let end = before + segment.tokens;
        let mut at = message + next_cut(before - message);
        while at < end {
            push(mix(segment.id ^ u64::from(at)), at);
            at = message + next_cut(at - message);
        }
        let last = prompt.get(number + 1).is_none_or(|next| next.opens_message);
        if last || at == end {
            push(segment.id, end);
        }
        before = end;
    }
    let too_many = cuts.len().saturating_sub(MAX_CUTS);
    if too_many > 0 {
        cuts.drain(FIRST..FIRST + too_many);
    }
    cuts.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use tokenbus_placement::Chain;

    use super::*;
    use crate::prompt::Path;

    #[test]
    fn cuts_are_where_those_of_a_text_are() {
        for pieces in [512, 100_000] {
            let mut path = Path::default();
            let mut chain = Chain::new("");
            for (text, tokens) in [(1, 6_000), (2, 90), (3, 1_500), (4, 2_048)] {
                path.message_in_pieces(text, tokens, pieces);
                chain.text(&vec![b'x'; (tokens * BYTES) as usize]);
                chain.end_message();
            }
            let simulated = of(&path.ask(0, 0, 0, 1).prompt);
            let real = chain.finish();
            let places = |prompt: &Prompt| {
                prompt
                    .cuts()
                    .iter()
                    .map(|cut| (cut.bytes, cut.tokens))
                    .collect::<Vec<_>>()
            };
            assert_eq!(places(&simulated), places(&real));
        }
    }
}
