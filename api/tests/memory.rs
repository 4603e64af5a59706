//! What a check holds at its peak, beside the body, for bodies that are made to cost much.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use std::fmt::Write as _;

use tokenbus_api::{
    KnownResponses, RequestError, ResponseRequest, ask_chat, ask_embed, ask_generate, check_chat, check_completion,
    check_embeddings, check_message,
};

/// Bytes of a hostile body. `TOKENBUS_TEST_MIB` sets another number of MiB, to measure by hand.
fn body_bytes() -> usize {
    let mib = std::env::var("TOKENBUS_TEST_MIB").ok();
    mib.map_or(6, |mib| mib.parse().unwrap()) << 20
}

/// What a check may hold beside a body of that size: a few copies for a translation, and a bounded number of values.
fn most() -> usize {
    4 * body_bytes() + (96 << 20)
}

/// Members and elements that a check accepts in any case.
const ALLOWED: usize = 199_000;

type Check = fn(&[u8]) -> Result<(), RequestError>;

const CHECKS: [(&str, Check); 8] = [
    ("chat", |body| check_chat(body).map(drop)),
    ("completions", |body| check_completion(body).map(drop)),
    ("embeddings", |body| check_embeddings(body).map(drop)),
    ("responses", |body| {
        let read = ResponseRequest::read(body)?;
        read.translate(&KnownResponses::new(), false).map(drop)
    }),
    ("messages", |body| check_message(body).map(drop)),
    ("ollama chat", |body| ask_chat(body, &|_| None).map(drop)),
    ("ollama generate", |body| ask_generate(body, &|_| None).map(drop)),
    ("ollama embed", |body| ask_embed(body, &|_| None).map(drop)),
];

/// A member, and the element of which its array has as many as fit.
const HOSTILE: [(&str, &str); 22] = [
    ("messages", "{}"),
    ("messages", r#"{"role":"user"}"#),
    ("messages", r#"{"role":"user","content":""}"#),
    ("messages", r#"{"role":"user","content":[{}]}"#),
    ("input", "0"),
    ("input", "[0]"),
    ("input", r#""""#),
    ("input", "{}"),
    ("input", r#"{"role":"user","content":""}"#),
    ("input", r#"{"type":"item_reference","id":"x"}"#),
    ("prompt", "0"),
    ("prompt", r#""""#),
    ("tools", "{}"),
    ("tools", r#"{"type":"function","function":{"name":"a"}}"#),
    ("functions", "{}"),
    ("modalities", r#""""#),
    ("stop", r#""""#),
    ("images", r#""""#),
    ("context", "0"),
    ("stop_sequences", r#""""#),
    ("system", "{}"),
    ("include", r#""""#),
];

/// Whether an API's check looks into a member.
fn reads(api: &str, member: &str) -> bool {
    match member {
        "messages" | "tools" => !matches!(api, "completions" | "embeddings" | "ollama embed" | "ollama generate"),
        "input" => matches!(api, "embeddings" | "responses" | "ollama embed"),
        "prompt" => matches!(api, "completions" | "ollama generate"),
        "functions" | "modalities" => api == "chat",
        "stop" => matches!(api, "chat" | "completions"),
        "images" | "context" => api == "ollama generate",
        "stop_sequences" | "system" => api == "messages",
        "include" => api == "responses",
        _ => true,
    }
}

fn resident(what: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap();
    line.split_whitespace().next().unwrap().parse::<usize>().unwrap() * 1024
}

/// The most memory that `work` had beyond what was there.
fn peak(work: impl FnOnce()) -> usize {
    // 5 sets the peak to what is there now.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = resident("VmRSS:");
    work();
    resident("VmHWM:").saturating_sub(before)
}

/// As many elements as fit, or as many as are not refused for their number.
fn elements(member: &str, element: &str, most: usize) -> String {
    let mut body = format!(r#"{{"model":"m","max_tokens":1,"{member}":[{element}"#);
    let each = 1 + element.matches([',', ':']).count();
    let mut values = each;
    while body.len() < body_bytes() && values + each < most {
        values += each;
        body.push(',');
        body.push_str(element);
    }
    body + "]}"
}

fn members() -> String {
    let mut body = r#"{"model":"m""#.to_owned();
    let mut number = 0;
    while body.len() < body_bytes() {
        write!(body, r#","{number:x}":0"#).unwrap();
        number += 1;
    }
    body + "}"
}

#[test]
fn no_check_multiplies_a_hostile_body() {
    let mut worst = (0, String::new());
    let all = HOSTILE.map(|hostile| (hostile, usize::MAX));
    let few = HOSTILE.map(|hostile| (hostile, ALLOWED));
    let bodies = all.into_iter().chain(few).map(|((member, element), most)| {
        let name = format!("{member}: [{element}, …] up to {most}");
        (name, elements(member, element, most))
    });
    for (name, body) in bodies.chain([("members".to_owned(), members())]) {
        let member = name.split(':').next().unwrap();
        for (api, check) in CHECKS.into_iter().filter(|(api, _)| reads(api, member)) {
            let peak = peak(|| drop(check(body.as_bytes())));
            assert!(peak < most(), "{api} holds {} MiB for {name}", peak >> 20);
            if std::env::var_os("TOKENBUS_TEST_MIB").is_some() {
                eprintln!("{api}, {name}: {} MiB", peak >> 20);
            }
            if peak > worst.0 {
                worst = (peak, format!("{api}, {name}"));
            }
        }
    }
    eprintln!("measured: at most {} MiB ({})", worst.0 >> 20, worst.1);
}
