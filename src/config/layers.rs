//! Overlays, variables (`${VAR}`) and secrets by reference: what happens to the parsed text before
//! sections are read.

use std::collections::{BTreeMap, BTreeSet};

use super::mask::STARS;
use super::problem::{Problem, Problems, Severity};
use super::tree::{self, Node, Scalar, Value};

/// The kinds of secret by reference: what may stand before the colon in `${kind:where}`.
const REFERENCES: [&str; 3] = ["ssm", "secretsmanager", "file"];

/// Variables by name: those of the process, of `.env` files, and resolved secrets by their
/// reference.
pub type Variables = BTreeMap<String, String>;

/// Puts an overlay over a base: mappings merge, everything else is replaced.
pub fn merge(base: Node, overlay: Node) -> Node {
    let base_place = base.place;
    match (base.value, overlay.value) {
        (Value::Map(mut entries), Value::Map(over)) => {
            for (key, node) in over {
                match entries.iter_mut().find(|(k, _)| k.text == key.text) {
                    Some((_, old)) => {
                        let base = std::mem::replace(old, Node::null(key.place));
                        *old = merge(base, node);
                    }
                    None => entries.push((key, node)),
                }
            }
            Node { value: Value::Map(entries), place: base.place }
        }
        // A section without anything in it, and a file of comments, change nothing.
        (base @ (Value::Map(_) | Value::List(_)), Value::Null) => {
            Node { value: base, place: base_place }
        }
        (_, value) => Node { value, place: overlay.place },
    }
}

/// Replaces `${VAR}` and `${VAR:-default}` inside scalars, once.
///
/// The value of a variable is data: it is neither read as YAML nor expanded again. There is one
/// exception: under a key that takes a list or a mapping, an unquoted scalar that is exactly one
/// variable may hold a flow list or mapping ([`flow_value`]).
///
/// `${kind:where}` is a secret by reference. Its value is in `variables` under that name, or the
/// reason why there is none is in `failed`.
pub fn expand(node: &mut Node, variables: &Variables, failed: &Variables, problems: &mut Problems) {
    match &mut node.value {
        Value::Null => {}
        Value::List(items) => items.iter_mut().for_each(|n| expand(n, variables, failed, problems)),
        Value::Map(entries) => {
            entries.iter_mut().for_each(|(_, n)| expand(n, variables, failed, problems))
        }
        Value::Scalar(scalar) => {
            if let Err((code, message)) = expand_scalar(scalar, variables, failed) {
                let help = "write `${NAME}` or `${NAME:-default}`; for a literal `${`, write `$${`"
                    .to_owned();
                problems.push(Problem {
                    severity: Severity::Error,
                    code,
                    place: Some(node.place),
                    key: String::new(),
                    message,
                    help: (code == "bad_variable").then_some(help),
                });
            }
            // An unquoted scalar that becomes empty is null: the key counts as absent. Which
            // variable was missing is remembered, because some keys may not be absent for that
            // reason.
            if scalar.plain && scalar.text.is_empty() && scalar.unset.is_empty() {
                node.value = Value::Null;
            }
        }
    }
}

fn expand_scalar(
    scalar: &mut Scalar,
    variables: &Variables,
    failed: &Variables,
) -> Result<(), (&'static str, String)> {
    let mut out = String::with_capacity(scalar.text.len());
    let (mut shown, mut holds_value) = (String::new(), false);
    for (is_variable, piece) in tree::pieces(&scalar.text) {
        if !is_variable {
            let text = piece.replace("$${", "${");
            out.push_str(&text);
            shown.push_str(&text);
            continue;
        }
        let (name, default) = named(&piece);
        if !is_reference(name)
            && (name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
        {
            return Err(("bad_variable", format!("`{piece}` is not a valid variable reference")));
        }
        // A default serves where there is nobody to ask, and never in place of an
        // answer that was refused.
        if let Some(why) = failed.get(name) {
            return Err(("unresolved_reference", format!("`{piece}` cannot be resolved: {why}")));
        }
        if is_reference(name) && default.is_none() && !variables.contains_key(name) {
            return Err((
                "unresolved_reference",
                format!("`{piece}` cannot be resolved: {}", unresolved_message(name)),
            ));
        }
        let value = variables.get(name).map(String::as_str).filter(|v| !v.is_empty());
        match (value, default) {
            (Some(value), _) => {
                out.push_str(value);
                shown.push_str(STARS);
                holds_value = true;
            }
            (None, Some(default)) => {
                out.push_str(default);
                shown.push_str(default);
            }
            (None, None) => scalar.unset.push(name.to_owned()),
        }
    }
    scalar.text = out;
    scalar.shown = holds_value.then_some(shown);
    Ok(())
}

/// Splits `${NAME:-default}` into its name and its default, if it has one.
fn named(piece: &str) -> (&str, Option<&str>) {
    let inner = &piece[2..piece.len() - 1];
    match inner.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inner, None),
    }
}

