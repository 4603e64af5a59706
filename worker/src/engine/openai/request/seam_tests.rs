//! Seams in every position: a stop string across them, and answers that are generated again.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use tokenbus_protocol::DeltaExtra;

use super::*;

fn text(text: &str) -> Delta<'static> {
    Delta {
        text: Cow::Owned(text.to_owned()),
        tokens: 1,
        ..Delta::default()
    }
}

fn finish(reason: &str) -> Delta<'static> {
    Delta {
        finish_reason: Some(reason.to_owned()),
        ..Delta::default()
    }
}

fn reasoning(piece: &str) -> Delta<'static> {
    let members = serde_json::json!({ "reasoning_content": piece, "refusal": null });
    Delta {
        tokens: 1,
        extra: Some(Box::new(DeltaExtra {
            delta: Some(RawJson::new(members.to_string()).unwrap()),
            ..DeltaExtra::default()
        })),
        ..Delta::default()
    }
}

/// What comes out of `seam` for `deltas`, and what it is then.
fn passed(mut seam: Seam, deltas: Vec<Delta<'static>>) -> (Vec<Delta<'static>>, Seam) {
    let mut out = Vec::new();
    for delta in deltas {
        let mut emit = |delta: Delta<'_>| {
            out.push(delta.into_owned());
            Ok(())
        };
        seam.pass(delta, &mut emit).unwrap();
    }
    (out, seam)
}

