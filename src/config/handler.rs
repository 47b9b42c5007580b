//! `handlers`: who gets events, one HTTP call each.

use std::collections::BTreeMap;
use std::time::Duration;

use url::Url;

use super::problem::{Problem, Problems, Severity, did_you_mean};
use super::read::{Placed, Section};
use super::server::{Compat, read_allowed, read_retry, read_timeout};
use super::{ReadContext, urls};
use crate::decide::address::Policy;
use crate::decide::filter::Filter;
use crate::decide::foreign::{check_path, check_place};
use crate::decide::pattern::Pattern;
use crate::decide::retry::RetryPolicy;
use crate::decide::template::{BadTemplate, Template};
use crate::model::lane::BreakerRules;
use crate::model::path::Root;
use crate::model::{Method, Path};

/// A handler.
#[derive(Debug, Clone)]
pub struct Handler {
    /// Its name.
    pub name: String,
    /// Its earlier names, the first one first: what waits under them is its own.
    pub was: Vec<Placed<String>>,
    /// The source it listens to.
    pub source: String,
    /// Which types it wants; empty is all.
    pub events: Vec<Pattern>,
    /// Which payloads it wants.
    pub filter: Option<Filter>,
    /// Under which key it wants an event once.
    pub idempotency_key: Option<Path>,
    /// Where to.
    pub url: Url,
    /// The URL for people: without what came from a variable or looks like a token.
    pub shown_url: String,
    /// How.
    pub method: Method,
    /// Headers; they replace built-in ones.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub transform: Option<Template>,
    /// Retry policies: the first that lists a failure decides.
    pub retry: Vec<RetryPolicy>,
    /// Total deadline.
    pub timeout: Duration,
    /// Deliveries per second.
    pub rate_limit: Option<u32>,
    /// When its circuit breaker opens and closes.
    pub breaker: BreakerRules,
    /// Which private addresses it may reach.
    pub policy: Policy,
}

impl Handler {
    pub(super) fn read(name: &str, mut s: Section<'_>, around: &ReadContext<'_>) -> Option<Self> {
        let who = format!("handler '{name}'");
        if name.starts_with("queue/") {
            s.error("bad_name", "", format!("handler name '{name}' must not start with 'queue/' (reserved prefix)"));
        }
        let source = read_source(&mut s, &who, around);
        let was = s.one_or_more_texts("was").unwrap_or_default();
        if let Some(kind) = s.text("type").filter(|k| k != "http") {
            s.error("unknown_word", "type", format!("handler '{name}' has invalid type '{kind}'"));
        }
        let mut policy = around.policy.clone();
        read_allowed(&mut s, &mut policy);
        if !s.has("url") {
            s.error("missing_key", "", format!("{who} has no url"));
        }
        let url = urls::call(&mut s, "url", &who, &policy);
        let shown_url = urls::shown(&s, "url");
        let headers = urls::headers(&mut s, &who);
        // What a variable brings is data, and may look like anything.
        let written = s.shown_texts("headers");
        if let Some((name, _)) = written.iter().find(|(_, value)| value.contains("{{")) {
            let message = format!("{who} has a placeholder in its header `{name}`, where none is read");
            let help = "a handler's headers are fixed; a workflow's step renders its own";
            s.problem(Severity::Error, "bad_template", "headers", message, Some(help.into()));
        }
        let sends_json = headers.iter().all(|(n, v)| !n.eq_ignore_ascii_case("content-type") || v.contains("json"));
        let handler = (
            read_patterns(&mut s, around.compat),
            read_filter(&mut s, "filter", around.compat),
            read_path(&mut s, "idempotency_key"),
            read_method(&mut s, &who),
            read_template(&mut s, "transform", sends_json),
            read_retry(&mut s, "retry", &around.delivery.retry),
            read_timeout(&mut s).unwrap_or(around.delivery.timeout),
            s.number32("rate_limit").filter(|n| *n > 0),
            read_breaker(&mut s),
        );
        if handler.3 == Method::Get && s.has("transform") {
            let message = format!("{who} sends GET, which has no body, so its `transform` has no effect");
            s.warn("no_effect", "transform", message);
        }
        if let Some(filter) = &handler.1 {
            check_context(&mut s, "filter", &who, &filter.paths(), &OF_EVENT);
        }
        if let Some(transform) = &handler.4 {
            check_context(&mut s, "transform", &who, &transform.paths(), &OF_DELIVERY);
        }
        s.finish();
        let (events, filter, idempotency_key, method, transform, retry, timeout, rate_limit, breaker) = handler;
        Some(Self {
            name: name.to_owned(),
            was,
            source: source?,
            events,
            filter,
            idempotency_key,
            url: url?,
            shown_url,
            method,
            headers,
            transform,
            retry,
            timeout,
            rate_limit,
            breaker,
            policy,
        })
    }
}