/// The message for a reference that cannot be resolved because there is no file, or
/// nobody to ask.
pub fn unresolved_message(name: &str) -> String {
    match name.strip_prefix("file:") {
        Some(path) => format!("the file {path} does not exist"),
        None => "AWS is not available: the AWS Parameters and Secrets extension is not running, \
            and tidehook calls AWS directly only if AWS_REGION is set and credentials are found; \
            set both, or add a default: `${…:-text}`"
            .to_owned(),
    }
}

/// Whether the name in `${…}` is a secret by reference and not a variable.
fn is_reference(name: &str) -> bool {
    name.split_once(':')
        .is_some_and(|(kind, place)| REFERENCES.contains(&kind) && !place.is_empty())
}

/// The secrets by reference that a tree holds.
pub fn references(node: &Node) -> BTreeSet<String> {
    names_in(node).into_iter().filter(|name| is_reference(name)).collect()
}

/// The names of the variables that a tree uses.
pub fn variables_of(node: &Node) -> BTreeSet<String> {
    names_in(node).into_iter().filter(|name| !is_reference(name)).collect()
}

/// The name in every `${…}` of a tree, without its default: variables and references.
fn names_in(node: &Node) -> Vec<String> {
    match &node.value {
        Value::Null => Vec::new(),
        Value::List(items) => items.iter().flat_map(names_in).collect(),
        Value::Map(entries) => entries.iter().flat_map(|(_, n)| names_in(n)).collect(),
        Value::Scalar(scalar) => {
            let names =
                tree::pieces(&scalar.text).into_iter().filter(|(is_variable, _)| *is_variable);
            names.map(|(_, piece)| named(&piece).0.to_owned()).collect()
        }
    }
}

/// The secrets by reference that the value of a variable holds.
pub fn references_in(value: &str) -> BTreeSet<String> {
    pieces_of(value).filter_map(|(_, name)| Some(name?.0.to_owned())).collect()
}

/// Sorts the answers to references: values are put into `variables`, reasons for a failure into
/// `failed`. A reference that nobody could answer ends up in neither.
pub fn sort_answers(
    answers: BTreeMap<String, Result<Option<String>, String>>,
    variables: &mut Variables,
    failed: &mut Variables,
) {
    for (name, answer) in answers {
        match answer {
            Ok(Some(value)) => drop(variables.insert(name, value)),
            Ok(None) => {}
            Err(why) => drop(failed.insert(name, why)),
        }
    }
}

/// The value of a variable with its references resolved. All other text in it stays as it is, also
/// `${…}`.
///
/// # Errors
/// A reference cannot be resolved; the message says why.
pub fn with_values(
    value: &str,
    variables: &Variables,
    failed: &Variables,
) -> Result<String, String> {
    let mut out = String::with_capacity(value.len());
    for (piece, reference) in pieces_of(value) {
        let Some((name, default)) = reference else {
            out.push_str(piece);
            continue;
        };
        if let Some(why) = failed.get(name) {
            return Err(why.clone());
        }
        out.push_str(
            variables
                .get(name)
                .map(String::as_str)
                .or(default)
                .ok_or_else(|| unresolved_message(name))?,
        );
    }
    Ok(out)
}

