//! Tests of the HTTP that the load generator reads.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use proptest::prelude::*;

use super::*;

fn head(text: &str) -> Head {
    let (head, length) = Head::parse(text.as_bytes()).unwrap().unwrap();
    assert_eq!(length, text.len());
    head
}

#[test]
fn reads_heads_as_servers_write_them() {
    let all =
        head("HTTP/1.1 200 OK\r\nContent-Type: Text/Event-Stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(
        (all.status, all.content_type.as_str(), all.framing, all.keep_alive),
        (200, "text/event-stream", Framing::Chunked, true)
    );
    let sized = head("HTTP/1.1 429 Too Many\r\ncontent-length: 12\r\nconnection: keep-alive, Close\r\n\r\n");
    assert_eq!((sized.framing, sized.keep_alive), (Framing::Length(12), false));
    let old = head("HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\n");
    assert!(!old.keep_alive);
    let bare = head("HTTP/1.1 200 OK\r\n\r\n");
    assert_eq!((bare.framing, bare.keep_alive), (Framing::Close, false));
    assert_eq!(head("HTTP/1.1 204 No Content\r\n\r\n").framing, Framing::Length(0));
    let both = head("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n");
    assert_eq!(both.framing, Framing::Chunked);
}

#[test]
fn waits_for_the_whole_head_and_refuses_what_is_none() {
    let text = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    for end in 0..text.len() {
        assert_eq!(Head::parse(&text.as_bytes()[..end]), Ok(None), "{end}");
    }
    for wrong in [
        "<html>",
        "HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
    ] {
        assert!(Head::parse(wrong.as_bytes()).is_err(), "{wrong:?}");
    }
    let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(MAX_HEAD_BYTES));
    assert!(Head::parse(endless.as_bytes()).is_err());
}

/// The body in `parts`, what followed it in the last one, and whether it has ended.
fn decode(framing: Framing, parts: &[&[u8]]) -> Result<(Vec<u8>, Vec<u8>, bool), HttpError> {
    let mut decoder = Decoder::new(framing);
    let (mut body, mut left) = (Vec::new(), Vec::new());
    for part in parts {
        let mut input = *part;
        loop {
            let (data, rest) = decoder.next(input)?;
            body.extend_from_slice(data);
            input = rest;
            if data.is_empty() {
                break;
            }
        }
        left = input.to_vec();
    }
    Ok((body, left, decoder.is_done()))
}

#[test]
fn chunks_are_joined_and_the_next_answer_is_left() {
    let text = b"4\r\nWiki\r\n6;ext=1\r\npedia \r\n0A\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\nHTTP/1.1";
    let (body, left, done) = decode(Framing::Chunked, &[text]).unwrap();
    assert_eq!(
        (body.as_slice(), left.as_slice(), done),
        (&b"Wikipedia 0123456789"[..], &b"HTTP/1.1"[..], true)
    );
}

#[test]
fn lengths_are_kept_and_the_end_of_the_connection_is_one() {
    assert_eq!(
        decode(Framing::Length(3), &[b"ab", b"cd"]),
        Ok((b"abc".to_vec(), b"d".to_vec(), true))
    );
    assert_eq!(decode(Framing::Length(0), &[b""]), Ok((vec![], vec![], true)));
    assert_eq!(
        decode(Framing::Close, &[b"ab", b"c"]),
        Ok((b"abc".to_vec(), vec![], false))
    );
    assert!(Decoder::new(Framing::Close).ends_with_connection());
    assert!(!Decoder::new(Framing::Chunked).ends_with_connection());
}

#[test]
fn chunks_that_are_none_are_refused() {
    let long = "0;".to_owned() + &"x".repeat(16 << 10);
    let trailer = "0\r\n".to_owned() + &"a: b\r\n".repeat(4 << 10);
    for wrong in [
        "x\r\n",
        "\r\n",
        "-1\r\n",
        "4\r\nWikis\r\n",
        "4\r\nWiki\n",
        "fffffffffffffffff\r\n",
        &long,
        &trailer,
    ] {
        assert!(decode(Framing::Chunked, &[wrong.as_bytes()]).is_err(), "{wrong:?}");
    }
}

proptest! {
    #[test]
    fn boundaries_do_not_matter(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let mut text: Vec<u8> = Vec::new();
        for chunk in &chunks {
            text.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            text.extend_from_slice(chunk);
            text.extend_from_slice(b"\r\n");
        }
        text.extend_from_slice(b"0\r\n\r\n");
        let mut at: Vec<usize> = cuts.iter().map(|c| c.index(text.len() + 1)).collect();
        at.extend([0, text.len()]);
        at.sort_unstable();
        let parts: Vec<&[u8]> = at.windows(2).map(|w| &text[w[0]..w[1]]).collect();
        prop_assert_eq!(decode(Framing::Chunked, &parts), Ok((chunks.concat(), vec![], true)));
    }

    #[test]
    fn any_bytes_do_not_panic(input in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(Framing::Chunked, &[&input]);
        let _ = Head::parse(&input);
    }
}
