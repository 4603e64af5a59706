//! What requests may make engines do.
#![allow(clippy::unwrap_used, clippy::panic)]

use serde_json::{Value as Json, json};

use super::*;

fn refused(rules: &EngineRules, body: &str, trusted: bool) -> Option<(String, &'static str)> {
    match rules.check(body.as_bytes(), trusted) {
        Ok(()) => None,
        Err(RequestError::Field { param, code, message }) => {
            assert!(
                message.contains("--engine-member") || message.contains("--media-urls"),
                "{message}"
            );
            Some((param.unwrap(), code))
        }
        Err(other) => panic!("{other}"),
    }
}

fn with_media(media: &str) -> EngineRules {
    EngineRules {
        media: media.parse().unwrap(),
        ..EngineRules::default()
    }
}

#[test]
fn members_that_steer_an_engine_pass_only_where_they_are_allowed() {
    let default = EngineRules::default();
    for name in [
        "kv_transfer_params",
        "id_slot",
        "n_discard",
        "priority",
        "lora",
        "lora_path",
        "lora_request",
        "chat_template",
        "bootstrap_host",
        "custom_logit_processor",
        "logits_processors",
        "vllm_xargs",
    ] {
        let body = json!({"model": "m", name: {"a": 1}}).to_string();
        let want = Some((name.to_owned(), "engine_member_not_allowed"));
        assert_eq!(refused(&default, &body, false), want);
        assert_eq!(refused(&default, &format!("{{\"extra_body\":{body}}}"), false), want);
        assert_eq!(refused(&default, &body, true), None);
        for allowed in [name, "*"] {
            let rules = EngineRules {
                members: vec![allowed.to_owned()],
                ..EngineRules::default()
            };
            assert_eq!(refused(&rules, &body, false), None, "{name}");
        }
        let absent = json!({"model": "m", name: null}).to_string();
        assert_eq!(refused(&default, &absent, false), None);
    }
    // However it is written, and however often.
    let escaped = r#"{"id\u005fslot":0}"#;
    assert!(refused(&default, escaped, false).is_some());
    assert!(refused(&default, r#"{"id_slot":null,"id_slot":1}"#, false).is_some());
    let all_else = json!({"chat_template_kwargs": {"enable_thinking": false}, "cache_prompt": true, "cache_salt": "x",
        "grammar": "g", "top_k": 3, "ignore_eos": true, "messages": [{"priority": 1, "lora": 2}],
        "tools": [{"function": {"parameters": {"properties": {"priority": {"type": "integer"}}}}}]});
    assert_eq!(refused(&default, &all_else.to_string(), false), None);
}

fn part(url: &str) -> Vec<Json> {
    vec![
        json!({"messages": [{"content": [{"type": "image_url", "image_url": {"url": url, "detail": "low"}}]}]}),
        json!({"messages": [{"content": [{"image_url": url}]}]}),
        json!({"messages": [{"content": [{"type": "audio_url", "audio_url": {"url": url}}]}]}),
        json!({"messages": [{"content": [{"type": "video_url", "video_url": {"url": url}}]}]}),
        json!({"messages": [{"role": "tool", "content": [{"content": [{"image_url": {"url": url}}]}]}]}),
        json!({"input": [{"text": "a", "image": url}]}),
        json!({"image_data": [url]}),
        json!({"query": {"content": [{"image_url": {"url": url}}]}}),
        json!({"extra_body": {"image_data": url}}),
    ]
}

fn all_refused(rules: &EngineRules, url: &str) -> bool {
    let refused: Vec<bool> = part(url)
        .into_iter()
        .map(|body| refused(rules, &body.to_string(), true).is_some_and(|(_, code)| code == "media_url_not_allowed"))
        .collect();
    let first = refused.iter().all(|refused| *refused);
    assert!(first || refused.iter().all(|refused| !*refused), "{url}: {refused:?}");
    first
}

#[test]
fn only_media_in_the_request_itself_pass_unless_more_are_allowed() {
    let [none, data, any] = ["none", "data", "any"].map(with_media);
    let hosts = with_media("Images.example.org,cdn.example.org:8443");
    assert_eq!(data, EngineRules::default());
    for inline in [
        "data:image/png;base64,AAAA",
        "DATA:image/png;base64,AAAA",
        "iVBORw0KGgo=",
    ] {
        assert!(all_refused(&none, inline));
        assert!(!all_refused(&data, inline) && !all_refused(&hosts, inline) && !all_refused(&any, inline));
    }
    for foreign in [
        "http://169.254.169.254/latest/meta-data",
        "https://other.example.org/a.png",
        "https://images.example.org:81/a.png",
        "https://images.example.org@evil.example.org/a.png",
        "https://images.example.org\\@evil.example.org/a.png",
        "https://evil.example.org?https://images.example.org",
        "https://images.example.org.evil.example.org/",
        "https:///images.example.org/",
        " https://images.example.org/",
        "file:///etc/passwd",
        "ftp://images.example.org/a",
        "/etc/passwd",
        "/etc/secret.png",
        "//images.example.org/a.png",
        "blob:x",
    ] {
        assert!(all_refused(&none, foreign) && all_refused(&data, foreign), "{foreign}");
        assert!(all_refused(&hosts, foreign), "{foreign}");
        assert!(!all_refused(&any, foreign), "{foreign}");
    }
    for listed in [
        "https://images.example.org/a.png",
        "HTTP://IMAGES.example.org?x",
        "https://cdn.example.org:8443/a",
    ] {
        assert!(all_refused(&data, listed) && !all_refused(&hosts, listed), "{listed}");
    }
}

#[test]
fn what_is_no_reference_is_left_alone() {
    let body = json!({"messages": [{"content": "see https://example.org/a.png"}, {"content": [{"type": "text",
        "text": "image_url https://example.org"}]}], "metadata": {"image_url": "https://example.org"},
        "tools": [{"function": {"parameters": {"properties": {"image_url": {"default": "https://example.org"}}}}}],
        "audio": {"voice": "alloy", "format": "wav"}, "video": null, "image": 3});
    assert_eq!(refused(&EngineRules::default(), &body.to_string(), false), None);
}

#[test]
fn what_is_too_deep_to_look_into_is_refused() {
    let deep = format!("{{\"messages\":{}{}}}", "[".repeat(1000), "]".repeat(1000));
    let error = EngineRules::default().check(deep.as_bytes(), false).unwrap_err();
    assert!(matches!(error, RequestError::Syntax { .. }), "{error}");
}

#[test]
fn media_are_none_data_any_or_hosts() {
    for wrong in ["", ",", "https://x", "a b", "x/y", "a,,b"] {
        assert_eq!(wrong.parse::<MediaUrls>(), Err(NoMediaUrls), "{wrong}");
    }
}
