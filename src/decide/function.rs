//! The functions that templates and conditions may call.
//!
//! [`FUNCTIONS`] lists them, one line each. Results follow the intrinsic functions of the Amazon
//! States Language where it has one of the same meaning. A `null` first argument gives `null`; only
//! `default` and `coalesce` handle missing values.

use std::fmt::Write;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Number, Value};
use sha2::Digest;

use super::operand::Scope;
use crate::model::Timestamp;
use crate::model::json::doc::number as number_of;
use crate::model::json::{self, Ref};
use crate::model::time::parse_duration;

/// No function makes a text or list larger than this.
pub const OUTPUT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// `range` gives this many numbers at most.
const RANGE_MAX: usize = 1000;

type Args<'a> = &'a [Option<Value>];
type Answer = Result<Option<Value>, String>;

/// A function that expressions may call.
pub struct Function {
    /// The name that expressions call it by.
    pub name: &'static str,
    /// The least and the most arguments it takes, a piped value included.
    pub args: (usize, usize),
    /// Computes the result from the arguments. `Ok(None)` means that there is no value; `Err` is a
    /// sentence for people.
    pub apply: fn(Args<'_>, &Scope<'_>) -> Answer,
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// Every function that templates and conditions may call. `find` looks names up here.
pub static FUNCTIONS: &[Function] = &[
    Function {
        name: "default",
        args: (2, 2),
        apply: |a, _| Ok(present(a, 0).or(a[1].as_ref()).cloned()),
    },
    Function {
        name: "coalesce",
        args: (1, 16),
        apply: |a, _| Ok((0..a.len()).find_map(|i| present(a, i)).cloned()),
    },
    Function {
        name: "json",
        args: (1, 1),
        apply: |a, _| Ok(Some(Value::String(any(a, 0).to_string()))),
    },
    Function {
        name: "parse",
        args: (1, 1),
        apply: |a, _| {
            on_text(a, |s| {
                json::value_of(s).map_err(|why| format!("parse: the string is not JSON: {why}"))
            })
        },
    },
    Function {
        name: "string",
        args: (1, 1),
        apply: |a, _| Ok(present(a, 0).map(|v| Value::String(text_of(v)))),
    },
    Function { name: "number", args: (1, 1), apply: number },
    Function {
        name: "upper",
        args: (1, 1),
        apply: |a, _| on_text(a, |s| Ok(Value::String(s.to_uppercase()))),
    },
    Function {
        name: "lower",
        args: (1, 1),
        apply: |a, _| on_text(a, |s| Ok(Value::String(s.to_lowercase()))),
    },
    Function {
        name: "trim",
        args: (1, 1),
        apply: |a, _| on_text(a, |s| Ok(Value::String(s.trim().to_owned()))),
    },
    Function { name: "split", args: (2, 2), apply: split },
    Function { name: "join", args: (2, 2), apply: join },
    Function { name: "replace", args: (3, 3), apply: replace },
    Function { name: "length", args: (1, 1), apply: length },
    Function { name: "contains", args: (2, 2), apply: contains },
    Function { name: "unique", args: (1, 1), apply: unique },
    Function { name: "range", args: (2, 3), apply: range },
    Function { name: "partition", args: (2, 2), apply: partition },
    Function { name: "get", args: (2, 2), apply: get },
    Function { name: "merge", args: (2, 2), apply: merge },
    Function {
        name: "base64",
        args: (1, 1),
        apply: |a, _| on_text(a, |s| Ok(Value::String(STANDARD.encode(s)))),
    },
    Function { name: "base64_decode", args: (1, 1), apply: |a, _| on_text(a, base64_decode) },
    Function { name: "hash", args: (1, 2), apply: hash },
    Function { name: "uuid", args: (0, 0), apply: |_, scope| Ok(Some(Value::String(uuid(scope)))) },
    Function { name: "now", args: (0, 1), apply: now },
    Function { name: "date_add", args: (2, 2), apply: date_add },
    Function { name: "add", args: (2, 2), apply: add },
    Function { name: "random", args: (0, 1), apply: random },
    Function { name: "format", args: (1, 16), apply: format_text },
    Function {
        name: "url_encode",
        args: (1, 1),
        apply: |a, _| on_text(a, |s| Ok(Value::String(url_encode(s)))),
    },
];

/// Finds a function by its name.
///
/// # Errors
/// A sentence, with the most similar name where there is one.
pub fn find(name: &str) -> Result<&'static Function, String> {
    if let Some(function) = FUNCTIONS.iter().find(|f| f.name == name) {
        return Ok(function);
    }
    if name.is_empty() {
        return Err(
            "write one `|` with a function after it; for a missing value, write `| default(x)`"
                .to_owned(),
        );
    }
    let nearest =
        FUNCTIONS.iter().map(|f| (strsim::damerau_levenshtein(f.name, name), f.name)).min();
    let hint = nearest
        .filter(|(far, _)| *far <= 2)
        .map_or(String::new(), |(_, n)| format!("; did you mean `{n}`?"));
    Err(format!("unknown function `{name}`{hint}"))
}

