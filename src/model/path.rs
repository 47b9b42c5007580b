//! JSON paths in two tiers.
//!
//! The *dotted* tier (`$.order.id`, `detail-type`, `$.items.0.sku`) is tidehook's own and covers
//! nearly every use: any character but the dot may be in a key. Text with brackets or `..` is an
//! RFC 9535 query and goes to a library, behind a guard that bounds length and nesting first.

use std::borrow::Cow;
use std::fmt::Write;

use serde_json::Value;
use serde_json_path::JsonPath;

/// The longest query text that is handed to the RFC 9535 parser.
pub const QUERY_BYTES_MAX: usize = 1024;
/// The deepest nesting of brackets and parentheses that is handed to it.
pub const QUERY_DEPTH_MAX: usize = 8;

/// A compiled path.
#[derive(Debug, Clone)]
pub struct Path {
    text: String,
    root: Root,
    tier: Tier,
}

/// What a path starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root {
    /// `$`: the payload.
    Payload,
    /// `$$`: what the engine knows about the event and the delivery.
    Context,
}

#[derive(Debug, Clone)]
enum Tier {
    Dotted(Vec<String>),
    Query(Box<JsonPath>),
}

/// What a path found.
#[derive(Debug, Clone)]
pub enum Found<'a> {
    /// Nothing.
    Missing,
    /// Exactly one value.
    One(Cow<'a, Value>),
    /// The values of a query that can select several, in document order.
    Many(Vec<&'a Value>),
}

impl Path {
    /// Compiles a path as written in a configuration.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() {
            return Err("a path cannot be empty; write it like `$.order.id`".into());
        }
        if text.len() > QUERY_BYTES_MAX {
            return Err(format!("a path may be {QUERY_BYTES_MAX} bytes long at most"));
        }
        let (root, rest) = match text.strip_prefix("$$") {
            Some(rest) => (Root::Context, rest.strip_prefix('.').unwrap_or(rest)),
            None => (Root::Payload, text.strip_prefix("$.").unwrap_or(text)),
        };
        let wants_query = root == Root::Payload && (rest.contains('[') || rest.contains("..") || rest.starts_with('.'));
        let tier = if wants_query {
            let query = match text.strip_prefix('$') {
                Some(_) => Cow::Borrowed(text),
                None => Cow::Owned(format!("$.{text}")),
            };
            Tier::Query(Box::new(compile_query(&query)?))
        } else if rest.is_empty() {
            Tier::Dotted(Vec::new())
        } else {
            Tier::Dotted(rest.split('.').map(str::to_owned).collect())
        };
        Ok(Self { text: text.to_owned(), root, tier })
    }

    /// Compiles text as an RFC 9535 query and nothing else.
    ///
    /// # Errors
    /// The text is no well-formed and valid query, or exceeds the guard's limits.
    pub fn rfc9535(text: &str) -> Result<Self, String> {
        Ok(Self { text: text.to_owned(), root: Root::Payload, tier: Tier::Query(Box::new(compile_query(text)?)) })
    }

    /// The path as written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What it starts from.
    pub fn root(&self) -> Root {
        self.root
    }

    /// Its keys from the root; `None` for a query that is more than keys.
    pub fn keys(&self) -> Option<&[String]> {
        match &self.tier {
            Tier::Dotted(keys) => Some(keys),
            Tier::Query(_) => None,
        }
    }

    /// What the path selects in a value.
    pub fn find<'a>(&self, value: &'a Value) -> Found<'a> {
        match &self.tier {
            // The bare `$` selects nothing in a payload, as it always did; `$$` is the whole context.
            Tier::Dotted(keys) if keys.is_empty() => Found::Missing,
            Tier::Dotted(keys) if keys.len() == 1 && keys[0] == "$" => Found::Missing,
            Tier::Dotted(keys) => match keys.iter().try_fold(value, |at, key| child(at, key)) {
                Some(found) => Found::One(Cow::Borrowed(found)),
                None => Found::Missing,
            },
            Tier::Query(query) => {
                let mut found = query.query(value).all();
                match found.len() {
                    0 => Found::Missing,
                    1 => Found::One(Cow::Borrowed(found.remove(0))),
                    _ => Found::Many(found),
                }
            }
        }
    }

    /// The one value the path selects, if it selects exactly one.
    pub fn one<'a>(&self, value: &'a Value) -> Option<Cow<'a, Value>> {
        match self.find(value) {
            Found::One(found) => Some(found),
            Found::Missing | Found::Many(_) => None,
        }
    }

    /// Every selected value with its normalized path (RFC 9535, section 2.7).
    pub fn located<'a>(&self, value: &'a Value) -> Vec<(String, &'a Value)> {
        match &self.tier {
            Tier::Dotted(keys) => match keys.iter().try_fold(value, |at, key| child(at, key)) {
                Some(found) => vec![(keys.iter().fold("$".to_owned(), |path, key| path + "." + key), found)],
                None => Vec::new(),
            },
            Tier::Query(query) => {
                let nodes = query.query_located(value).all();
                nodes.into_iter().map(|n| (normalized(&n), n.node())).collect()
            }
        }
    }
}

