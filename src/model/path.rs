//! JSON paths in two tiers.
//!
//! The *dotted* tier (`$.order.id`, `detail-type`, `$.items.0.sku`) is tidehook's own and covers
//! nearly every use: any character but the dot may be in a key. Text with brackets or `..` is an
//! RFC 9535 query, behind a guard that bounds length and nesting first.

use std::borrow::Cow;

use super::json::Ref;
use super::json::query::Query;

/// The longest query text that the RFC 9535 parser accepts.
pub const QUERY_BYTES_MAX: usize = 1024;
/// The deepest nesting of brackets and parentheses that it accepts.
pub const QUERY_DEPTH_MAX: usize = 8;

/// A compiled path. It remembers its text, for messages.
#[derive(Debug, Clone)]
pub struct Path {
    text: String,
    root: Root,
    tier: Tier,
}

/// What a path starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root {
    /// `$`, or nothing in front: the payload of the event or of the step.
    Payload,
    /// `$$`: the context, which is what the engine knows about the event and the delivery.
    Context,
}

#[derive(Debug, Clone)]
enum Tier {
    Dotted(Vec<String>),
    Query(Box<Query>),
}

/// What a path selects in one value.
#[derive(Debug, Clone)]
pub enum Found<'a, One = Ref<'a>> {
    /// The path leads nowhere: a key or an index on the way does not exist.
    Missing,
    /// The value of a path that names one place.
    One(One),
    /// The values of a query that can select several, in document order. It stays a list even if it
    /// holds one value or none.
    Many(Vec<Ref<'a>>),
}

impl<'a, One> Found<'a, One> {
    /// Changes the form of a single value.
    pub fn map_one<Other>(self, change: impl FnOnce(One) -> Other) -> Found<'a, Other> {
        match self {
            Self::Missing => Found::Missing,
            Self::One(value) => Found::One(change(value)),
            Self::Many(values) => Found::Many(values),
        }
    }
}

impl Path {
    /// Compiles a path as written in a configuration.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() {
            return Err("a path must not be empty; write it like `$.order.id`".into());
        }
        if text.len() > QUERY_BYTES_MAX {
            return Err(format!("the path is too long: the limit is {QUERY_BYTES_MAX} bytes"));
        }
        let (root, rest) = match text.strip_prefix("$$") {
            Some(rest) => (Root::Context, rest.strip_prefix('.').unwrap_or(rest)),
            None => (Root::Payload, text.strip_prefix("$.").unwrap_or(text)),
        };
        let wants_query = root == Root::Payload
            && (rest.contains('[') || rest.contains("..") || rest.starts_with('.'));
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
        Ok(Self {
            text: text.to_owned(),
            root: Root::Payload,
            tier: Tier::Query(Box::new(compile_query(text)?)),
        })
    }

    /// The path as the configuration has it, without surrounding blanks.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the path reads the payload or the context.
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

    /// Whether the path names one place, so that it finds one value or nothing, and never a list.
    pub fn is_singular(&self) -> bool {
        match &self.tier {
            Tier::Dotted(_) => true,
            Tier::Query(query) => query.is_singular(),
        }
    }

    /// Whether it is the bare `$`. For compatibility it selects nothing in a payload.
    pub fn is_bare_root(&self) -> bool {
        self.root == Root::Payload
            && matches!(
                &self.tier,
                Tier::Dotted(keys) if keys.is_empty() || matches!(
                    keys.as_slice(), [key] if key == "$",
                ),
            )
    }

    /// What the path selects in a value.
    pub fn find<'a>(&self, value: Ref<'a>) -> Found<'a> {
        match &self.tier {
            Tier::Dotted(keys) if keys.is_empty() || self.is_bare_root() => Found::Missing,
            Tier::Dotted(keys) => match keys.iter().try_fold(value, |at, key| child(at, key)) {
                Some(found) => Found::One(found),
                None => Found::Missing,
            },
            Tier::Query(query) => {
                let mut found = query.select(value);
                match query.is_singular() {
                    true => found.pop().map_or(Found::Missing, Found::One),
                    false => Found::Many(found),
                }
            }
        }
    }

    /// The one value the path selects, if it selects exactly one.
    pub fn one<'a>(&self, value: Ref<'a>) -> Option<Ref<'a>> {
        match self.find(value) {
            Found::One(found) => Some(found),
            Found::Many(mut found) if found.len() == 1 => found.pop(),
            Found::Missing | Found::Many(_) => None,
        }
    }

    /// Every selected value with its normalized path (RFC 9535, section 2.7).
    pub fn located<'a>(&self, value: Ref<'a>) -> Vec<(String, Ref<'a>)> {
        match &self.tier {
            Tier::Dotted(keys) => match keys.iter().try_fold(value, |at, key| child(at, key)) {
                Some(found) => {
                    vec![(keys.iter().fold("$".to_owned(), |path, key| path + "." + key), found)]
                }
                None => Vec::new(),
            },
            Tier::Query(query) => query.locate(value),
        }
    }
}