/// A text as it is, and any other value as JSON.
pub fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Percent-encodes everything but the unreserved characters of RFC 3986.
pub fn url_encode(text: &str) -> String {
    const KEEP: percent_encoding::AsciiSet =
        percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    percent_encoding::utf8_percent_encode(text, &KEEP).to_string()
}

fn any<'a>(args: Args<'a>, at: usize) -> &'a Value {
    args.get(at).and_then(Option::as_ref).unwrap_or(&Value::Null)
}

/// Returns an argument; `None` when it is missing or null.
fn present<'a>(args: Args<'a>, at: usize) -> Option<&'a Value> {
    args.get(at).and_then(Option::as_ref).filter(|v| !v.is_null())
}

fn on_text(args: Args<'_>, f: impl Fn(&str) -> Result<Value, String>) -> Answer {
    match present(args, 0) {
        None => Ok(None),
        Some(value @ (Value::Array(_) | Value::Object(_))) => {
            Err(format!("expected a string, got {}", kind(value)))
        }
        Some(value) => f(&text_of(value)).map(Some),
    }
}

fn text_arg(args: Args<'_>, at: usize, name: &str) -> Result<String, String> {
    match present(args, at) {
        Some(Value::String(text)) => Ok(text.clone()),
        other => Err(format!(
            "{name}: argument {} must be a string, got {}",
            at + 1,
            other.map_or("nothing", kind)
        )),
    }
}

fn array_arg<'a>(args: Args<'a>, name: &str) -> Result<&'a [Value], String> {
    match present(args, 0) {
        Some(Value::Array(items)) => Ok(items),
        other => Err(format!("{name}: expected an array, got {}", other.map_or("nothing", kind))),
    }
}

fn integer_arg(args: Args<'_>, at: usize, name: &str) -> Result<i64, String> {
    any(args, at)
        .as_i64()
        .ok_or_else(|| format!("{name}: argument {} must be a whole number", at + 1))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn number(args: Args<'_>, _: &Scope<'_>) -> Answer {
    match present(args, 0) {
        None => Ok(None),
        Some(Value::Number(n)) => Ok(Some(Value::Number(n.clone()))),
        Some(Value::String(text)) => match json::value_of(text.trim()) {
            Ok(Value::Number(n)) => Ok(Some(Value::Number(n))),
            _ => Err(format!("number: `{}` is not a number", short(text))),
        },
        Some(other) => Err(format!("number: cannot turn {} into a number", kind(other))),
    }
}

fn split(args: Args<'_>, _: &Scope<'_>) -> Answer {
    let by = text_arg(args, 1, "split")?;
    on_text(args, |s| {
        let parts = if by.is_empty() { vec![s] } else { s.split(by.as_str()).collect() };
        Ok(Value::Array(parts.into_iter().map(|p| Value::String(p.to_owned())).collect()))
    })
}

fn join(args: Args<'_>, _: &Scope<'_>) -> Answer {
    let by = text_arg(args, 1, "join")?;
    let items: Vec<String> = array_arg(args, "join")?.iter().map(text_of).collect();
    let bytes = items.iter().map(String::len).sum::<usize>() + by.len().saturating_mul(items.len());
    bounded(bytes)?;
    Ok(Some(Value::String(items.join(&by))))
}

fn replace(args: Args<'_>, _: &Scope<'_>) -> Answer {
    let (from, to) = (text_arg(args, 1, "replace")?, text_arg(args, 2, "replace")?);
    on_text(args, |s| {
        if from.is_empty() {
            return Ok(Value::String(s.to_owned()));
        }
        bounded(s.len() + s.matches(from.as_str()).count().saturating_mul(to.len()))?;
        Ok(Value::String(s.replace(from.as_str(), &to)))
    })
}

fn length(args: Args<'_>, _: &Scope<'_>) -> Answer {
    match present(args, 0) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(Value::from(text.chars().count()))),
        Some(Value::Array(items)) => Ok(Some(Value::from(items.len()))),
        Some(Value::Object(map)) => Ok(Some(Value::from(map.len()))),
        Some(other) => Err(format!("length: {} has no length", kind(other))),
    }
}

