//! Any text, cut anywhere, is what the client reads.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use bytes::BytesMut;
use proptest::prelude::*;
use serde_json::Value;
use tokenbus_protocol::{Delta, Finish};
use uuid::Uuid;

use super::{ChatStyle, chat_view};
use crate::answer::{Collect as _, Encoder as _, Identity};
use crate::generation::collector::Collector;
use crate::generation::encoder::ChunkEncoder;

fn delta(text: &str) -> Delta<'static> {
    Delta {
        text: text.to_owned().into(),
        tokens: 1,
        ..Delta::default()
    }
}

/// Text with more of what breaks encoders than chance would bring.
fn nasty() -> impl Strategy<Value = String> {
    let special = prop::sample::select(vec![
        "\n",
        "\r",
        "\r\n",
        "\n\n",
        "\"",
        "\\",
        "\\u0000",
        "\0",
        "\u{7f}",
        "\u{85}",
        "\u{2028}",
        "\u{2029}",
        "\u{feff}",
        "\u{fffd}",
        "data: [DONE]\n\n",
        ": ",
        "</script>",
        "🦀",
        "e\u{301}",
        "\u{202e}",
        "\u{10ffff}",
        "\u{1f}",
        "\t",
    ]);
    prop::collection::vec(prop_oneof![special.prop_map(str::to_owned), any::<String>()], 0..8)
        .prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn any_text_comes_back_from_the_event_stream(parts in prop::collection::vec(nasty(), 1..6), model in nasty()) {
        let identity = Identity::new("chatcmpl-", Uuid::nil(), 0, &model);
        let mut encoder = ChunkEncoder::<ChatStyle>::new(identity.clone(), false);
        let mut collector = Collector::<ChatStyle>::new(identity);
        let mut out = BytesMut::new();
        for part in &parts {
            encoder.delta(&delta(part), &mut out).unwrap();
            collector.delta(&delta(part)).unwrap();
        }
        encoder.finish(&Finish::default(), &mut out).unwrap();
        let stream = std::str::from_utf8(&out).unwrap();
        // As the strictest and the sloppiest readers split it.
        let sloppy = ['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}', '\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}'];
        prop_assert!(stream.chars().filter(|c| sloppy.contains(c)).all(|c| c == '\n'));
        let mut text = String::new();
        let mut done = false;
        for event in stream.split_terminator("\n\n") {
            prop_assert!(!done);
            let data = event.strip_prefix("data: ").unwrap();
            prop_assert!(!data.contains(['\n', '\r']));
            if data == "[DONE]" {
                done = true;
                continue;
            }
            let chunk: Value = serde_json::from_str(data).unwrap();
            prop_assert_eq!(chunk["model"].as_str().unwrap(), &model);
            text += chunk["choices"][0]["delta"]["content"].as_str().unwrap_or_default();
        }
        prop_assert!(done);
        prop_assert_eq!(&text, &parts.concat());
        let whole: Value = serde_json::from_slice(&Box::new(collector).finish(&Finish::default()).unwrap()).unwrap();
        prop_assert_eq!(whole["choices"][0]["message"]["content"].as_str().unwrap(), text);
    }

    #[test]
    fn any_bytes_as_a_request_are_an_answer_and_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = chat_view(&bytes);
    }

    #[test]
    fn any_json_as_a_request_is_an_answer_and_no_panic(field in "[a-z_]{1,12}", value in json()) {
        let names = ["model", "messages", "n", "stop", "tools", "stream_options", "response_format", "logit_bias"];
        for name in names.into_iter().chain([field.as_str()]) {
            let mut request = serde_json::json!({"model": "m", "messages": [{"role": "user", "content": "x"}]});
            request[name] = value.clone();
            let _ = chat_view(request.to_string().as_bytes());
        }
    }
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        nasty().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map("role|content|type|text|url|image_url|x", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}