/// What stands under `$$` where only the event is known.
pub(super) const OF_EVENT: [(&str, &[&str]); 1] = [("event", &["source", "type"])];
/// What stands under `$$` in a handler's `transform`.
const OF_DELIVERY: [(&str, &[&str]); 2] = [("event", &["id", "source", "type", "created_at"]), ("job", &["id", "handler"])];

/// What is read of the context and is not in it has no value, which is rarely meant.
pub(super) fn check_context(s: &mut Section<'_>, key: &str, who: &str, paths: &[&Path], known: &[(&str, &[&str])]) {
    let mut told: Option<&str> = None;
    for path in paths.iter().filter(|path| path.root() == Root::Context) {
        let Some([word, rest @ ..]) = path.keys() else { continue };
        let of_word = known.iter().find(|(name, _)| name == word).map(|(_, fields)| *fields);
        let is_known = of_word.is_some_and(|fields| rest.first().is_none_or(|field| fields.contains(&field.as_str())));
        if is_known || told == Some(path.text()) {
            continue;
        }
        told = Some(path.text());
        let all: Vec<String> =
            known.iter().flat_map(|(word, fields)| fields.iter().map(move |field| format!("$$.{word}.{field}"))).collect();
        let message = format!("{who} reads `{}`, which is not known here and has no value", path.text());
        s.problem(Severity::Warning, "unknown_context", key, message, Some(format!("known are {}", all.join(", "))));
    }
}

/// An earlier name belongs to nobody else: neither to a handler of today nor to two that were renamed.
pub(super) fn check_renamed(handlers: &[Handler], problems: &mut Problems) {
    let mut taken: BTreeMap<&str, &str> = BTreeMap::new();
    for handler in handlers {
        for old in &handler.was {
            let name = &handler.name;
            let earlier = taken.insert(&old.value, name);
            let message = match earlier {
                _ if handlers.iter().any(|other| other.name == old.value) => {
                    format!("`{}` is a handler of this file, so what waits for it cannot become `{name}`'s", old.value)
                }
                Some(other) => format!("what waits for `{}` can become one handler's only, and it is `{other}`'s", old.value),
                None => continue,
            };
            let help = "`was` names what a handler was called in earlier files, the first name first".to_owned();
            let (place, key) = (Some(old.place), old.key.clone());
            problems.push(Problem { severity: Severity::Error, code: "bad_rename", place, key, message, help: Some(help) });
        }
    }
}

fn read_breaker(s: &mut Section<'_>) -> BreakerRules {
    let defaults = BreakerRules::default();
    let Some(mut section) = s.optional_section("breaker") else { return defaults };
    let ms = |time: Option<Duration>| time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    let open_for_ms = ms(section.duration("open_for")).filter(|ms| *ms > 0).unwrap_or(defaults.open_for_ms);
    let rules = BreakerRules {
        failures: section.number32("failures").unwrap_or(defaults.failures),
        open_for_ms,
        max_open_ms: ms(section.duration("max_open")).unwrap_or(open_for_ms),
        probes: section.number32("probes").unwrap_or(defaults.probes),
    };
    if rules.max_open_ms < rules.open_for_ms {
        section.error("bad_breaker", "max_open", "`max_open` is the upper bound of `open_for` and cannot be less".to_owned());
    }
    section.finish();
    rules
}