fn contains(args: Args<'_>, _: &Scope<'_>) -> Answer {
    Ok(present(args, 0).map(|haystack| {
        Value::Bool(match haystack {
            Value::Array(items) => {
                items.iter().any(|item| Ref::Value(item).equals(Ref::Value(any(args, 1))))
            }
            Value::Object(map) => map.contains_key(&text_of(any(args, 1))),
            other => text_of(other).contains(&text_of(any(args, 1))),
        })
    }))
}

fn unique(args: Args<'_>, _: &Scope<'_>) -> Answer {
    let mut seen = std::collections::HashSet::new();
    let items =
        array_arg(args, "unique")?.iter().filter(|v| seen.insert(Ref::Value(v).canonical()));
    Ok(Some(Value::Array(items.cloned().collect())))
}

fn range(args: Args<'_>, _: &Scope<'_>) -> Answer {
    let (first, last) = (integer_arg(args, 0, "range")?, integer_arg(args, 1, "range")?);
    let step = if args.len() > 2 { integer_arg(args, 2, "range")? } else { 1 };
    if step == 0 {
        return Err("range: the step cannot be 0".into());
    }
    let mut items = Vec::new();
    let mut at = first;
    while (step > 0 && at <= last) || (step < 0 && at >= last) {
        if items.len() == RANGE_MAX {
            return Err(format!("range: the result has more than {RANGE_MAX} numbers"));
        }
        items.push(Value::from(at));
        match at.checked_add(step) {
            Some(next) => at = next,
            None => break,
        }
    }
    Ok(Some(Value::Array(items)))
}

fn partition(args: Args<'_>, _: &Scope<'_>) -> Answer {
    let size = usize::try_from(integer_arg(args, 1, "partition")?).ok().filter(|n| *n > 0);
    let size = size.ok_or("partition: the size must be at least 1")?;
    let parts = array_arg(args, "partition")?.chunks(size).map(|c| Value::Array(c.to_vec()));
    Ok(Some(Value::Array(parts.collect())))
}

fn get(args: Args<'_>, _: &Scope<'_>) -> Answer {
    Ok(match present(args, 0) {
        Some(Value::Array(items)) => {
            let at = integer_arg(args, 1, "get")?;
            let at = if at < 0 {
                at.saturating_add(i64::try_from(items.len()).unwrap_or(i64::MAX))
            } else {
                at
            };
            usize::try_from(at).ok().and_then(|i| items.get(i)).cloned()
        }
        Some(Value::Object(map)) => map.get(&text_of(any(args, 1))).cloned(),
        _ => None,
    })
}

fn merge(args: Args<'_>, _: &Scope<'_>) -> Answer {
    let mut merged = Map::new();
    for at in 0..2 {
        match present(args, at) {
            None => {}
            Some(Value::Object(map)) => {
                merged.extend(map.iter().map(|(k, v)| (k.clone(), v.clone())))
            }
            Some(other) => {
                return Err(format!(
                    "merge: argument {} must be an object, got {}",
                    at + 1,
                    kind(other)
                ));
            }
        }
    }
    Ok(Some(Value::Object(merged)))
}

fn base64_decode(text: &str) -> Result<Value, String> {
    let bytes =
        STANDARD.decode(text).map_err(|_| "base64_decode: the string is not base64".to_owned())?;
    String::from_utf8(bytes)
        .map(Value::String)
        .map_err(|_| "base64_decode: the bytes are not UTF-8".into())
}

