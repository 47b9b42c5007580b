//! Generates the JSON Schema of the configuration for editors from the list of keys.

use serde_json::{Map, Value, json};

use super::keys::{Keys, TOP, Takes};

/// The schema of a configuration file (draft 2020-12).
pub fn schema() -> Value {
    let mut schema = section(&TOP);
    if let Some(map) = schema.as_object_mut() {
        map.insert("$schema".into(), json!("https://json-schema.org/draft/2020-12/schema"));
        map.insert("title".into(), json!("tidehook configuration"));
    }
    schema
}

fn section(keys: &Keys) -> Value {
    let mut properties = Map::new();
    for key in keys.iter() {
        let mut value = takes(key.takes);
        if let Some(map) = value.as_object_mut() {
            map.insert("description".into(), json!(key.about));
        }
        properties.insert(key.name.to_owned(), value);
    }
    // Null sections load as empty, so `sources:` with nothing below it is fine.
    json!({ "type": ["object", "null"], "properties": properties, "additionalProperties": false })
}

/// The schema of a value. Most values may also be a text that is a variable.
fn takes(takes: Takes) -> Value {
    const VARIABLE: &str = r"\$\{[A-Za-z0-9_]+(:-[^}]*)?\}";
    let variable = || json!({ "type": "string", "pattern": VARIABLE });
    match takes {
        Takes::Text | Takes::Secret => json!({ "type": ["string", "number", "boolean", "null"] }),
        Takes::Url => json!({ "type": "string" }),
        Takes::Bool => json!({ "anyOf": [{ "type": ["boolean", "null"] }, variable()] }),
        Takes::Number(least, most) => {
            json!({ "anyOf": [
                { "type": ["integer", "null"], "minimum": least, "maximum": most }, variable(),
            ] })
        }
        Takes::Fraction(least, most) => {
            json!({ "anyOf": [
                { "type": ["number", "null"], "minimum": least, "maximum": most }, variable(),
            ] })
        }
        Takes::Duration => {
            json!({ "anyOf": [
                { "type": ["integer", "null"], "minimum": 0 },
                { "type": "string", "pattern": r"^\s*[0-9]+\s*(ms|s|m|h|d)?\s*$" }, variable(),
            ] })
        }
        Takes::OneOf(words) => {
            json!({ "anyOf": [{ "enum": words }, { "type": "null" }, variable()] })
        }
        Takes::Texts => {
            json!({ "anyOf": [
                { "type": "array", "items": { "type": ["string", "number", "boolean"] } },
                { "type": "null" }, variable(),
            ] })
        }
        Takes::OneOrMoreTexts => {
            json!({ "anyOf": [
                { "type": "string" }, { "type": "array", "items": { "type": "string" } },
                { "type": "null" },
            ] })
        }
        Takes::AnyOf(words) => {
            json!({ "anyOf": [
                { "type": "array", "items": { "enum": words } }, { "type": "null" }, variable(),
            ] })
        }
        Takes::TextMap => {
            json!({
                "type": ["object", "null"],
                "additionalProperties": { "type": ["string", "number", "boolean", "null"] },
            })
        }
        Takes::Template => json!({ "type": ["string", "object", "array", "null"] }),
        Takes::Section(keys) => section(keys),
        Takes::OneOrMore(keys) => {
            json!({ "anyOf": [section(keys), { "type": "array", "items": section(keys) }] })
        }
        Takes::Named(keys) => {
            json!({ "type": ["object", "null"], "additionalProperties": section(keys) })
        }
        Takes::Items(keys) => json!({ "type": ["array", "null"], "items": section(keys) }),
    }
}