fn child<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    match value {
        Value::Object(map) => map.get(key),
        Value::Array(items) => items.get(key.parse::<usize>().ok()?),
        _ => None,
    }
}

/// Parse time and stack use are bounded here, whatever the library does.
fn compile_query(text: &str) -> Result<JsonPath, String> {
    if text.len() > QUERY_BYTES_MAX {
        return Err(format!("a path may be {QUERY_BYTES_MAX} bytes long at most"));
    }
    if nesting(text) > QUERY_DEPTH_MAX {
        return Err(format!("a path may nest brackets and parentheses {QUERY_DEPTH_MAX} deep at most"));
    }
    JsonPath::parse(text).map_err(|e| format!("`{text}` is no valid path (RFC 9535): {e}"))
}

fn nesting(text: &str) -> usize {
    let (mut depth, mut deepest) = (0usize, 0);
    for byte in text.bytes() {
        match byte {
            b'[' | b'(' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

fn normalized(node: &serde_json_path::LocatedNode<'_>) -> String {
    let mut path = String::from("$");
    for element in node.location().iter() {
        match (element.as_name(), element.as_index()) {
            (Some(name), _) => {
                path.push_str("['");
                for c in name.chars() {
                    escape(&mut path, c);
                }
                path.push_str("']");
            }
            (None, Some(index)) => {
                // Writing to a string cannot fail.
                let _ = write!(path, "[{index}]");
            }
            (None, None) => {}
        }
    }
    path
}

fn escape(path: &mut String, c: char) {
    match c {
        '\u{8}' => path.push_str("\\b"),
        '\t' => path.push_str("\\t"),
        '\n' => path.push_str("\\n"),
        '\u{c}' => path.push_str("\\f"),
        '\r' => path.push_str("\\r"),
        '\'' => path.push_str("\\'"),
        '\\' => path.push_str("\\\\"),
        c if c < ' ' => {
            let _ = write!(path, "\\u{:04x}", u32::from(c));
        }
        c => path.push(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn find(path: &str, value: &Value) -> Option<Value> {
        Path::parse(path).unwrap().one(value).map(Cow::into_owned)
    }

    #[test]
    fn dotted_paths_take_any_key_character_but_the_dot() {
        let doc = json!({"detail-type": 1, "@timestamp": 2, "a b": 3, "id": 4, "a": {"b": 5}, "0": 6});
        for (path, value) in
            [("$.detail-type", 1), ("$.@timestamp", 2), ("$.a b", 3), ("id", 4), ("$.a.b", 5), ("a.b", 5), ("$.0", 6)]
        {
            assert_eq!(find(path, &doc), Some(json!(value)), "{path}");
        }
        for path in ["$", "$.missing", "$.a.b.c", "$.a.x"] {
            assert_eq!(find(path, &doc), None, "{path}");
        }
    }

    #[test]
    fn arrays_are_indexed_in_both_spellings() {
        let doc = json!({"items": [{"id": 1}, {"id": 2}]});
        for path in ["$.items.0.id", "$.items[0].id", "items[-2].id"] {
            assert_eq!(find(path, &doc), Some(json!(1)), "{path}");
        }
        assert!(matches!(Path::parse("$.items[*].id").unwrap().find(&doc), Found::Many(v) if v.len() == 2));
        assert!(matches!(Path::parse("$..id").unwrap().find(&doc), Found::Many(v) if v.len() == 2));
        assert_eq!(find("$.items[?@.id == 2].id", &doc), Some(json!(2)));
    }

    #[test]
    fn queries_are_bounded_before_they_are_parsed() {
        assert!(Path::parse(&format!("$[?{}1{}]", "(".repeat(5000), ")".repeat(5000))).is_err());
        assert!(Path::parse(&format!("$.{}", "a".repeat(2000))).is_err());
        assert!(Path::parse("$.items[0").is_err());
        assert!(Path::parse("").is_err());
    }
}
