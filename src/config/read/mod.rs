//! Reads the values of a section by the list of its keys.
//!
//! Every problem is collected. A wrong value reads as absent, so that one mistake is reported once.

mod values;

use crate::config::keys::{self, Key, Keys, Takes};
use crate::config::layers::flow_value;
use crate::config::problem::{Place, Problem, Problems, Severity, did_you_mean};
use crate::config::tree::{self, Node, Scalar, Value};
use crate::model::Secret;

/// A reader of one section: it knows the keys that the section accepts, and collects what is wrong
/// with their values.
pub struct Section<'a> {
    entries: Vec<(tree::Key, Node)>,
    keys: &'static Keys,
    path: String,
    place: Place,
    /// Collects the problems of the whole file.
    problems: &'a mut Problems,
    lenient: bool,
}

/// A value with its place, for checks that come later.
#[derive(Debug, Clone)]
pub struct Placed<T> {
    /// The value as it was read.
    pub value: T,
    /// The place in the file, for problems that are found after reading.
    pub place: Place,
    /// The path of its key, for problems that are found after reading.
    pub key: String,
}

impl<'a> Section<'a> {
    /// Starts reading a node as a section. A null node is an empty section.
    pub fn new(node: &Node, keys: &'static Keys, path: &str, problems: &'a mut Problems) -> Self {
        let whole = flow_value(node);
        let node = whole.as_ref().unwrap_or(node);
        let entries = match &node.value {
            Value::Map(entries) => entries.clone(),
            Value::Null => Vec::new(),
            _ => {
                let what = if path.is_empty() {
                    "the configuration".to_owned()
                } else {
                    format!("`{path}`")
                };
                problems.push(Problem {
                    severity: Severity::Error,
                    code: "wrong_type",
                    place: Some(node.place),
                    key: path.to_owned(),
                    message: format!("{what} must be a mapping, not {}", node.kind()),
                    help: None,
                });
                Vec::new()
            }
        };
        Self { entries, keys, path: path.to_owned(), place: node.place, problems, lenient: false }
    }

    /// Reports unknown keys as warnings and not as errors from here on, also in inner sections.
    pub fn set_lenient(&mut self, lenient: bool) {
        self.lenient = lenient;
    }

    /// The collected problems, for checks that belong to no key.
    pub fn problems(&mut self) -> &mut Problems {
        self.problems
    }

    /// The place where the section begins.
    pub fn place(&self) -> Place {
        self.place
    }

    /// The key path of the section.
    pub fn path(&self) -> &str {
        &self.path
    }

