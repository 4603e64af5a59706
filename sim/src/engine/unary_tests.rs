//! Answers of the simulated engine that come in one piece.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;

fn answered(kind: RequestKind, body: &Value) -> (Value, u64) {
    let (said, tokens) = answer(kind, body.to_string().as_bytes(), Some(99)).unwrap();
    assert_eq!(said.finish_reason, None);
    let text: String = said
        .pieces
        .iter()
        .map(|piece| match piece {
            Piece::Text(text) => text.as_str(),
            _ => "\"m\"",
        })
        .collect();
    (serde_json::from_str(&text).unwrap(), tokens)
}

#[test]
fn vectors_follow_from_their_texts() {
    let body = json!({"input": ["a b", "c", "a b"], "dimensions": 5});
    let (answer, tokens) = answered(RequestKind::Embeddings, &body);
    assert_eq!((answer["model"].as_str(), tokens), (Some("m"), 5));
    assert_eq!(answer["usage"], json!({"prompt_tokens": 5, "total_tokens": 5}));
    let vector = |n: usize| -> Vec<f64> {
        let list = answer["data"][n]["embedding"].as_array().unwrap();
        list.iter().map(|number| number.as_f64().unwrap()).collect()
    };
    assert_eq!((vector(0).len(), vector(0)), (5, vector(2)));
    assert_ne!(vector(0), vector(1));
    let length: f64 = vector(0).iter().map(|n| n * n).sum();
    assert!((length - 1.0).abs() < 1e-6, "{length}");
}

#[test]
fn base64_holds_the_same_numbers() {
    use base64::Engine as _;
    let of = |format: &str| {
        let body = json!({"input": "a", "encoding_format": format});
        answered(RequestKind::Embeddings, &body).0["data"][0]["embedding"].clone()
    };
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(of("base64").as_str().unwrap())
        .unwrap();
    let numbers: Vec<f32> = bytes
        .chunks(4)
        .map(|four| f32::from_le_bytes(four.try_into().unwrap()))
        .collect();
    let floats: Vec<f32> = serde_json::from_value(of("float")).unwrap();
    assert_eq!(numbers, floats);
}

#[test]
fn ids_are_texts_too_and_nonsense_is_refused() {
    let (answer, _) = answered(RequestKind::Embeddings, &json!({"input": [[1, 2], [3]]}));
    assert_eq!(answer["data"].as_array().unwrap().len(), 2);
    let (answer, _) = answered(RequestKind::Embeddings, &json!({"input": [1, 2]}));
    assert_eq!(answer["data"].as_array().unwrap().len(), 1);
    for (body, param) in [
        (json!({"input": "a", "dimensions": 0}), Some("dimensions")),
        (json!({"input": "a", "encoding_format": "hex"}), Some("encoding_format")),
        (json!({"documents": 7}), None),
    ] {
        let refused = super::answer(RequestKind::Embeddings, body.to_string().as_bytes(), None).unwrap_err();
        assert_eq!((refused.code, refused.param.as_deref()), (ErrorCode::BadRequest, param));
    }
}

#[test]
fn documents_are_sorted_by_the_words_that_they_share() {
    let body = json!({"query": "red green", "documents": ["blue", "green red", {"text": "red"}], "top_n": 2});
    let (answer, tokens) = answered(RequestKind::Rerank, &body);
    let order: Vec<u64> = answer["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["index"].as_u64().unwrap())
        .collect();
    assert_eq!((order, tokens), (vec![1, 2], 10));
    assert_eq!(answer["results"][0]["relevance_score"], 1.0);
    let (answer, _) = answered(RequestKind::Score, &json!({"text_1": "a b", "text_2": ["a", "c"]}));
    assert_eq!(
        (&answer["data"][0]["score"], &answer["data"][1]["score"]),
        (&json!(0.5), &json!(0.0))
    );
}

#[test]
fn the_engines_own_words_come_back_from_their_ids() {
    let (answer, count) = answered(RequestKind::Tokenize, &json!({"prompt": "t0 t17 hello"}));
    assert_eq!(
        (&answer["count"], count, &answer["max_model_len"]),
        (&json!(3), 3, &json!(99))
    );
    assert_eq!((&answer["tokens"][0], &answer["tokens"][1]), (&json!(0), &json!(17)));
    assert!(answer["tokens"][2].as_u64().unwrap() >= WORDS);
    let (answer, _) = answered(RequestKind::Detokenize, &json!({"tokens": [0, 17]}));
    assert_eq!(answer["prompt"], "t0 t17 ");
    let chat = json!({"messages": [{"content": "a b"}, {"content": [{"type": "text", "text": "c"}]}]});
    assert_eq!(answered(RequestKind::Tokenize, &chat).1, 3);
}