/// The source a consumer listens to, which must exist.
pub(super) fn read_source(s: &mut Section<'_>, who: &str, around: &ReadContext<'_>) -> Option<String> {
    let source = s.required_text("source")?;
    if around.sources.contains_key(&source) {
        return Some(source);
    }
    let names = || around.sources.keys().map(String::as_str);
    let help = did_you_mean(&source, names()).unwrap_or_else(|| match around.sources.is_empty() {
        true => "the file has no sources".to_owned(),
        false => format!("known are {}", names().collect::<Vec<_>>().join(", ")),
    });
    s.problem(Severity::Error, "unknown_source", "source", format!("{who} references unknown source '{source}'"), Some(help));
    None
}

/// Event patterns.
pub(super) fn read_patterns(s: &mut Section<'_>, compat: &Compat) -> Vec<Pattern> {
    let parse = |text: &str| if compat.qhook_expressions { Pattern::parse_qhook(text) } else { Pattern::parse(text) };
    let texts = s.texts("events").unwrap_or_default();
    for text in &texts {
        let text = text.value.as_str();
        if text.contains("{{") {
            s.error("bad_template", "events", format!("`{text}` is a placeholder, and `events` takes patterns as they are"));
            continue;
        }
        let is_regex = text.len() > 1 && text.starts_with('/') && text.ends_with('/');
        let meant = match text {
            _ if text.trim().is_empty() => "leave `events` out to take all types",
            _ if text.contains(['|', ',']) => "write one pattern an entry: `[order.paid, order.sent]`",
            _ if text.starts_with('!') => "patterns say what is wanted; a `filter` says what is not",
            _ if is_regex || text.starts_with('^') || text.ends_with('$') => {
                "patterns are no regular expressions: `*` stands for any text"
            }
            _ => continue,
        };
        let message = format!("`{text}` is a pattern that hardly any event type matches");
        s.problem(Severity::Warning, "odd_pattern", "events", message, Some(meant.into()));
    }
    texts.iter().map(|t| parse(&t.value)).collect()
}

/// A condition.
pub(super) fn read_filter(s: &mut Section<'_>, key: &str, compat: &Compat) -> Option<Filter> {
    let text = s.text(key)?;
    let parsed = if compat.qhook_expressions { Filter::parse_qhook(&text) } else { Filter::parse(&text) };
    match parsed {
        Ok(filter) => {
            note_old_readings(s, key, &text, compat);
            Some(filter)
        }
        Err(bad) => {
            let at = text.get(..bad.at).map_or(0, |t| t.chars().count()) + 1;
            s.problem(
                Severity::Error,
                "bad_condition",
                key,
                format!("`{text}` is no condition: {} (character {at})", bad.message),
                bad.help,
            );
            None
        }
    }
}

/// Where qhook read a condition differently, the difference is told.
fn note_old_readings(s: &mut Section<'_>, key: &str, text: &str, compat: &Compat) {
    if compat.qhook_expressions {
        return;
    }
    let compact: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if compact.contains("== null") || compact.contains("!= null") {
        let help = "qhook 0.6 never found anything equal to null; `compat.expressions: qhook` keeps that";
        let message = format!("`{text}`: null is compared as null");
        s.problem(Severity::Warning, "new_reading", key, message, Some(help.into()));
    }
}

/// A path.
pub(super) fn read_path(s: &mut Section<'_>, key: &str) -> Option<Path> {
    let text = s.text(key)?;
    if text.contains("{{") {
        s.error("bad_path", key, format!("`{text}` is a template, and `{key}` takes a path: write it without braces"));
        return None;
    }
    if let Err(why) = check_path(text.trim()).and_then(|()| check_place(text.trim())) {
        s.error("bad_path", key, why);
        return None;
    }
    match Path::parse(&text) {
        // The items of a map are a list anyway.
        Ok(path) if !path.is_singular() && key != "items_path" => {
            let message = format!("`{text}` can select several values, and `{key}` takes one");
            s.problem(Severity::Error, "bad_path", key, message, Some("name one place: `$.order.id`, `$.items[0].id`".into()));
            None
        }
        Ok(path) => Some(path),
        Err(why) => {
            s.error("bad_path", key, why);
            None
        }
    }
}

