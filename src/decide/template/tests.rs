use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn render(template: &str, payload: &Value) -> String {
    Template::text(template).unwrap().render(&Scope::over(payload)).unwrap().body
}

#[test]
fn placeholders_follow_their_place() {
    let payload = json!({"id": 7, "name": "Ada \"L\"", "ok": true, "nil": null, "o": {"a": [1]}});
    for (template, expected) in [
        (r#"{"id": {{$.id}}, "name": "{{ $.name }}"}"#, r#"{"id": 7, "name": "Ada \"L\""}"#),
        (r#"{"name": {{$.name}}}"#, r#"{"name": "Ada \"L\""}"#),
        (r#"{"x": "{{$.id}}-{{$.ok}}-{{$.nil}}-{{$.o}}"}"#, r#"{"x": "7-true-null-{\"a\":[1]}"}"#),
        (
            r#"{"x": {{$.o}}, "y": {{$.missing}}, "z": "{{$.missing}}"}"#,
            r#"{"x": {"a":[1]}, "y": null, "z": "null"}"#,
        ),
        (r#"{"x":{{$.o.a}}}"#, r#"{"x":[1]}"#),
        (r#"{"fixed": true}"#, r#"{"fixed": true}"#),
        ("{{$.o}}", r#"{"a":[1]}"#),
        ("Order {{$.id}} for {{$.name}}", "Order 7 for Ada \"L\""),
        ("open {{ id", "open {{ id"),
        (r#"{"n": "{{ $.name | upper | replace("\"", "") }}"}"#, r#"{"n": "ADA L"}"#),
        (r#"{"d": {{ $.missing | default("x") }}}"#, r#"{"d": "x"}"#),
    ] {
        assert_eq!(render(template, &payload), expected, "{template}");
    }
}

#[test]
fn what_a_placeholder_yields_is_never_scanned_again() {
    let payload = json!({"a": "{{$.a}}", "b": "${HOME} {{$.c}}", "c": "no"});
    assert_eq!(
        render(r#"{"x": "{{$.a}}{{$.b}}"}"#, &payload),
        r#"{"x": "{{$.a}}${HOME} {{$.c}}"}"#
    );
}

#[test]
fn a_value_cannot_break_out_of_its_string() {
    let payload = json!({"v": "\",\"admin\":true,\"x\":\""});
    let body: Value = serde_json::from_str(&render(r#"{"v": "{{$.v}}"}"#, &payload)).unwrap();
    assert_eq!(body, payload);
}

#[test]
fn the_mapping_form_keeps_types() {
    let mapping = json!({"id": "{{$.id}}", "text": "no {{$.id}}", "fixed": 5, "list": ["{{$.o}}"]});
    let payload = json!({"id": 7, "o": {"a": 1}});
    let body = Template::mapping(&mapping).unwrap().render(&Scope::over(&payload)).unwrap().body;
    assert_eq!(
        serde_json::from_str::<Value>(&body).unwrap(),
        json!({"id": 7, "text": "no 7", "fixed": 5, "list": [{"a": 1}]})
    );
}

#[test]
fn what_is_missing_is_reported() {
    let rendered =
        Template::text("{\"a\": {{$.x}}}").unwrap().render(&Scope::over(&json!({}))).unwrap();
    assert_eq!(rendered.missing, ["$.x"]);
}

#[test]
fn mistakes_are_found_when_the_template_is_read() {
    for text in [
        "{{ $ }}",
        "{{ $.a * 2 }}",
        "{{ $.a + $.b }}",
        "{{ $.a == 1 ? 'y' : 'n' }}",
        "{{ }}",
        "{{ $.a | uper }}",
        "{{ $.a | default( }}",
        "{{ $.items[ }}",
        "{{ join($.a) }}",
    ] {
        assert!(Template::text(text).is_err(), "{text}");
    }
    assert!(!Template::text("{\"a\": {{x}").unwrap().is_json());
}

proptest! {
    #[test]
    fn a_json_template_always_yields_json(text in "\\PC{0,40}", key in "\\PC{0,10}") {
        let payload = json!({"v": text, "k": key, "o": {"t": text}});
        let body = render(
            r#"{"{{$.k}}": "{{$.v}}", "b": {{$.v}}, "o": {{$.o}}, "s": "{{$.o}}"}"#, &payload,
        );
        prop_assert!(serde_json::from_str::<Value>(&body).is_ok(), "{}", body);
    }

    #[test]
    fn no_text_panics(text in "[{}$.a-z|\"()\\[\\] é]{0,40}") {
        if let Ok(template) = Template::text(&text) {
            let payload = json!({"a": 1});
            let rendered = template.render(&Scope::over(&payload));
            if let (true, Ok(rendered)) = (template.is_json(), rendered) {
                prop_assert!(
                    serde_json::from_str::<Value>(&rendered.body).is_ok(), "{} -> {}", text,
                    rendered.body,
                );
            }
        }
    }
}