fn hash(args: Args<'_>, _: &Scope<'_>) -> Answer {
    let algorithm = if args.len() > 1 { text_arg(args, 1, "hash")? } else { "sha256".into() };
    on_text(args, |s| {
        Ok(Value::String(match algorithm.as_str() {
            "sha256" => hex::encode(sha2::Sha256::digest(s)),
            "sha512" => hex::encode(sha2::Sha512::digest(s)),
            "sha1" => hex::encode(sha1::Sha1::digest(s)),
            other => {
                return Err(format!(
                    "hash: unknown algorithm `{other}`: expected sha1, sha256 or sha512"
                ));
            }
        }))
    })
}

/// Derives sixteen bytes from the scope's seed. Each call gives other bytes, and a repeated
/// evaluation gives the same ones.
fn draw(scope: &Scope<'_>, salt: &str) -> [u8; 16] {
    let turn = scope.drawn.get();
    scope.drawn.set(turn + 1);
    let digest = sha2::Sha256::digest(format!("{}/{turn}/{salt}", scope.seed));
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    bytes
}

fn uuid(scope: &Scope<'_>) -> String {
    let mut bytes = draw(scope, "uuid");
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = hex::encode(bytes);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

fn random(args: Args<'_>, scope: &Scope<'_>) -> Answer {
    let bytes = match present(args, 0) {
        Some(seed) => {
            let fixed = Scope { seed: scope.seed, ..Scope::over(&Value::Null) };
            draw(&fixed, &seed.to_string())
        }
        None => draw(scope, "random"),
    };
    let mut first = [0; 8];
    first.copy_from_slice(&bytes[..8]);
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit a double exactly")]
    let fraction = (u64::from_le_bytes(first) >> 11) as f64 / (1u64 << 53) as f64;
    Ok(Some(Value::from(fraction)))
}

fn now(args: Args<'_>, scope: &Scope<'_>) -> Answer {
    let text = if args.is_empty() {
        scope.now.rfc3339()
    } else {
        let pattern = text_arg(args, 0, "now")?;
        scope
            .now
            .format(&pattern)
            .ok_or_else(|| format!("now: `{}` is not a date format", short(&pattern)))?
    };
    Ok(Some(Value::String(text)))
}

fn date_add(args: Args<'_>, _: &Scope<'_>) -> Answer {
    let by = text_arg(args, 1, "date_add")?;
    let (negative, by) = match by.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, by.as_str()),
    };
    let span = parse_duration(by)?;
    on_text(args, |s| {
        let at = Timestamp::parse(s)
            .ok_or_else(|| format!("date_add: `{}` is not a timestamp", short(s)))?;
        let moved = if negative { at.minus(span) } else { at.plus(span) };
        Ok(Value::String(moved.rfc3339()))
    })
}

fn add(args: Args<'_>, _: &Scope<'_>) -> Answer {
    let (a, b) = (any(args, 0), any(args, 1));
    let whole = |value: &Value| {
        value.as_number().and_then(|number| number.to_string().parse::<i128>().ok())
    };
    if let (Some(x), Some(y)) = (whole(a), whole(b))
        && let Some(sum) = x.checked_add(y)
    {
        return Ok(Some(Value::Number(number_of(&sum.to_string()))));
    }
    match (a.as_f64(), b.as_f64()) {
        (Some(x), Some(y)) => Ok(Number::from_f64(x + y).map(Value::Number)),
        _ => Err("add: both arguments must be numbers".into()),
    }
}

fn format_text(args: Args<'_>, _: &Scope<'_>) -> Answer {
    let pattern = text_arg(args, 0, "format")?;
    let mut text = String::new();
    let mut pieces = pattern.split("{}");
    text.push_str(pieces.next().unwrap_or(""));
    let mut at = 0;
    for piece in pieces {
        at += 1;
        if at >= args.len() {
            return Err(format!("format: `{}` has more {{}} than values", short(&pattern)));
        }
        // Writing to a string cannot fail.
        let _ = write!(text, "{}{piece}", text_of(any(args, at)));
        bounded(text.len())?;
    }
    Ok(Some(Value::String(text)))
}