    fn key_path(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn takes(&self, name: &str) -> Takes {
        // Sections of a kind are read by the same code although some of them lack a key, which
        // reads as absent.
        self.keys.iter().find(|k| k.name == name).map_or(Takes::Text, |k| k.takes)
    }

    /// The value of a key, if the section has the key and accepts it. A key that it does not accept
    /// is reported by [`Section::finish`] and never read.
    fn entry(&self, name: &str) -> Option<&Node> {
        let is_known = self.keys.iter().any(|key| key.name == name);
        self.entries.iter().find(|(k, _)| is_known && k.text == name).map(|(_, node)| node)
    }

    fn node(&self, name: &str) -> Option<Node> {
        let node = self.entry(name)?;
        (!matches!(node.value, Value::Null)).then(|| node.clone())
    }

    /// Whether the key is written at all, even with null.
    pub fn has(&self, name: &str) -> bool {
        self.entry(name).is_some()
    }

    /// Whether the key is written with a YAML null.
    pub fn is_null(&self, name: &str) -> bool {
        self.entry(name).is_some_and(|node| matches!(node.value, Value::Null))
    }

    /// Whether the value of the key is a mapping.
    pub fn is_mapping(&self, name: &str) -> bool {
        self.entry(name).is_some_and(|node| matches!(node.value, Value::Map(_)))
    }

    /// Reports a problem at a key, or at the section when the key is not written.
    pub fn problem(
        &mut self,
        severity: Severity,
        code: &'static str,
        key: &str,
        message: impl Into<String>,
        help: Option<String>,
    ) {
        let place =
            self.entries.iter().find(|(k, _)| k.text == key).map_or(self.place, |(_, n)| n.place);
        let key = if key.is_empty() { self.path.clone() } else { self.key_path(key) };
        self.problems.push(Problem {
            severity,
            code,
            place: Some(place),
            key,
            message: message.into(),
            help,
        });
    }

    /// Reports an error at a key.
    pub fn error(&mut self, code: &'static str, key: &str, message: impl Into<String>) {
        self.problem(Severity::Error, code, key, message, None);
    }

    /// Reports a warning at a key.
    pub fn warn(&mut self, code: &'static str, key: &str, message: impl Into<String>) {
        self.problem(Severity::Warning, code, key, message, None);
    }

    fn wrong(&mut self, key: &str, expected: &str, node: &Node) {
        let got = match &node.value {
            Value::Scalar(s) if s.text.len() <= 60 && !matches!(self.takes(key), Takes::Secret) => {
                format!("`{}`", s.text)
            }
            _ => node.kind().to_owned(),
        };
        let message = format!("`{}` must be {expected}, not {got}", self.key_path(key));
        self.problems.push(Problem {
            severity: Severity::Error,
            code: "wrong_type",
            place: Some(node.place),
            key: self.key_path(key),
            message,
            help: None,
        });
    }

    fn scalar(&mut self, key: &str, expected: &str) -> Option<Placed<Scalar>> {
        let node = self.node(key)?;
        let must_be_set = matches!(self.takes(key), Takes::Secret | Takes::Url);
        match &node.value {
            Value::Scalar(scalar) => {
                let placed =
                    Placed { value: scalar.clone(), place: node.place, key: self.key_path(key) };
                self.check_variables(&placed, must_be_set).then_some(placed)
            }
            _ => {
                self.wrong(key, expected, &node);
                None
            }
        }
    }

    /// Reports variables that are not set. It answers whether the value can be used nevertheless.
    fn check_variables(&mut self, scalar: &Placed<Scalar>, must_be_set: bool) -> bool {
        let Some(name) = scalar.value.unset.first() else { return true };
        let (severity, what) = match must_be_set {
            true => (Severity::Error, "needs it"),
            false => (Severity::Warning, "is empty without it"),
        };
        self.problems.push(Problem {
            severity,
            code: "unset_variable",
            place: Some(scalar.place),
            key: scalar.key.clone(),
            message: format!("the variable {name} is not set, and `{}` {what}", scalar.key),
            help: Some(format!("set {name}, or add a default: ${{{name}:-…}}")),
        });
        let reads_as_absent = scalar.value.plain && scalar.value.text.is_empty();
        !(must_be_set || reads_as_absent)
    }

    /// Reads a scalar as text; `None` when it is absent or null. A list or a mapping is reported.
    pub fn text(&mut self, key: &str) -> Option<String> {
        self.placed_text(key).map(|t| t.value)
    }

    /// A text, and the same text with stars in place of variables' values. It reports nothing:
    /// reading the key does.
    pub fn shown_text(&self, key: &str) -> Option<(&str, &str)> {
        match &self.entry(key)?.value {
            Value::Scalar(scalar) => {
                Some((&scalar.text, scalar.shown.as_ref().unwrap_or(&scalar.text)))
            }
            _ => None,
        }
    }

    /// The texts of a mapping by their names, with stars in place of variables' values. It reports
    /// nothing.
    pub fn shown_texts(&self, key: &str) -> Vec<(String, String)> {
        let Some(Value::Map(entries)) = self.entry(key).map(|node| &node.value) else {
            return Vec::new();
        };
        let text = |node: &Node| match &node.value {
            Value::Scalar(scalar) => Some(scalar.shown.as_ref().unwrap_or(&scalar.text).clone()),
            _ => None,
        };
        entries.iter().filter_map(|(name, node)| Some((name.text.clone(), text(node)?))).collect()
    }

    /// Like [`Section::text`], with the place in the file for checks that come later.
    pub fn placed_text(&mut self, key: &str) -> Option<Placed<String>> {
        let scalar = self.scalar(key, "a string")?;
        Some(Placed { value: scalar.value.text, place: scalar.place, key: scalar.key })
    }

    /// Reads a text, and reports a key that is missing.
    pub fn required_text(&mut self, key: &str) -> Option<String> {
        if self.node(key).is_none() {
            self.missing(key);
        }
        self.text(key)
    }

    fn missing(&mut self, key: &str) {
        let message = format!("`{}` is missing", self.key_path(key));
        let about = self.keys.iter().find(|k| k.name == key).map(|k| k.about.to_owned());
        self.problem(
            Severity::Error,
            "missing_key",
            "",
            message,
            about.map(|a| format!("`{key}`: {a}")),
        );
    }

    /// Reads a secret. A null and an empty text are errors, so that an unset variable never leaves
    /// a door open.
    pub fn secret(&mut self, key: &str) -> Option<Secret> {
        // `secret: ""` and `secret:` are the same mistake as an unset variable.
        let text = if self.is_null(key) { None } else { Some(self.placed_text(key)?) };
        let Some(text) = text.filter(|text| !text.value.trim().is_empty()) else {
            let message = format!("`{}` is empty", self.key_path(key));
            self.problem(
                Severity::Error,
                "empty_secret",
                key,
                message,
                Some("set a value, or remove the key".into()),
            );
            return None;
        };
        Some(Secret::new(text.value))
    }

    /// Starts reading a section inside this one; an absent one reads as empty.
    pub fn section(&mut self, key: &str) -> Section<'_> {
        let node = self.node(key).unwrap_or_else(|| Node::null(self.place));
        self.inner(key, &node)
    }

