//! Pages of real servers, shortened.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;

const LLAMA_MODELS: &str = r#"{"models":[{"name":"smol"}],"object":"list","data":[{"id":"smol","aliases":["s"],"tags":[],"object":"model","created":1,"owned_by":"llamacpp","meta":{"vocab_type":2,"n_ctx":2048,"n_ctx_train":8192}}]}"#;
const VLLM_MODELS: &str = r#"{"object":"list","data":[{"id":"Qwen/Qwen2.5-0.5B","object":"model","created":1,"owned_by":"vllm","root":"Qwen/Qwen2.5-0.5B","parent":null,"max_model_len":32768,"permission":[]},{"id":"lora","owned_by":"vllm","max_model_len":null}]}"#;

#[test]
fn kinds_are_known_by_who_owns_the_models() {
    let kind = |owner: &str, server| {
        let body = format!(r#"{{"data":[{{"id":"m","owned_by":"{owner}"}}]}}"#);
        models(body.as_bytes(), server).unwrap().0
    };
    assert_eq!(kind("llamacpp", None), ServerKind::LlamaServer);
    assert_eq!(kind("me", Some("llama.cpp")), ServerKind::LlamaServer);
    assert_eq!(kind("vllm", Some("uvicorn")), ServerKind::Vllm);
    assert_eq!(kind("sglang", None), ServerKind::Sglang);
    assert_eq!(kind("library", None), ServerKind::Ollama);
    assert_eq!(kind("openai", Some("cloudflare")), ServerKind::Unknown);
}

#[test]
fn models_and_their_context_are_read() {
    let (kind, found) = models(LLAMA_MODELS.as_bytes(), None).unwrap();
    assert_eq!(
        (kind, found[0].id.as_str(), found[0].context),
        (ServerKind::LlamaServer, "smol", Some(2048))
    );
    assert_eq!(found[0].aliases, ["s"]);
    let (_, found) = models(VLLM_MODELS.as_bytes(), None).unwrap();
    assert_eq!(found.len(), 2);
    assert_eq!((found[0].context, found[1].context), (Some(32768), None));
    assert!(found[0].traits.capabilities().continuation);
}

#[test]
fn what_is_no_model_list_is_refused() {
    for bad in ["", "{}", "[]", r#"{"data":[{}]}"#, "<html>"] {
        assert!(models(bad.as_bytes(), None).is_err(), "{bad}");
    }
    assert!(models(br#"{"data":[]}"#, None).unwrap().1.is_empty());
}

#[test]
fn llama_servers_properties() {
    let body = r#"{"default_generation_settings":{"params":{},"n_ctx":2048},"total_slots":4,"modalities":{"vision":false},"chat_template":"{{ messages }}","chat_template_caps":{"supports_tools":false}}"#;
    let props = llama_props(body.as_bytes()).unwrap();
    let expected = LlamaProps {
        slots: Some(4),
        context: Some(2048),
        tools: Some(false),
        vision: Some(false),
        audio: None,
    };
    assert_eq!(props, expected);
    let old = llama_props(br#"{"chat_template":"{% if tools %}","total_slots":1}"#).unwrap();
    assert_eq!((old.tools, old.vision, old.context), (Some(true), None, None));
    assert!(llama_props(b"nope").is_err());
}

#[test]
fn llama_servers_kv_use_is_that_of_running_requests() {
    let body = r#"[{"id":0,"n_ctx":1000,"is_processing":true,"n_prompt_tokens":300,"next_token":[{"n_decoded":100}]},
        {"id":1,"n_ctx":1000,"is_processing":false,"n_prompt_tokens":900,"next_token":{"n_decoded":5}}]"#;
    assert_eq!(llama_kv_used(body.as_bytes()), Some(0.2));
    assert_eq!(
        llama_kv_used(br#"[{"n_ctx":10,"is_processing":true,"n_prompt_tokens":30,"next_token":{"n_decoded":1}}]"#),
        Some(1.0)
    );
    assert_eq!(llama_kv_used(b"[]"), None);
    assert_eq!(llama_kv_used(b"{}"), None);
}

#[test]
fn sglangs_info_in_both_places() {
    assert_eq!(
        sglang_info(br#"{"max_running_requests":48,"context_length":4096}"#),
        (Some(48), Some(4096))
    );
    let body =
        br#"{"max_running_requests":null,"internal_states":[{"max_running_requests":96}],"context_length":8192}"#;
    assert_eq!(sglang_info(body), (Some(96), Some(8192)));
    assert_eq!(sglang_info(b"nope"), (None, None));
}

#[test]
fn vllms_sequences_in_both_forms() {
    assert_eq!(
        vllm_max_num_seqs(br#"{"vllm_config":{"scheduler_config":{"max_num_seqs":128}}}"#),
        Some(128)
    );
    assert_eq!(
        vllm_max_num_seqs(br#"{"vllm_config":"a=1, max_num_seqs=64, b"}"#),
        Some(64)
    );
    assert_eq!(vllm_max_num_seqs(br#"{"vllm_config":"a=1"}"#), None);
    assert_eq!(vllm_max_num_seqs(b"{}"), None);
}

#[test]
fn metrics_are_found_with_and_without_labels() {
    let page = "# HELP vllm:kv_cache_usage_perc KV-cache usage\n# TYPE vllm:kv_cache_usage_perc gauge\n\
        vllm:kv_cache_usage_perc_other 9\n\
        vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"a } b\"} 0.25\n\
        sglang:token_usage 0.5 1700000000\n";
    assert_eq!(metric(page, &KV_METRICS), Some(0.25));
    assert_eq!(metric(page, &["sglang:token_usage"]), Some(0.5));
    assert_eq!(metric(page, &["nothing"]), None);
    assert_eq!(metric("x NaN\n", &["x"]), None);
}

#[test]
fn ollamas_models_continue_where_their_template_does() {
    let show = |template: &str, renderer: &str| {
        let body = serde_json::json!({"template": template, "renderer": renderer, "parameters": "stop \"x\"\nnum_ctx    8192",
            "capabilities": ["completion", "tools"]});
        ollama_model(body.to_string().as_bytes()).unwrap()
    };
    let model = show("{{ .System }}{{ .Prompt }}{{ .Response }}", "");
    assert_eq!(
        (model.context, model.traits.continuation),
        (Some(8192), Continuation::TrailingAssistant)
    );
    let told = |feature| model.traits.told(feature);
    assert_eq!((told(Feature::Tools), told(Feature::Vision)), (Some(true), Some(false)));
    let open = "{{ range .Messages }}{{ if not $last }}<|im_end|>{{ end }}{{ end }}";
    assert_eq!(show(open, "").traits.continuation, Continuation::TrailingAssistant);
    assert_eq!(
        show("{{ range .Messages }}<|im_end|>{{ end }}", "").traits.continuation,
        Continuation::None
    );
    assert_eq!(show(open, "qwen3-coder").traits.continuation, Continuation::None);
    assert_eq!(ollama_model(b"{}").unwrap().traits.continuation, Continuation::None);
}

#[test]
fn embedding_models_are_no_chat_models() {
    let model = ollama_model(br#"{"template":"{{ .Prompt }}","capabilities":["embedding"]}"#).unwrap();
    let can = model.traits.capabilities();
    assert!(!can.chat && !can.completion && !can.tools && can.embeddings);
}

#[test]
fn sglang_tells_what_its_model_is_for() {
    let of = |body: &str| {
        let mut traits = Traits::of(ServerKind::Sglang, "m");
        sglang_model(body.as_bytes(), &mut traits);
        traits.capabilities()
    };
    let chat = of(r#"{"is_generation":true,"has_image_understanding":true,"has_audio_understanding":false}"#);
    assert!(chat.chat && chat.vision && !chat.audio && !chat.embeddings && chat.score);
    let embeds = of(r#"{"is_generation":false,"has_image_understanding":false}"#);
    assert!(!embeds.chat && embeds.embeddings && embeds.rerank && !embeds.score);
    assert!(of("nope").chat && of("{}").vision);
}

#[test]
fn routes_tell_what_can_be_asked_for() {
    let of = |paths: &[&str]| {
        let paths: serde_json::Map<String, Value> =
            paths.iter().map(|path| ((*path).to_owned(), Value::Null)).collect();
        let mut traits = Traits::of(ServerKind::Vllm, "m");
        routes(
            serde_json::json!({ "paths": paths }).to_string().as_bytes(),
            &mut traits,
        );
        traits.capabilities()
    };
    let chat = of(&["/v1/chat/completions", "/v1/completions", "/tokenize", "/v1/score"]);
    assert!(chat.chat && chat.completion && chat.tokenize && chat.score && !chat.embeddings && !chat.rerank);
    let embeds = of(&["/v1/embeddings", "/v1/score", "/v1/rerank", "/tokenize"]);
    assert!(!embeds.chat && !embeds.completion && !embeds.tools && embeds.embeddings && embeds.score && embeds.rerank);
    let all = of(&[
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/rerank",
        "/v1/score",
        "/tokenize",
    ]);
    assert!(
        all.chat && !all.embeddings && !all.rerank,
        "an older server has all routes and tells nothing by it"
    );
}

#[test]
fn another_tokenbus_lists_what_its_models_can() {
    let body = br#"{"data":[{"id":"m","owned_by":"tokenbus","capabilities":{"chat":false,"completion":false,
        "embeddings":true,"tools":false,"continuation":true}},{"id":"n","capabilities":["other","form"]}]}"#;
    let (kind, models) = models(body, None).unwrap();
    let can = models[0].traits.capabilities();
    assert_eq!(kind, ServerKind::Unknown);
    assert!(can.embeddings && !can.chat && !can.continuation);
    assert!(models[1].traits.capabilities().chat);
}

#[test]
fn vllms_load_and_cache_are_read_from_its_metrics() {
    let page = concat!(
        "# HELP vllm:num_requests_running x\n",
        "vllm:num_requests_running{engine=\"0\",model_name=\"a b\"} 5.0\n",
        "vllm:num_requests_running{engine=\"1\",model_name=\"a b\"} 3.0\n",
        "vllm:num_requests_waiting_by_reason{engine=\"0\",reason=\"capacity\"} 2.0\n",
        "vllm:num_requests_waiting_by_reason{engine=\"0\",reason=\"deferred\"} 7.0\n",
        "vllm:kv_cache_usage_perc{engine=\"0\"} 0.25\n",
        "vllm:cache_config_info{block_size=\"16\",kv_cache_max_concurrency=\"22.5\",kv_cache_size_tokens=\"46080\"} 1.0\n",
    );
    let load = vllm_load(page);
    assert_eq!((load.running, load.waiting, load.kv_used), (8, 2, Some(0.25)));
    assert_eq!(vllm_concurrency(page), Some(22.5));
    assert_eq!(load.work, None, "it counts no tokens");
    let counters = concat!(
        "vllm:prompt_tokens_total{engine=\"0\"} 40.0\n",
        "vllm:generation_tokens_total{engine=\"0\"} 1.5e+03\n",
        "vllm:generation_tokens_total{engine=\"1\"} 100.0\n",
        "vllm:generation_tokens_created{engine=\"1\"} 1.7e+09\n",
    );
    let work = Work {
        running: 8,
        generated: 1600.0,
        prompts: 40.0,
        kv_used: Some(0.25),
    };
    assert_eq!(vllm_load(&format!("{page}{counters}")).work, Some(work));
    assert_eq!(vllm_load(""), Load::default());
    assert_eq!(vllm_concurrency("vllm:cache_config_info{block_size=\"16\"} 1.0"), None);
}