fn child<'a>(value: Ref<'a>, key: &str) -> Option<Ref<'a>> {
    value.get(key).or_else(|| value.at(key.parse::<usize>().ok()?))
}

/// Compiles a query after checking its length and nesting, which bounds parse time and stack use.
fn compile_query(text: &str) -> Result<Query, String> {
    if text.len() > QUERY_BYTES_MAX {
        return Err(format!("the path is too long: the limit is {QUERY_BYTES_MAX} bytes"));
    }
    if nesting(text) > QUERY_DEPTH_MAX {
        return Err(format!(
            "brackets and parentheses in the path are nested too deeply: the limit is \
             {QUERY_DEPTH_MAX} levels"
        ));
    }
    Query::parse(text).map_err(|e| format!("`{text}` is not a valid path (RFC 9535): {e}"))
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn find(path: &str, value: &Value) -> Option<Value> {
        Path::parse(path).unwrap().one(Ref::Value(value)).map(Ref::to_value)
    }

    #[test]
    fn dotted_paths_take_any_key_character_but_the_dot() {
        let doc =
            json!({"detail-type": 1, "@timestamp": 2, "a b": 3, "id": 4, "a": {"b": 5}, "0": 6});
        for (path, value) in [
            ("$.detail-type", 1),
            ("$.@timestamp", 2),
            ("$.a b", 3),
            ("id", 4),
            ("$.a.b", 5),
            ("a.b", 5),
            ("$.0", 6),
        ] {
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
        assert!(matches!(
            Path::parse("$.items[*].id").unwrap().find(Ref::Value(&doc)),
            Found::Many(v) if v.len() == 2,
        ));
        assert!(matches!(
            Path::parse("$..id").unwrap().find(Ref::Value(&doc)),
            Found::Many(v) if v.len() == 2,
        ));
        assert_eq!(find("$.items[?@.id == 2].id", &doc), Some(json!(2)));
    }

    #[test]
    fn a_query_that_can_select_several_finds_a_list_whatever_their_number() {
        let doc = json!({"hosts": [{"sick": true}, {"sick": false}], "l": [1, 2]});
        for (path, number) in [
            ("$.hosts[?@.sick == true]", 1),
            ("$.hosts[?@.sick == 5]", 0),
            ("$.hosts[*]", 2),
            ("$.l[0:1]", 1),
        ] {
            let found = Path::parse(path).unwrap().find(Ref::Value(&doc)).clone();
            assert!(matches!(found, Found::Many(v) if v.len() == number), "{path}");
        }
        assert!(matches!(
            Path::parse("$.hosts[0].sick").unwrap().find(Ref::Value(&doc)),
            Found::One(_)
        ));
    }

    #[test]
    fn queries_compare_numbers_exactly() {
        let doc =
            json!([{"id": 1_152_921_504_606_846_976_u64}, {"id": 1_152_921_504_606_846_977_u64}]);
        let path = Path::parse("$[?@.id == 1152921504606846977]").unwrap();
        assert_eq!(path.one(Ref::Value(&doc)).map(Ref::to_value), Some(doc[1].clone()));
    }

    #[test]
    fn queries_are_bounded_before_they_are_parsed() {
        assert!(Path::parse(&format!("$[?{}1{}]", "(".repeat(5000), ")".repeat(5000))).is_err());
        assert!(Path::parse(&format!("$.{}", "a".repeat(2000))).is_err());
        assert!(Path::parse("$.items[0").is_err());
        assert!(Path::parse("").is_err());
    }
}