/// An HTTP method.
pub(super) fn read_method(s: &mut Section<'_>, who: &str) -> Method {
    let Some(text) = s.text("method") else { return Method::Post };
    text.parse().unwrap_or_else(|_| {
        let help = "known are GET, POST, PUT, PATCH, DELETE, in upper case";
        s.problem(
            Severity::Error,
            "unknown_word",
            "method",
            format!("{who} has invalid HTTP method '{text}'"),
            Some(help.into()),
        );
        Method::Post
    })
}

/// A template, as text or as a mapping.
pub(super) fn read_template(s: &mut Section<'_>, key: &str, sends_json: bool) -> Option<Template> {
    let node = s.template(key)?;
    let parts = parts_of(&node.value, &node.key);
    let unread: Vec<&String> =
        parts.iter().filter(|(_, part)| matches!(part, Part::Key(name) if name.contains("{{"))).map(|(path, _)| path).collect();
    for key_path in &unread {
        let help =
            "keys are sent as they are written; a list of `{ name, value }` pairs can hold names that come with the payload";
        let message = format!("the key `{key_path}` has a placeholder, and none is read in a key");
        s.problem(Severity::Error, "bad_template", key, message, Some(help.into()));
    }
    let texts = || parts.iter().filter_map(|(path, part)| Some((path, part.text()?)));
    for (path, text) in texts().filter(|(_, text)| is_bare_path(text)) {
        let message = format!("`{path}` is the text `{text}`, and no value of the payload");
        s.problem(Severity::Warning, "bare_path", key, message, Some(format!("write `\"{{{{ {text} }}}}\"` for the value")));
    }
    let bad: Vec<(&String, &str, BadTemplate)> =
        texts().filter_map(|(path, text)| Some((path, text, Template::text(text).err()?))).collect();
    for (path, text, why) in &bad {
        let at = text.get(..why.at).map_or(0, |t| t.chars().count()) + 1;
        s.error("bad_template", key, format!("`{path}` is no template: {} (character {at})", why.message));
    }
    if !bad.is_empty() || !unread.is_empty() {
        return None;
    }
    let parsed = match &node.value {
        serde_json::Value::String(text) => Template::text(text),
        other => Template::mapping(other),
    };
    match parsed {
        Ok(template) => {
            if sends_json && !template.is_json() {
                let message = format!("the literal part of `{}` is not JSON, so what is sent will not be JSON", node.key);
                let help = "mend the template, or set a Content-Type that is not JSON in `headers`";
                s.problem(Severity::Warning, "not_json", key, message, Some(help.into()));
            }
            Some(template)
        }
        Err(bad) => {
            s.error("bad_template", key, format!("`{}` is no template: {}", node.key, bad.message));
            None
        }
    }
}

/// Every key and every text of a template, with the path where it stands.
fn parts_of<'a>(value: &'a serde_json::Value, path: &str) -> Vec<(String, Part<'a>)> {
    match value {
        serde_json::Value::String(text) => vec![(path.to_owned(), Part::Text(text))],
        serde_json::Value::Array(items) => {
            items.iter().enumerate().flat_map(|(at, item)| parts_of(item, &format!("{path}[{at}]"))).collect()
        }
        serde_json::Value::Object(fields) => fields
            .iter()
            .flat_map(|(name, field)| {
                let path = format!("{path}.{name}");
                let below = parts_of(field, &path);
                std::iter::once((path, Part::Key(name))).chain(below)
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// A part of a template as it is written.
#[derive(Clone, Copy)]
enum Part<'a> {
    Key(&'a str),
    Text(&'a str),
}

impl<'a> Part<'a> {
    fn text(self) -> Option<&'a str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Key(_) => None,
        }
    }
}

/// Whether a text is a path without the braces that would have it read.
fn is_bare_path(text: &str) -> bool {
    let starts = text.starts_with("$.") || text.starts_with("$$.");
    starts && !text.contains(char::is_whitespace) && check_path(text).is_ok() && Path::parse(text).is_ok()
}