fn bounded(bytes: usize) -> Result<(), String> {
    if bytes > OUTPUT_BYTES_MAX {
        Err(format!("the result would be larger than {OUTPUT_BYTES_MAX} bytes"))
    } else {
        Ok(())
    }
}

fn short(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::operand::Operand;
    use serde_json::json;

    fn call(text: &str) -> Result<Option<Value>, String> {
        let payload = json!({
            "name": "Ada",
            "items": [1, 2, 2, 3],
            "o": {"a": 1},
            "none": null,
            "at": "2026-01-31T10:00:00Z",
        });
        let operand = Operand::parse(text, true).unwrap();
        let scope = Scope { now: Timestamp(1_769_853_600_000), seed: 7, ..Scope::over(&payload) };
        operand.value(&scope).map(super::super::operand::Evaluated::into_value)
    }

    #[test]
    fn each_function_answers_as_documented() {
        let cases = [
            ("default($.missing, \"x\")", json!("x")),
            ("default($.none, 5)", json!(5)),
            ("coalesce($.missing, $.none, $.name)", json!("Ada")),
            ("json($.o)", json!("{\"a\":1}")),
            ("parse(\"[1,2]\")", json!([1, 2])),
            ("string(5)", json!("5")),
            ("number(\"5.5\")", json!(5.5)),
            ("upper($.name)", json!("ADA")),
            ("trim(\"  a \")", json!("a")),
            ("split(\"a,b\", \",\")", json!(["a", "b"])),
            ("join($.items, \"-\")", json!("1-2-2-3")),
            ("replace(\"aXa\", \"X\", \"y\")", json!("aya")),
            ("length($.items)", json!(4)),
            ("contains($.items, 3)", json!(true)),
            ("unique($.items)", json!([1, 2, 3])),
            ("range(1, 5, 2)", json!([1, 3, 5])),
            ("partition($.items, 3)", json!([[1, 2, 2], [3]])),
            ("get($.items, -1)", json!(3)),
            ("merge($.o, parse(\"{\\\"b\\\":2}\"))", json!({"a": 1, "b": 2})),
            ("base64(\"hi\")", json!("aGk=")),
            ("base64_decode(\"aGk=\")", json!("hi")),
            ("hash(\"\", \"sha1\")", json!("da39a3ee5e6b4b0d3255bfef95601890afd80709")),
            ("now(\"%Y\")", json!("2026")),
            ("date_add($.at, \"90m\")", json!("2026-01-31T11:30:00.000Z")),
            ("add(1, 2)", json!(3)),
            ("json(add(100000000000000000001, 1))", json!("100000000000000000002")),
            ("contains(parse(\"[1.0]\"), 1)", json!(true)),
            (
                "json(unique(parse(\"[1, 1.0, 100000000000000000001, 100000000000000000002]\")))",
                json!("[1,100000000000000000001,100000000000000000002]"),
            ),
            ("format(\"{} is {}\", $.name, 5)", json!("Ada is 5")),
            ("url_encode(\"a b/ü\")", json!("a%20b%2F%C3%BC")),
        ];
        for (text, expected) in cases {
            assert_eq!(call(text).unwrap(), Some(expected), "{text}");
        }
        assert_eq!(call("upper($.missing)").unwrap(), None);
    }

    #[test]
    fn chance_is_the_same_on_each_repeat() {
        assert_eq!(call("uuid()").unwrap(), call("uuid()").unwrap());
        assert_eq!(call("random(3)").unwrap(), call("random(3)").unwrap());
    }

    #[test]
    fn bad_arguments_are_errors_not_panics() {
        for text in [
            "number(\"x\")",
            "range(1, 100000)",
            "range(1, 2, 0)",
            "join(5, \",\")",
            "partition($.items, 0)",
            "now(\"%Q%!\")",
            "date_add(\"never\", \"1h\")",
        ] {
            assert!(call(text).is_err(), "{text}");
        }
        assert!(find("uper").unwrap_err().contains("did you mean `upper`"));
        assert!(Operand::parse("upper()", true).is_err());
    }
}
