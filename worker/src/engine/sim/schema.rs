//! A document that fits a JSON schema: always the same one, and a small one. Pure.

use serde_json::{Map, Value, json};

/// Schemas nested deeper than this are taken for recursive; what is beyond becomes null.
const MAX_DEPTH: usize = 12;

/// A document that fits `schema`, for the parts of JSON Schema that clients generate: types, properties,
/// items, enums, constants, references into the schema, unions and bounds.
pub(super) fn instance(schema: &Value) -> Value {
    build(schema, schema, 0)
}

fn build(schema: &Value, root: &Value, depth: usize) -> Value {
    if depth > MAX_DEPTH {
        return Value::Null;
    }
    if let Some(there) = schema.get("$ref").and_then(Value::as_str) {
        let place = there.strip_prefix('#').and_then(|pointer| root.pointer(pointer));
        return place.map_or(Value::Null, |place| build(place, root, depth + 1));
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
            return build(first, root, depth + 1);
        }
    }
    match kind(schema) {
        "object" => object(schema, root, depth),
        "array" => {
            let least = schema.get("minItems").and_then(Value::as_u64).unwrap_or(1);
            let item = schema
                .get("items")
                .map_or(Value::Null, |items| build(items, root, depth + 1));
            Value::Array(vec![item; usize::try_from(least).unwrap_or(1).min(64)])
        }
        "string" => text(schema),
        "integer" => schema.get("minimum").cloned().unwrap_or(json!(0)),
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

fn object(schema: &Value, root: &Value, depth: usize) -> Value {
    let properties = schema.get("properties").and_then(Value::as_object);
    let members = properties.into_iter().flatten();
    let members: Map<String, Value> = members
        .map(|(name, property)| (name.clone(), build(property, root, depth + 1)))
        .collect();
    Value::Object(members)
}

fn text(schema: &Value) -> Value {
    let text = match schema.get("format").and_then(Value::as_str) {
        Some("date") => "2000-01-01",
        Some("time") => "00:00:00Z",
        Some("date-time") => "2000-01-01T00:00:00Z",
        Some("email") => "t0@example.org",
        Some("uri") => "https://example.org/",
        Some("uuid") => "00000000-0000-4000-8000-000000000000",
        _ => "t0",
    };
    let least = schema.get("minLength").and_then(Value::as_u64).unwrap_or(0);
    let missing = usize::try_from(least).unwrap_or(0).min(4096).saturating_sub(text.len());
    Value::String(format!("{text}{}", "x".repeat(missing)))
}

#[cfg(test)]
mod tests {
    use super::*;

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