fn joined(deltas: &[Delta<'_>]) -> String {
    deltas.iter().map(|delta| delta.text.as_ref()).collect()
}

fn stops(had: &str, stops: &[&str]) -> Seam {
    Seam::stops(had, stops.iter().map(|stop| (*stop).to_owned()).collect(), false)
}

fn had(reasoning: &str, text: &str, tokens: u64) -> Seam {
    let choice = ResumeChoice {
        reasoning: reasoning.to_owned(),
        text: text.to_owned(),
        tokens,
        ..ResumeChoice::default()
    };
    Seam::skip(&choice, true)
}

#[test]
fn a_text_that_begins_no_stop_string_has_no_seam() {
    for (text, stop) in [("abc", "x"), ("", "x"), ("abc", ""), ("x", "x"), ("xx", "x")] {
        assert_eq!(stops(text, &[stop]), Seam::Open, "{text:?} {stop:?}");
    }
}

/// The whole answer cut at every place: the client gets what an engine would have sent that had
/// seen all of it, but for what of the stop string it has already.
#[test]
fn a_stop_string_across_the_seam_stops_wherever_the_seam_is() {
    for (whole, stop) in [
        ("one END two", "END"),
        ("a\n\nb", "\n\n"),
        ("xééy", "éé"),
        ("aabaac!", "aac"),
    ] {
        let at = whole.find(stop).unwrap();
        for cut in (at + 1..at + stop.len()).filter(|cut| whole.is_char_boundary(*cut)) {
            let (old, new) = whole.split_at(cut);
            let pieces = new.chars().map(|piece| text(&piece.to_string())).collect();
            let (out, seam) = passed(stops(old, &["never", stop]), pieces);
            let missing = stop.len() - (cut - at);
            let tokens = new.get(..missing).unwrap().chars().count() as u64;
            assert_eq!(seam, Seam::Stopped(tokens), "{old:?} {new:?}");
            assert_eq!(joined(&out), "", "{old:?} {new:?}");
            assert_eq!(out.len(), 1);
            assert_eq!(out[0].finish_reason.as_deref(), Some("stop"));
            let (out, seam) = passed(stops(old, &[stop]), vec![text(new)]);
            assert_eq!((joined(&out).as_str(), seam), ("", Seam::Stopped(1)), "in one piece");
        }
    }
}

#[test]
fn what_only_looked_like_a_stop_string_passes_whole_and_in_order() {
    let (out, seam) = passed(
        stops("a EN", &["END"]),
        vec![text(""), text("T"), text("ER END"), finish("stop")],
    );
    assert_eq!(seam, Seam::Open, "from here on the engine sees all of it");
    assert_eq!(joined(&out), "TER END");
    assert_eq!(out.iter().map(|delta| delta.tokens).sum::<u32>(), 3);
    let (out, seam) = passed(stops("a E", &["END"]), vec![text("N"), finish("length")]);
    assert_eq!((joined(&out).as_str(), seam), ("N", Seam::Open));
    assert_eq!(out[1].finish_reason.as_deref(), Some("length"));
}

#[test]
fn a_stop_string_that_belongs_to_the_output_is_delivered() {
    let seam = Seam::stops("a E", vec!["END".to_owned()], true);
    let (out, seam) = passed(seam, vec![text("N"), text("D. More")]);
    assert_eq!((joined(&out).as_str(), seam), ("ND", Seam::Stopped(2)));
}

#[test]
fn deltas_without_text_are_not_held_for_ever() {
    let (out, seam) = passed(stops("E", &["END"]), vec![text(""); MAX_HELD_DELTAS]);
    assert_eq!((out.len(), seam), (MAX_HELD_DELTAS, Seam::Open));
}

#[test]
fn a_repeated_answer_goes_on_where_the_client_is_wherever_that_is() {
    let whole = "Grün is a color";
    for cut in (1..whole.len()).filter(|cut| whole.is_char_boundary(*cut)) {
        for size in 1..6 {
            let chars: Vec<char> = whole.chars().collect();
            let pieces = chars.chunks(size).map(|piece| text(&piece.iter().collect::<String>()));
            let deltas = pieces.chain([finish("stop")]).collect();
            let (out, seam) = passed(had("", &whole[..cut], 1), deltas);
            assert_eq!(seam, Seam::Open);
            assert_eq!(joined(&out), whole[cut..], "cut {cut}, pieces of {size}");
            assert_eq!(out.last().unwrap().finish_reason.as_deref(), Some("stop"));
        }
    }
}

#[test]
fn reasoning_is_compared_as_text_is() {
    let deltas = vec![
        reasoning("Hm, "),
        reasoning("so"),
        text("Be"),
        text("cause"),
        finish("stop"),
    ];
    let (out, seam) = passed(had("Hm", "", 1), deltas.clone());
    assert_eq!(seam, Seam::Open);
    let members = |delta: &Delta<'_>| delta.extra.as_ref().unwrap().delta.as_ref().unwrap().get().to_owned();
    assert_eq!(members(&out[0]), r#"{"reasoning_content":", "}"#, "the rest of a piece");
    assert!(members(&out[1]).contains(r#""so""#));
    assert_eq!(joined(&out), "Because");
    let (out, seam) = passed(had("Hm, so", "Beca", 4), deltas.clone());
    assert_eq!((joined(&out).as_str(), seam), ("use", Seam::Open));
    assert!(
        out.iter()
            .all(|delta| delta.extra.as_ref().is_none_or(|extra| extra.delta.is_none()))
    );
    for (reasoning, text) in [("Hm, so long", "Be"), ("Hm", "Be"), ("Hm. ", ""), ("", "Be")] {
        let (out, seam) = passed(had(reasoning, text, 1), deltas.clone());
        assert_eq!(seam, Seam::Differs { retryable: true }, "{reasoning:?} {text:?}");
        assert!(out.is_empty(), "{reasoning:?} {text:?}: {out:?}");
    }
}

#[test]
fn nothing_of_another_answer_passes() {
    let tool = Delta {
        extra: Some(Box::new(DeltaExtra {
            delta: Some(RawJson::new(r#"{"tool_calls":[{"index":0}]}"#).unwrap()),
            ..DeltaExtra::default()
        })),
        ..Delta::default()
    };
    for deltas in [
        vec![text("Bx"), text("cause")],
        vec![text("Becausx")],
        vec![text("Be"), finish("stop"), text("cause")],
        vec![tool, text("Because")],
    ] {
        let (out, seam) = passed(had("", "Because", 2), deltas.clone());
        assert_eq!(seam, Seam::Differs { retryable: true }, "{deltas:?}");
        assert!(out.is_empty(), "{deltas:?}: {out:?}");
    }
}

#[test]
fn logprobs_are_not_cut() {
    let with = |piece: &str| Delta {
        extra: Some(Box::new(DeltaExtra {
            logprobs: Some(RawJson::new(r#"{"content":[{}]}"#).unwrap()),
            ..DeltaExtra::default()
        })),
        ..text(piece)
    };
    let (out, seam) = passed(had("", "Be", 1), vec![with("Be"), with("cause")]);
    assert_eq!((joined(&out).as_str(), seam), ("cause", Seam::Open));
    assert!(out[0].extra.as_ref().unwrap().logprobs.is_some());
    let (out, seam) = passed(had("", "Be", 1), vec![with("Bec"), with("ause")]);
    assert_eq!((out.len(), seam), (0, Seam::Differs { retryable: true }));
}

#[test]
fn tokens_count_once() {
    let many = Delta {
        tokens: 5,
        ..text("Because")
    };
    let (out, _) = passed(had("", "Beca", 3), vec![many]);
    assert_eq!(out[0].tokens, 2);
}

fn behind(had: &str, blank: &str) -> Seam {
    stops(had, &["END"]).behind_blank(blank)
}

#[test]
fn white_space_that_comes_again_is_not_said_twice() {
    for (blank, pieces, left, repeated) in [
        (" ", vec![" brown"], "brown", 1),
        (" ", vec!["brown"], "brown", 0),
        (" ", vec!["", " ", "brown"], "brown", 1),
        ("\n", vec!["\nx = 1"], "x = 1", 1),
        ("\n", vec!["\n\n", "x"], "\nx", 1),
        ("\n    ", vec!["\n", "    ", "    return"], "    return", 2),
        ("\n    ", vec!["\n", "x", "    "], "x    ", 1),
        ("\u{2003}\n", vec!["\u{2003}", " a"], " a", 1),
    ] {
        let deltas = pieces.iter().map(|piece| text(piece)).chain([finish("stop")]).collect();
        let (out, seam) = passed(behind("a", blank), deltas);
        assert_eq!(joined(&out), left, "{blank:?} {pieces:?}");
        assert_eq!(seam.repeated(), repeated, "{blank:?} {pieces:?}");
        assert_eq!(out.last().unwrap().finish_reason.as_deref(), Some("stop"));
    }
}

#[test]
fn a_stop_string_begun_before_the_white_space_still_stops() {
    let (out, seam) = passed(behind("a E", "\n"), vec![text("N"), text("D. More")]);
    assert_eq!((joined(&out).as_str(), seam), ("", Seam::Stopped(2)));
    let (out, _) = passed(behind("a E", " "), vec![text(" x")]);
    assert_eq!(joined(&out), "x");
    assert_eq!(behind("a E", ""), stops("a E", &["END"]));
}
