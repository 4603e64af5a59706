//! The bodies of requests of Ollama's API: any bytes become a call, load a model or are refused, never a panic, and what
//! becomes a chat is a chat request.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tokenbus_api::{OllamaAsk, ask_chat, ask_embed, ask_embeddings, ask_generate, model_in};
use tokenbus_fuzz::{assert_becomes_chat, assert_checked, assert_error};
use tokenbus_protocol::RequestKind;

fuzz_target!(|bytes: &[u8]| {
    for ask in [ask_chat, ask_generate, ask_embed, ask_embeddings] {
        match ask(bytes, &|_| None) {
            Ok(OllamaAsk::Call { checked, kind }) => {
                let checked = Ok(checked);
                assert_checked(bytes, &checked);
                if kind == RequestKind::Chat {
                    assert_becomes_chat(&checked);
                }
            }
            Ok(OllamaAsk::Load { model, answer }) => assert!(!model.is_empty() && !answer.write(0).is_empty()),
            Err(error) => assert_error(bytes, &error),
        }
    }
    if let Err(error) = model_in(bytes) {
        assert_error(bytes, &error);
    }
});
