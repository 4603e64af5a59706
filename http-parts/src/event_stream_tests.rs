//! Tests of the parser of server-sent events.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use proptest::prelude::*;

use super::*;

const MOST: usize = 4 << 20;

type Seen = Vec<(Vec<u8>, Vec<u8>)>;

fn parse(parts: &[&[u8]]) -> (Seen, bool) {
    let mut parser = EventParser::new(MOST);
    let mut seen = Vec::new();
    for part in parts {
        parser
            .push(part, |e| seen.push((e.name.to_vec(), e.data.to_vec())))
            .unwrap();
    }
    (seen, parser.is_inside_event())
}

fn data(text: &str) -> Vec<Vec<u8>> {
    parse(&[text.as_bytes()]).0.into_iter().map(|(_, d)| d).collect()
}

fn event(name: &str, data: &str) -> (Vec<u8>, Vec<u8>) {
    (name.as_bytes().to_vec(), data.as_bytes().to_vec())
}

#[test]
fn reads_events_of_every_line_ending() {
    for text in [
        "data: a\n\ndata: b\n\n",
        "data: a\r\n\r\ndata: b\r\n\r\n",
        "data: a\r\rdata: b\r\r",
    ] {
        assert_eq!(data(text), [b"a", b"b"], "{text:?}");
    }
    assert_eq!(
        data("data: a\n\ndata: b\n\ndata: [DONE]\n\n"),
        [b"a".as_slice(), b"b", b"[DONE]"]
    );
}

#[test]
fn follows_the_standard_in_the_details() {
    assert_eq!(data("data:a\n\n"), [b"a"]);
    assert_eq!(data("data:  a\n\n"), [b" a"]);
    assert_eq!(data("data: a\ndata\ndata: b\n\n"), [b"a\n\nb"]);
    assert_eq!(data("data\n\n"), [b""]);
    assert_eq!(
        data(": comment\n\nid: 7\nretry: 3\nother: x\n\n\n\nevent: ping\n\n"),
        Vec::<Vec<u8>>::new()
    );
    assert_eq!(data("\u{feff}data: a\n\n"), [b"a"]);
    assert_eq!(data("data: a\n\n\u{feff}data: b\n\n"), [b"a"]);
    assert_eq!(data("event: x\n\ndata: a\n\n"), [b"a"]);
    let (seen, _) = parse(&[b"event: error\ndata: {}\n\ndata: a\n\n"]);
    assert_eq!(seen, [event("error", "{}"), event("", "a")]);
}

#[test]
fn an_old_llama_servers_error_field_is_an_error() {
    let mut parser = EventParser::new(MOST);
    let mut input = b"error: {\"code\":500}\n\ndata: a\n\n".as_slice();
    let error = parser.next(&mut input).unwrap().unwrap();
    assert_eq!((error.is_error(), error.data), (true, b"{\"code\":500}".as_slice()));
    assert!(!parser.next(&mut input).unwrap().unwrap().is_error());
    assert_eq!(parser.next(&mut input), Ok(None));
}

#[test]
fn every_cut_gives_the_same_events() {
    let stream: &[u8] =
        b"\xEF\xBB\xBFdata: one\r\n\r\n: comment\r\n\r\ndata:two\ndata: three\n\nid: 7\revent: error\rdata: x\r\rdata\n\n";
    let all = parse(&[stream]);
    let wanted = [
        event("", "one"),
        event("", "two\nthree"),
        event("error", "x"),
        event("", ""),
    ];
    assert_eq!(all, (wanted.to_vec(), false));
    for first in 0..=stream.len() {
        for second in first..=stream.len() {
            let parts = [&stream[..first], &stream[first..second], &stream[second..]];
            assert_eq!(parse(&parts), all, "cut at {first} and {second}");
        }
    }
    let single: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(parse(&single), all);
}

#[test]
fn tells_whether_an_event_is_unfinished() {
    assert!(!parse(&[b"data: a\n\n"]).1);
    assert!(!parse(&[b"data:a\n\n"]).1);
    assert!(!parse(&[b": comment\n"]).1);
    for cut in ["d", "data: a", "data: a\n", "event: x\n"] {
        assert!(parse(&[cut.as_bytes()]).1, "{cut:?}");
        let after_another = format!("data:b\n\n{cut}");
        assert_eq!(parse(&[after_another.as_bytes()]), (vec![event("", "b")], true));
    }
}

#[test]
fn refuses_an_endless_event() {
    let too_long = Err(EventTooLong { most: MOST });
    let mut parser = EventParser::new(MOST);
    let part = vec![b'x'; MOST / 2];
    assert!(parser.push(&part, |_| ()).is_ok());
    assert!(parser.push(&part, |_| ()).is_ok());
    assert_eq!(parser.push(&part, |_| ()), too_long);
    parser.reset();
    let line = [b"data: ".as_slice(), &part, b"\n"].concat();
    assert!(parser.push(&line, |_| ()).is_ok());
    assert_eq!(parser.push(&line, |_| ()), too_long);

    let mut parser = EventParser::new(100);
    assert_eq!(parser.push(b"data: ", |_| ()), Ok(()));
    assert!(parser.push(&[b'x'; 95], |_| ()).is_err());
    let mut parser = EventParser::new(100);
    assert!((0..20).any(|_| parser.push(b"data: 012345678\n", |_| ()).is_err()));
    assert!(parser.data.len() <= 100);
}

#[test]
fn memory_does_not_grow_with_the_stream() {
    let mut parser = EventParser::new(MOST);
    for _ in 0..10_000 {
        for part in [b"data: 0123456789\n\nda".as_slice(), b"ta: 012345678", b"9\n\n"] {
            parser.push(part, |_| ()).unwrap();
        }
    }
    assert!(parser.line.capacity() + parser.data.capacity() < 1024);
}

fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => Just("data: {\"a\":\"t1 \"}\n\n".to_owned()),
        1 => Just("data: x\r\n\r\n".to_owned()),
        1 => Just("event: error\ndata: e\n\n".to_owned()),
        1 => "[dataevn: \u{feff}\r\n\\[\\]]{0,12}",
    ]
}

proptest! {
    #[test]
    fn cuts_do_not_matter(
        pieces in prop::collection::vec(piece(), 0..12),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let text = pieces.concat().into_bytes();
        let mut at: Vec<usize> = cuts.iter().map(|c| c.index(text.len() + 1)).collect();
        at.extend([0, text.len()]);
        at.sort_unstable();
        let parts: Vec<&[u8]> = at.windows(2).map(|w| &text[w[0]..w[1]]).collect();
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        let all = parse(&[&text]);
        prop_assert_eq!(&parse(&parts), &all);
        prop_assert_eq!(&parse(&bytes), &all);
    }

    #[test]
    fn any_bytes_do_not_panic(input in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse(&[&input]);
    }
}
