//! Tests of the chain: where the cuts are, and what two prompts share.

use proptest::prelude::*;

use super::*;

fn prompt(messages: &[&[u8]]) -> Prompt {
    let mut chain = Chain::new("");
    for message in messages {
        chain.text(message);
        chain.end_message();
    }
    chain.finish()
}

fn shared(one: &Prompt, other: &Prompt) -> u32 {
    let held: Vec<u64> = one.cuts().iter().map(|cut| cut.hash).collect();
    let deepest = other.cuts().iter().rev().find(|cut| held.contains(&cut.hash));
    deepest.map_or(0, |cut| cut.bytes)
}

#[test]
fn a_cut_ends_each_message_and_long_ones_have_more() {
    let places = |messages: &[&[u8]]| -> Vec<u32> { prompt(messages).cuts().iter().map(|cut| cut.bytes).collect() };
    assert_eq!(places(&[]), [0; 0]);
    assert_eq!(places(&[b"abc", b"", b"de"]), [3, 5]);
    assert_eq!(places(&[&[b'x'; 600], b"y"]), [512, 600, 601]);
    assert_eq!(places(&[&[b'x'; 9000]]), [512, 1024, 2048, 4096, 8192, 9000]);
    assert_eq!(places(&[&[b'x'; 512]]), [512]);
}

#[test]
fn tokens_are_bytes_by_four_over_all_messages() {
    assert_eq!(prompt(&[b"abc", b"defg", b"h"]).tokens(), 2);
    let mut chain = Chain::new("");
    chain.text(&[b'x'; 400]);
    chain.attachment(&[0; 100_000]);
    chain.end_message();
    let prompt = chain.finish();
    assert_eq!(
        (prompt.tokens(), prompt.cuts().len()),
        (1100, 1),
        "an image is one piece"
    );
}

#[test]
fn a_conversation_shares_all_of_its_last_turn() {
    let (first, second) = (
        prompt(&[b"system", b"question"]),
        prompt(&[b"system", b"question", b"answer", b"more"]),
    );
    assert_eq!(shared(&first, &second), 14);
    assert_eq!(shared(&first, &prompt(&[b"system", b"other"])), 6);
    assert_eq!(
        shared(&first, &prompt(&[b"systemq", b"uestion"])),
        0,
        "where a message ends is part of it"
    );
}

#[test]
fn a_long_conversation_keeps_its_beginning_and_its_end() {
    let texts: Vec<String> = (0..300).map(|n| format!("message {n}")).collect();
    let messages: Vec<&[u8]> = texts.iter().map(|text| text.as_bytes()).collect();
    let (long, longer) = (prompt(&messages[..298]), prompt(&messages));
    assert_eq!(long.cuts().len(), MAX_CUTS);
    assert_eq!(shared(&long, &longer), long.cuts().last().unwrap().bytes);
    assert!(shared(&prompt(&messages[..5]), &long) > 0);
}

#[test]
fn models_and_salts_share_nothing() {
    let mut one = prompt(&[b"system"]);
    let mut other = one.clone();
    one.set_model("a");
    other.set_model("b");
    assert_ne!(one.cuts(), other.cuts());
    other.set_model("a");
    assert_eq!(one.cuts(), other.cuts());
    let salted = |salt| {
        let mut chain = Chain::new(salt);
        chain.text(b"system");
        chain.finish()
    };
    assert_eq!(shared(&salted("x"), &salted("y")), 0);
    assert_eq!(salted("x"), salted("x"));
}

#[test]
fn the_hashes_are_the_same_in_every_version() {
    let mut known = prompt(&[b"You are a helpful assistant."]);
    known.set_model("m");
    assert_eq!(
        known.cuts()[0].hash,
        1_682_942_039_097_720_072,
        "a change parts gateways and workers of two versions"
    );
}

proptest! {
    #[test]
    fn cuts_travel_unchanged(cuts in proptest::collection::vec((any::<u64>(), 0..9_u32, 0..9_u32), 0..64)) {
        let (mut bytes, mut tokens) = (0, 0);
        let cuts = cuts.into_iter().map(|(hash, more, grown)| {
            (bytes, tokens) = (bytes + more, tokens + grown);
            Cut { hash, bytes, tokens }
        });
        let prompt: Prompt = cuts.collect();
        prop_assert_eq!(Prompt::from_bytes(&prompt.to_bytes()), prompt);
    }

    #[test]
    fn any_bytes_are_some_cuts(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
        let prompt = Prompt::from_bytes(&bytes);
        prop_assert!(prompt.cuts().len() <= MAX_CUTS);
        prop_assert!(prompt.cuts().is_sorted_by_key(|cut| cut.tokens));
    }

    #[test]
    fn two_texts_share_their_common_beginning(same in 0..20_000_usize, one in 0..9000_usize, other in 0..9000_usize) {
        let text = |end: &[u8], more: usize| [&vec![b's'; same], &end.repeat(more)[..]].concat();
        let (a, b) = (prompt(&[&text(b"a", one + 1)]), prompt(&[&text(b"b", other + 1)]));
        let shared = shared(&a, &b) as usize;
        prop_assert!(shared <= same);
        prop_assert!(same < 512 || shared * 2 > same, "{} of {}", shared, same);
    }
}