/// Splits a value into texts and references; a reference comes with its name and its default.
fn pieces_of(mut text: &str) -> impl Iterator<Item = (&str, Option<(&str, Option<&str>)>)> {
    std::iter::from_fn(move || {
        if text.is_empty() {
            return None;
        }
        let at = text.match_indices("${").find_map(|(at, _)| {
            let length = text[at..].find('}')? + 1;
            let (name, default) = named(&text[at..at + length]);
            is_reference(name).then_some((at, length, (name, default)))
        });
        match at {
            Some((0, length, reference)) => {
                let (piece, rest) = text.split_at(length);
                text = rest;
                Some((piece, Some(reference)))
            }
            at => {
                let (piece, rest) = text.split_at(at.map_or(text.len(), |(at, _, _)| at));
                text = rest;
                Some((piece, None))
            }
        }
    })
}

/// The flow list or mapping (`[a, b]`, `{a: 1}`) that an unquoted scalar holds after expansion, if
/// it holds one.
pub fn flow_value(node: &Node) -> Option<Node> {
    let Value::Scalar(Scalar { text, plain: true, .. }) = &node.value else { return None };
    let text = text.trim();
    if !text.starts_with(['[', '{']) {
        return None;
    }
    let mut parsed = tree::parse(text, node.place.file).ok()?;
    put(&mut parsed, node);
    Some(parsed)
}

/// Gives all nodes that came out of a variable the place of that variable.
fn put(node: &mut Node, at: &Node) {
    node.place = at.place;
    match &mut node.value {
        Value::Null => {}
        // What came out of a variable is never expanded: its `${` is text.
        Value::Scalar(scalar) => {
            scalar.text = tree::pieces(&scalar.text).into_iter().map(|(_, t)| t).collect()
        }
        Value::List(items) => items.iter_mut().for_each(|n| put(n, at)),
        Value::Map(entries) => entries.iter_mut().for_each(|(key, n)| {
            key.place = at.place;
            put(n, at);
        }),
    }
}

/// Reads a `.env` file: `NAME=value` lines, with or without `export`, with quotes as in a shell and
/// comments after ` #`.
///
/// A value without quotes is taken as it stands. No value is expanded, because a secret may hold a
/// `$`.
///
/// # Errors
/// The first line that cannot be read, and why.
pub fn dotenv(text: &str) -> Result<Variables, String> {
    let mut variables = Variables::new();
    for (at, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |why: &str| format!("line {}: {why}", at + 1);
        let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
        let (name, value) = line.split_once('=').ok_or_else(|| wrong("the `=` is missing"))?;
        let (name, value) = (name.trim(), value.trim());
        if name.is_empty() {
            return Err(wrong("the name before the `=` is missing"));
        }
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            || name.starts_with(|c: char| c.is_ascii_digit())
        {
            return Err(wrong(
                "the name before the `=` is invalid: use letters, digits and `_`, and do not start \
                 with a digit",
            ));
        }
        let value = match value.chars().next() {
            Some('"') => value.replace('$', "\\$"),
            Some('\'') => value.to_owned(),
            _ => {
                let end = value
                    .find(" #")
                    .or_else(|| value.find("\t#"))
                    .or_else(|| value.starts_with('#').then_some(0))
                    .unwrap_or(value.len());
                variables.insert(name.to_owned(), value[..end].trim_end().to_owned());
                continue;
            }
        };
        let line = format!("{name}={value}");
        match dotenvy::from_read_iter(line.as_bytes()).next() {
            Some(Ok((name, value))) => variables.insert(name, value),
            _ => {
                return Err(wrong(
                    "the quotes of the value are not closed or contain an invalid escape",
                ));
            }
        };
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dotenv_file_is_read_as_people_write_it() {
        let text = "\u{feff}A=1\nexport B=two\nC=\"three\" # note\nD='fo$ur'\nE=\"p$word\"\nF=a \
            b#c # note\n\n# no\nG=x\\y\nH=\n";
        let read = dotenv(text).unwrap();
        let expected = [
            ("A", "1"),
            ("B", "two"),
            ("C", "three"),
            ("D", "fo$ur"),
            ("E", "p$word"),
            ("F", "a b#c"),
            ("G", "x\\y"),
            ("H", ""),
        ];
        assert_eq!(read.len(), expected.len());
        for (name, value) in expected {
            assert_eq!(read.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert_eq!(dotenv("A=1\nnonsense").unwrap_err(), "line 2: the `=` is missing");
        assert!(dotenv("A=\"open").unwrap_err().starts_with("line 1"));
    }
}
