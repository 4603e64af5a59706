//! What engines send, and what is told of it.

use super::*;

/// The deltas' members as they are told; the last of them ends the choice.
fn told(deltas: &[&str]) -> Vec<String> {
    let mut tidy = Tidy::default();
    let mut told = Vec::new();
    for (n, delta) in deltas.iter().enumerate() {
        let members = RawJson::new(*delta).unwrap();
        let last = n + 1 == deltas.len();
        let tidied = tidy.delta(0, Some(&members), last);
        told.push(tidied.map_or(String::new(), |json| json.get().to_owned()));
    }
    told
}

fn call(index: &str, id: &str, rest: &str) -> String {
    let index = if index.is_empty() {
        String::new()
    } else {
        format!(r#""index":{index},"#)
    };
    let id = if id.is_empty() {
        String::new()
    } else {
        format!(r#""id":"{id}","#)
    };
    format!(r#"{{"tool_calls":[{{{index}{id}"type":"function","function":{{{rest}}}}}]}}"#)
}

/// Number, id and arguments of each piece.
fn pieces(deltas: &[String]) -> Vec<(u64, String, String)> {
    let deltas: Vec<&str> = deltas.iter().map(String::as_str).chain(["{}"]).collect();
    let mut pieces = Vec::new();
    for delta in told(&deltas) {
        let delta: serde_json::Value = serde_json::from_str(&delta).unwrap();
        for piece in delta["tool_calls"].as_array().into_iter().flatten() {
            let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
            pieces.push((
                piece["index"].as_u64().unwrap(),
                text(&piece["id"]),
                text(&piece["function"]["arguments"]),
            ));
        }
    }
    pieces
}

fn piece(index: u64, id: &str, arguments: &str) -> (u64, String, String) {
    (index, id.to_owned(), arguments.to_owned())
}

const READ_A: &str = r#""name":"read","arguments":"{\"p\":\"a\"}""#;
const READ_B: &str = r#""name":"read","arguments":"{\"p\":\"b\"}""#;

#[test]
fn calls_with_one_number_and_several_ids_are_several() {
    let two = [piece(0, "a", r#"{"p":"a"}"#), piece(1, "b", r#"{"p":"b"}"#)];
    for index in ["0", "", "null", "\"0\"", "7"] {
        assert_eq!(
            pieces(&[call(index, "a", READ_A), call(index, "b", READ_B)]),
            two,
            "index {index}"
        );
    }
    let list = format!(
        r#"{{"tool_calls":[{{"index":0,"id":"a","function":{{{READ_A}}}}},{{"index":0,"id":"b","function":{{{READ_B}}}}}]}}"#
    );
    assert_eq!(pieces(&[list]), two);
    // Pieces without an id go on with the newest of their number.
    let open = [
        call("0", "a", "\"name\":\"read\",\"arguments\":\"{\\\"p\\\":\""),
        call("0", "", r#""arguments":"\"a\"}""#),
        call("0", "b", r#""name":"read","arguments":"""#),
        call("0", "", r#""arguments":"{}""#),
    ];
    assert_eq!(
        pieces(&open),
        [
            piece(0, "a", r#"{"p":"#),
            piece(0, "", r#""a"}"#),
            piece(1, "b", ""),
            piece(1, "", "{}")
        ]
    );
}

#[test]
fn whole_calls_without_ids_are_several() {
    let two = [piece(0, "", r#"{"p":"a"}"#), piece(1, "", r#"{"p":"b"}"#)];
    for index in ["", "0"] {
        assert_eq!(pieces(&[call(index, "", READ_A), call(index, "", READ_B)]), two);
    }
    let list = format!(r#"{{"tool_calls":[{{"function":{{{READ_A}}}}},{{"function":{{{READ_B}}}}}]}}"#);
    assert_eq!(pieces(&[list]), two);
}

#[test]
fn a_call_in_pieces_stays_one_whatever_its_pieces_repeat() {
    let begin = call("0", "a", r#""name":"read","arguments":"{\"p\"""#);
    for more in [
        call("0", "", r#""arguments":":1}""#),
        call("0", "a", r#""name":"read","arguments":":1}""#),
        // An id that is made up for each piece.
        call("0", "other", r#""name":null,"arguments":":1}""#),
        call("", "", r#""arguments":":1}""#),
        call("\"0\"", "a", r#""arguments":":1}""#),
    ] {
        let told = pieces(&[begin.clone(), more.clone()]);
        assert_eq!(told, [piece(0, "a", r#"{"p""#), piece(0, "", ":1}")], "{more}");
    }
    let late = [
        call("0", "", r#""name":"read","arguments":null"#),
        call("0", "a", r#""arguments":"{}""#),
    ];
    assert_eq!(pieces(&late), [piece(0, "", ""), piece(0, "a", "{}")]);
}

#[test]
fn pieces_in_the_documented_form_are_not_touched() {
    let exact = [
        r#"{"tool_calls":[{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":""},"x":1.0}]}"#,
        r#"{"tool_calls":[{"index":0,"function":{"arguments":"{\u0022"}}]}"#,
        r#"{"tool_calls":[{"index":1,"id":"b","type":"custom","custom":{"name":"g","input":"x"}}]}"#,
        r#"{"tool_calls":[{"index":1,"custom":{"input":"y"}}],"reasoning":null}"#,
        r#"{"tool_calls":"none","x":1.50}"#,
        r#"{"tool_calls":[]}"#,
        "{}",
    ];
    assert_eq!(told(&exact), exact);
}

#[test]
fn calls_get_the_documented_form() {
    for (from, to) in [
        (
            r#"{"tool_calls":[{"id":"a","function":{"name":"f","arguments":{"p": 1.0}}}]}"#,
            r#"{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{\"p\": 1.0}"},"type":"function"}]}"#,
        ),
        (
            r#"{"tool_calls":{"index":1,"id":5,"type":null,"function":{"name":"f"}}}"#,
            r#"{"tool_calls":[{"index":0,"id":"5","function":{"name":"f","arguments":""},"type":"function"}]}"#,
        ),
    ] {
        assert_eq!(told(&[from, "{}"]), [to, "{}"]);
    }
}

#[test]
fn halves_of_a_character_meet_in_each_member() {
    for member in ["reasoning_content", "reasoning", "refusal", "new"] {
        let deltas = [
            format!(r#"{{"{member}":"a \ud83d"}}"#),
            format!(r#"{{"{member}":"\ude00 b"}}"#),
        ];
        let deltas: Vec<&str> = deltas.iter().map(String::as_str).chain(["{}"]).collect();
        let want = [
            format!(r#"{{"{member}":"a "}}"#),
            format!(r#"{{"{member}":"😀 b"}}"#),
            "{}".to_owned(),
        ];
        assert_eq!(told(&deltas), want);
    }
    let calls = [
        call("0", "a", r#""name":"f","arguments":"{\"a\":\"ok \ud83d""#),
        call("0", "", r#""arguments":"\ude00\"}""#),
    ];
    assert_eq!(pieces(&calls), [piece(0, "a", r#"{"a":"ok "#), piece(0, "", "😀\"}")]);
}

#[test]
fn half_a_character_whose_other_half_does_not_come_is_told_as_unknown() {
    let deltas = [r#"{"reasoning":"a\ud83d"}"#, r#"{"x":1}"#, r#"{"reasoning":"\ude00"}"#];
    let want = [
        r#"{"reasoning":"a"}"#,
        r#"{"reasoning":"�","x":1}"#,
        r#"{"reasoning":"�"}"#,
    ];
    assert_eq!(told(&deltas), want);
    assert_eq!(told(&[r#"{"reasoning":"a\ud83d"}"#]), [r#"{"reasoning":"a�"}"#]);
    assert_eq!(
        told(&[r#"{"details":[{"text":"\ud83d"}]}"#, "{}"]),
        [r#"{"details":[{"text":"\ufffd"}]}"#, "{}"]
    );
    let cut = call("0", "a", r#""name":"f","arguments":"{\"\ud83d""#);
    assert_eq!(pieces(&[cut]), [piece(0, "a", "{\""), piece(0, "", "�")]);
}