    /// Starts reading a section inside this one; `None` when it is absent.
    pub fn optional_section(&mut self, key: &str) -> Option<Section<'_>> {
        let node = self.node(key)?;
        Some(self.inner(key, &node))
    }

    fn inner(&mut self, key: &str, node: &Node) -> Section<'_> {
        let keys = match self.takes(key) {
            Takes::Section(keys) | Takes::Named(keys) | Takes::Items(keys) => keys,
            _ => &keys::NONE,
        };
        let path = self.key_path(key);
        let mut section = Section::new(node, keys, &path, self.problems);
        section.lenient = self.lenient;
        section
    }

    /// Reads named sections with the same keys, in the order of the file. Entries that `read`
    /// refuses are left out.
    pub fn each<T>(
        &mut self,
        key: &str,
        mut read: impl FnMut(&str, Section<'_>) -> Option<T>,
    ) -> Vec<T> {
        let Some(node) = self.node(key) else { return Vec::new() };
        let held = flow_value(&node);
        let node = held.unwrap_or(node);
        let Value::Map(entries) = &node.value else {
            self.wrong(key, "a mapping of names", &node);
            return Vec::new();
        };
        let mut all = Vec::new();
        for (name, value) in entries {
            if name.text.is_empty() || name.text.chars().any(char::is_control) {
                self.error(
                    "bad_name",
                    key,
                    format!(
                        "`{key}` has an entry whose name is empty or contains control characters"
                    ),
                );
                continue;
            }
            let path = format!("{key}.{}", name.text);
            let Takes::Named(keys) = self.takes(key) else { continue };
            // An empty entry is told about at its name, not at nothing.
            let value = if matches!(value.value, Value::Null) {
                Node::null(name.place)
            } else {
                value.clone()
            };
            let mut section = Section::new(&value, keys, &path, self.problems);
            section.lenient = self.lenient;
            section.place = name.place;
            all.extend(read(&name.text, section));
        }
        all
    }

    /// Reads a list of sections with the same keys. Entries that `read` refuses are left out.
    pub fn items<T>(
        &mut self,
        key: &str,
        mut read: impl FnMut(usize, Section<'_>) -> Option<T>,
    ) -> Vec<T> {
        let Some(node) = self.node(key) else { return Vec::new() };
        let held = flow_value(&node);
        let node = held.unwrap_or(node);
        let Value::List(items) = &node.value else {
            self.wrong(key, "a list", &node);
            return Vec::new();
        };
        let mut all = Vec::new();
        for (at, item) in items.iter().enumerate() {
            let path = format!("{}[{at}]", self.key_path(key));
            let Takes::Items(keys) = self.takes(key) else { continue };
            let mut section = Section::new(item, keys, &path, self.problems);
            section.lenient = self.lenient;
            all.extend(read(at, section));
        }
        all
    }

    /// Reads a section, or a list of sections with the same keys. `read` gets whether it stands in
    /// a list.
    pub fn one_or_more<T>(
        &mut self,
        key: &str,
        mut read: impl FnMut(bool, Section<'_>) -> T,
    ) -> Vec<T> {
        let Some(node) = self.node(key) else { return Vec::new() };
        let held = flow_value(&node);
        let node = held.unwrap_or(node);
        let Takes::OneOrMore(keys) = self.takes(key) else { return Vec::new() };
        let (is_list, items) = match &node.value {
            Value::List(items) => (true, items.as_slice()),
            _ => (false, std::slice::from_ref(&node)),
        };
        let mut all = Vec::new();
        for (at, item) in items.iter().enumerate() {
            let path =
                if is_list { format!("{}[{at}]", self.key_path(key)) } else { self.key_path(key) };
            let mut section = Section::new(item, keys, &path, self.problems);
            section.lenient = self.lenient;
            all.push(read(is_list, section));
        }
        all
    }

    /// Reports every key of the section that is not in its list of keys. Call it after the last
    /// read.
    pub fn finish(&mut self) {
        let known = |name: &str| self.keys.iter().any(|k: &Key| k.name == name);
        let unknown: Vec<tree::Key> =
            self.entries.iter().map(|(k, _)| k.clone()).filter(|k| !known(&k.text)).collect();
        for key in unknown {
            let names = self.keys.iter().map(|k| k.name);
            let merge = (key.text == "<<").then(|| {
                "YAML merge keys (`<<`) are not supported: repeat the keys, or use an overlay file"
                    .to_owned()
            });
            let help = merge
                .or_else(|| did_you_mean(&key.text, names.clone()))
                .unwrap_or_else(|| format!("valid keys: {}", names.collect::<Vec<_>>().join(", ")));
            self.problems.push(Problem {
                severity: if self.lenient { Severity::Warning } else { Severity::Error },
                code: "unknown_key",
                place: Some(key.place),
                key: self.key_path(&key.text),
                message: format!("unknown key `{}`", self.key_path(&key.text)),
                help: Some(help),
            });
        }
    }
}

/// A node as JSON. Quoted scalars are texts; plain ones have the type YAML's core schema gives
/// them.
pub fn json(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Null => serde_json::Value::Null,
        Value::Scalar(Scalar { text, plain: true, .. }) => {
            match serde_yaml::from_str::<serde_yaml::Value>(text) {
                Ok(serde_yaml::Value::Bool(b)) => serde_json::Value::Bool(b),
                Ok(serde_yaml::Value::Number(n)) => {
                    serde_json::to_value(n).unwrap_or_else(|_| text.clone().into())
                }
                _ => serde_json::Value::String(text.clone()),
            }
        }
        Value::Scalar(scalar) => serde_json::Value::String(scalar.text.clone()),
        Value::List(items) => serde_json::Value::Array(items.iter().map(json).collect()),
        Value::Map(entries) => serde_json::Value::Object(
            entries.iter().map(|(k, n)| (k.text.clone(), json(n))).collect(),
        ),
    }
}
