//! The parts make one document.

use std::collections::HashSet;

use serde_json::json;

use super::*;

fn whole() -> Value {
    document().unwrap()
}

/// Every `$ref` below `value`.
fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
            members.values().for_each(|value| references(value, found));
        }
        Value::Array(elements) => elements.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn all_that_is_referred_to_is_there_and_all_that_is_there_is_referred_to() {
    let document = whole();
    let mut found = Vec::new();
    references(&document, &mut found);
    let found: HashSet<String> = found.into_iter().collect();
    for reference in &found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
    for group in ["schemas", "responses", "parameters", "headers"] {
        for name in document["components"][group].as_object().unwrap().keys() {
            let reference = format!("#/components/{group}/{name}");
            assert!(found.contains(&reference), "nobody uses {reference}");
        }
    }
}

#[test]
fn no_part_overrides_another() {
    let mut seen = HashSet::new();
    for part in PARTS {
        let part: Value = serde_json::from_str(part).unwrap();
        let components = part["components"].as_object().into_iter().flatten();
        let groups = components.map(|(name, group)| (name.as_str(), group));
        for (group, members) in groups.chain([("paths", &part["paths"])]) {
            for name in members.as_object().into_iter().flat_map(Map::keys) {
                assert!(seen.insert(format!("{group}/{name}")), "{group}/{name} is there twice");
            }
        }
    }
}

#[test]
fn each_operation_has_its_traits_its_own_id_and_an_answer() {
    let document = whole();
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    assert!(document.get(TRAITS).is_none());
    let mut ids = HashSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            if method == "parameters" {
                continue;
            }
            assert!(operation.get(TRAITS).is_none(), "{path}");
            assert!(ids.insert(operation["operationId"].as_str().unwrap()), "{path}");
            assert!(operation["responses"]["200"].is_object(), "{path}");
            assert!(!operation["parameters"].as_array().unwrap().is_empty(), "{path}");
        }
    }
}

#[test]
fn errors_are_in_the_form_of_the_api_that_they_belong_to() {
    let document = whole();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let operations = methods.as_object().unwrap().iter();
        for (_, operation) in operations.filter(|(method, _)| *method != "parameters") {
            for (status, response) in operation["responses"].as_object().unwrap() {
                let Some(reference) = response["$ref"].as_str() else {
                    assert_eq!(status, "200", "{path}");
                    continue;
                };
                let ollama = reference.contains("/Ollama");
                assert_eq!(
                    ollama,
                    crate::http::request::dialect::is_ollama(path),
                    "{path} {status}"
                );
                let anthropic = reference.contains("/Anthropic");
                assert_eq!(
                    anthropic,
                    crate::http::request::dialect::is_anthropic(path, &http::HeaderMap::new()),
                    "{path} {status}"
                );
            }
        }
    }
}

#[test]
fn what_an_operation_says_itself_is_meant() {
    let mut traits = Map::new();
    traits.insert("t".to_owned(), json!({"a": 1, "b": [1], "c": {"d": 1, "e": 1}}));
    let mut operation = json!({"x-traits": ["t"], "a": 2, "b": [2], "c": {"d": 2}});
    expand(&mut operation, &traits).unwrap();
    assert_eq!(operation, json!({"a": 2, "b": [2, 1], "c": {"d": 2, "e": 1}}));
    assert!(expand(&mut json!({"x-traits": ["u"]}), &traits).is_err());
}
