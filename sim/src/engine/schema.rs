//! Builds a small document that fits a JSON schema; the same one each time. Pure.

use serde_json::{Map, Value, json};

use super::prompt_words::PromptWords;

/// Greatest depth. A deeper schema counts as recursive, and its deeper parts become null.
const MAX_DEPTH: usize = 12;

/// Most characters of a padded text.
const MAX_TEXT: usize = 4096;

/// A document that fits `schema`. It knows the parts of JSON Schema that clients generate: types, properties, items,
/// enums, constants, references into the schema, unions and bounds. Texts and whole numbers come from `prompted` while
/// it has any.
pub(super) fn instance(schema: &Value, prompted: &mut PromptWords) -> Value {
    build(schema, schema, prompted, 0)
}

fn build(schema: &Value, root: &Value, prompted: &mut PromptWords, depth: usize) -> Value {
    if depth > MAX_DEPTH {
        return Value::Null;
    }
    if let Some(there) = schema.get("$ref").and_then(Value::as_str) {
        let place = there.strip_prefix('#').and_then(|pointer| root.pointer(pointer));
        return place.map_or(Value::Null, |place| build(place, root, prompted, depth + 1));
    }
    for fixed in ["const", "default"] {
        if let Some(value) = schema.get(fixed) {
            return value.clone();
        }
    }
    if let Some(first) = schema.get("enum").and_then(|values| values.get(0)) {
        return first.clone();
    }
    for union in ["anyOf", "oneOf", "allOf"] {
        if let Some(first) = schema.get(union).and_then(|schemas| schemas.get(0)) {
            return build(first, root, prompted, depth + 1);
        }
    }
    match kind(schema) {
        "object" => object(schema, root, prompted, depth),
        "array" => {
            let least = schema.get("minItems").and_then(Value::as_u64).unwrap_or(1);
            let item = schema
                .get("items")
                .map_or(Value::Null, |items| build(items, root, prompted, depth + 1));
            Value::Array(vec![item; usize::try_from(least).unwrap_or(1).min(64)])
        }
        "string" => text(schema, prompted),
        "integer" => integer(schema, prompted),
        "number" => schema.get("minimum").cloned().unwrap_or(json!(0.5)),
        "boolean" => Value::Bool(true),
        _ => Value::Null,
    }
}

fn kind(schema: &Value) -> &str {
    match schema.get("type") {
        Some(Value::String(kind)) => kind,
        Some(Value::Array(kinds)) => kinds
            .iter()
            .filter_map(Value::as_str)
            .find(|kind| *kind != "null")
            .unwrap_or("null"),
        _ if schema.get("properties").is_some() => "object",
        _ if schema.get("items").is_some() => "array",
        _ => "string",
    }
}

fn object(schema: &Value, root: &Value, prompted: &mut PromptWords, depth: usize) -> Value {
    let properties = schema.get("properties").and_then(Value::as_object);
    let members = properties.into_iter().flatten();
    let members: Map<String, Value> = members
        .map(|(name, property)| (name.clone(), build(property, root, prompted, depth + 1)))
        .collect();
    Value::Object(members)
}

fn integer(schema: &Value, prompted: &mut PromptWords) -> Value {
    let bound = |name: &str| schema.get(name).and_then(Value::as_i64);
    let next = |name: &str, step: i64| bound(name).map(|bound| bound.saturating_add(step));
    let least = bound("minimum").max(next("exclusiveMinimum", 1));
    let most = [bound("maximum"), next("exclusiveMaximum", -1)]
        .into_iter()
        .flatten()
        .min();
    let fits = |number: i64| least.is_none_or(|least| least <= number) && most.is_none_or(|most| number <= most);
    let bounded = || 0.max(least.unwrap_or(i64::MIN)).min(most.unwrap_or(i64::MAX));
    json!(prompted.number(fits).unwrap_or_else(bounded))
}

fn text(schema: &Value, prompted: &mut PromptWords) -> Value {
    let length = |name: &str| schema.get(name).and_then(Value::as_u64);
    let text = match schema.get("format").and_then(Value::as_str) {
        Some("date") => "2000-01-01".to_owned(),
        Some("time") => "00:00:00Z".to_owned(),
        Some("date-time") => "2000-01-01T00:00:00Z".to_owned(),
        Some("email") => "t0@example.org".to_owned(),
        Some("uri") => "https://example.org/".to_owned(),
        Some("uuid") => "00000000-0000-4000-8000-000000000000".to_owned(),
        _ => prompted.text().unwrap_or_else(|| "t0".to_owned()),
    };
    let count = |length: u64| usize::try_from(length).unwrap_or(MAX_TEXT).min(MAX_TEXT);
    let most = length("maxLength").map_or(usize::MAX, count);
    let missing = count(length("minLength").unwrap_or(0)).saturating_sub(text.chars().count());
    let padding = std::iter::repeat_n('x', missing);
    Value::String(text.chars().chain(padding).take(most).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(schema: &Value) -> Value {
        super::instance(schema, &mut PromptWords::default())
    }

    #[test]
    fn bounds_are_kept_and_the_prompts_words_are_used_where_they_fit() {
        let integer = |bounds: Value| instance(&bounds);
        for (bounds, fitting) in [
            (json!({"type": "integer", "exclusiveMinimum": -1000}), 0),
            (json!({"type": "integer", "exclusiveMinimum": 4}), 5),
            (json!({"type": "integer", "maximum": -3}), -3),
            (json!({"type": "integer", "minimum": 2, "exclusiveMaximum": 9}), 2),
        ] {
            assert_eq!(integer(bounds.clone()), json!(fitting), "{bounds}");
        }
        assert_eq!(instance(&json!({"type": "string", "maxLength": 1})), json!("t"));
        let schema = json!({"properties": {
            "a": {"type": "integer", "maximum": 9}, "b": {"type": "integer"}, "c": {"type": "string"}, "d": {"type": "string"},
        }});
        let document = super::instance(&schema, &mut PromptWords::read("10 times 'Ann'"));
        assert_eq!(document, json!({"a": 0, "b": 10, "c": "Ann", "d": "t0"}));
    }

    #[test]
    fn documents_fit_what_clients_generate() {
        let schema = json!({
            "type": "object",
            "properties": {
                "name": {"type": "string", "minLength": 4},
                "age": {"type": ["null", "integer"], "minimum": 18},
                "kind": {"enum": ["b", "a"]},
                "where": {"$ref": "#/$defs/Place"},
                "tags": {"type": "array", "items": {"type": "string"}, "minItems": 2},
                "maybe": {"anyOf": [{"type": "number"}, {"type": "null"}]},
                "day": {"type": "string", "format": "date"},
                "yes": {"type": "boolean"},
            },
            "$defs": {"Place": {"properties": {"city": {"type": "string"}}}},
        });
        assert_eq!(
            instance(&schema),
            json!({
                "name": "t0xx", "age": 18, "kind": "b", "where": {"city": "t0"}, "tags": ["t0", "t0"], "maybe": 0.5,
                "day": "2000-01-01", "yes": true,
            })
        );
    }

    #[test]
    fn recursion_ends_and_nonsense_is_no_harm() {
        let tree = json!({"type": "object", "properties": {"next": {"$ref": "#"}}});
        assert!(instance(&tree).is_object());
        for nonsense in [
            json!({"$ref": "#/nowhere"}),
            json!(7),
            json!({"type": 5}),
            json!({"enum": []}),
        ] {
            let _ = instance(&nonsense);
        }
    }
}
