//! Reads single values, lists and templates of a section.

use std::time::Duration;

use super::{Placed, Section, json};
use crate::config::keys::Takes;
use crate::config::layers::flow_value;
use crate::config::problem::{Severity, did_you_mean};
use crate::config::tree::{self, Node, Value};
use crate::model::time::parse_duration;

impl Section<'_> {
    /// Reads `true` or `false`; `None` when it is absent. Any other value is reported.
    pub fn bool(&mut self, key: &str) -> Option<bool> {
        let scalar = self.scalar(key, "true or false")?;
        match scalar.value.text.as_str() {
            "true" | "True" | "TRUE" => Some(true),
            "false" | "False" | "FALSE" => Some(false),
            "" if !scalar.value.unset.is_empty() => None,
            _ => {
                let node = Node { value: Value::Scalar(scalar.value), place: scalar.place };
                self.wrong(key, "true or false", &node);
                None
            }
        }
    }

    /// Reads a whole number in the range that the list of keys gives for the key.
    pub fn number(&mut self, key: &str) -> Option<u64> {
        let Takes::Number(least, most) = self.takes(key) else { return None };
        let expected = format!("a whole number from {least} to {most}");
        let scalar = self.scalar(key, &expected)?;
        match scalar.value.text.trim().parse::<u64>() {
            Ok(n) if (least..=most).contains(&n) => Some(n),
            _ => {
                let node = Node { value: Value::Scalar(scalar.value), place: scalar.place };
                self.wrong(key, &expected, &node);
                None
            }
        }
    }

    /// Like [`Section::number`], for numbers that fit 32 bits.
    pub fn number32(&mut self, key: &str) -> Option<u32> {
        self.number(key).and_then(|n| u32::try_from(n).ok())
    }

    /// Reads a number, with or without decimals, in the range that the list of keys gives for the
    /// key.
    pub fn fraction(&mut self, key: &str) -> Option<f64> {
        let Takes::Fraction(least, most) = self.takes(key) else { return None };
        let expected = format!("a number from {least} to {most}");
        let scalar = self.scalar(key, &expected)?;
        match scalar.value.text.trim().parse::<f64>() {
            Ok(n) if (least..=most).contains(&n) => Some(n),
            _ => {
                let node = Node { value: Value::Scalar(scalar.value), place: scalar.place };
                self.wrong(key, &expected, &node);
                None
            }
        }
    }

    /// Reads a duration such as `30s`; a number without a unit is seconds.
    pub fn duration(&mut self, key: &str) -> Option<Duration> {
        let scalar = self.scalar(key, "a duration like `30s`")?;
        match parse_duration(&scalar.value.text) {
            Ok(duration) => Some(duration),
            Err(why) => {
                let path = self.key_path(key);
                self.error("wrong_type", key, format!("`{path}`: {why}"));
                None
            }
        }
    }

    /// Reads one of the words that the list of keys allows for the key.
    pub fn one_of(&mut self, key: &str) -> Option<String> {
        let Takes::OneOf(words) = self.takes(key) else { return None };
        let word = self.text(key)?;
        if words.contains(&word.as_str()) {
            return Some(word);
        }
        self.not_one_of(key, &word, words);
        None
    }

    /// Reports a word that is none of the known ones.
    pub fn not_one_of(&mut self, key: &str, word: &str, words: &[&str]) {
        let path = self.key_path(key);
        let help = did_you_mean(word, words.iter().copied())
            .unwrap_or_else(|| format!("valid values: {}", words.join(", ")));
        self.problem(
            Severity::Error,
            "unknown_word",
            key,
            format!("`{path}` has invalid value `{word}`"),
            Some(help),
        );
    }

    /// Reads a list of texts; `None` when it is absent.
    pub fn texts(&mut self, key: &str) -> Option<Vec<Placed<String>>> {
        let node = self.node(key)?;
        let held = flow_value(&node);
        let node = held.unwrap_or(node);
        let Value::List(items) = &node.value else {
            if let Value::Scalar(s) = &node.value
                && let Some(name) = s.unset.first()
            {
                let name = name.clone();
                self.warn(
                    "unset_variable",
                    key,
                    format!("the variable {name} is not set, so `{key}` is empty"),
                );
                return None;
            }
            self.wrong(key, "a list", &node);
            return None;
        };
        let mut texts = Vec::new();
        for (at, item) in items.iter().enumerate() {
            let path = format!("{}[{at}]", self.key_path(key));
            match &item.value {
                Value::Scalar(s) => {
                    let placed = Placed { value: s.clone(), place: item.place, key: path };
                    if self.check_variables(&placed, false) {
                        texts.push(Placed {
                            value: placed.value.text,
                            place: item.place,
                            key: placed.key,
                        });
                    }
                }
                _ => self.wrong(key, "a list of strings", item),
            }
        }
        Some(texts)
    }

    /// Reads one text, or a list of texts, as a list; `None` when it is absent.
    pub fn one_or_more_texts(&mut self, key: &str) -> Option<Vec<Placed<String>>> {
        match self.node(key)?.value {
            Value::Scalar(ref scalar) if !scalar.text.trim_start().starts_with('[') => {
                let path = self.key_path(key);
                let node = self.node(key)?;
                self.text(key).map(|value| vec![Placed { value, place: node.place, key: path }])
            }
            _ => self.texts(key),
        }
    }

    /// Reads a list of words that the list of keys allows for the key; other words are reported and
    /// left out.
    pub fn words(&mut self, key: &str) -> Option<Vec<String>> {
        let Takes::AnyOf(words) = self.takes(key) else { return None };
        let texts = self.texts(key)?;
        let mut good = Vec::new();
        for text in texts {
            match words.contains(&text.value.as_str()) {
                true => good.push(text.value),
                false => self.not_one_of(key, &text.value, words),
            }
        }
        Some(good)
    }

    /// Reads a mapping of free names to texts; a null value is an empty text.
    pub fn text_map(&mut self, key: &str) -> Vec<(tree::Key, Placed<String>)> {
        let Some(node) = self.node(key) else { return Vec::new() };
        let held = flow_value(&node);
        let node = held.unwrap_or(node);
        let Value::Map(entries) = &node.value else {
            self.wrong(key, "a mapping", &node);
            return Vec::new();
        };
        let mut map = Vec::new();
        for (name, value) in entries {
            let path = format!("{}.{}", self.key_path(key), name.text);
            let text = match &value.value {
                Value::Scalar(s) => {
                    let placed = Placed { value: s.clone(), place: value.place, key: path.clone() };
                    self.check_variables(&placed, false);
                    s.text.clone()
                }
                Value::Null => String::new(),
                _ => {
                    self.wrong(key, "a mapping of names to strings", value);
                    continue;
                }
            };
            map.push((name.clone(), Placed { value: text, place: value.place, key: path }));
        }
        map
    }

    /// Reads any value as JSON for a template. A single scalar is text; plain scalars inside lists
    /// and mappings get the type of YAML's core schema.
    pub fn template(&mut self, key: &str) -> Option<Placed<serde_json::Value>> {
        let node = self.node(key)?;
        let value = match &node.value {
            Value::Scalar(s) => {
                let placed =
                    Placed { value: s.clone(), place: node.place, key: self.key_path(key) };
                self.check_variables(&placed, false);
                serde_json::Value::String(s.text.clone())
            }
            _ => {
                self.unset_inside(key, &node);
                json(&node)
            }
        };
        Some(Placed { value, place: node.place, key: self.key_path(key) })
    }

    /// Reports variables that are not set, anywhere in the mapping or list of a template.
    fn unset_inside(&mut self, key: &str, node: &Node) {
        match &node.value {
            Value::Scalar(scalar) => {
                let placed =
                    Placed { value: scalar.clone(), place: node.place, key: self.key_path(key) };
                self.check_variables(&placed, false);
            }
            Value::List(items) => items.iter().for_each(|item| self.unset_inside(key, item)),
            Value::Map(entries) => {
                entries.iter().for_each(|(_, value)| self.unset_inside(key, value))
            }
            Value::Null => {}
        }
    }
}
