//! The section `handlers`: HTTP destinations that get events, with one call per event.

use std::collections::BTreeMap;
use std::time::Duration;

use url::Url;

use super::problem::{Problem, Problems, Severity, did_you_mean};
use super::read::{Placed, Section};
use super::server::{Compat, read_allowed, read_retry, read_timeout};
use super::{ReadContext, urls};
use crate::decide::address::Policy;
use crate::decide::alert::SOURCE;
use crate::decide::filter::Filter;
use crate::decide::foreign_syntax::{check_path, check_place};
use crate::decide::pattern::Pattern;
use crate::decide::retry::RetryPolicy;
use crate::decide::template::Template;
use crate::model::lane::BreakerRules;
use crate::model::path::Root;
use crate::model::{Method, Path};

/// A handler: one HTTP destination and the events of one source that it gets.
#[derive(Debug, Clone)]
pub struct Handler {
    /// The key of its entry under `handlers`; it names the lane `handler:NAME` and the deliveries
    /// of the API.
    pub name: String,
    /// Its earlier names, the first one first; deliveries that wait under them become deliveries of
    /// this handler.
    pub was: Vec<Placed<String>>,
    /// The source whose events it gets.
    pub source: String,
    /// The patterns of event types that it gets; an empty list means all types.
    pub events: Vec<Pattern>,
    /// The condition on the payload; `None` accepts every payload.
    pub filter: Option<Filter>,
    /// The path of an idempotency key: of several events with the same key, the handler gets one.
    pub idempotency_key: Option<Path>,
    /// The URL that events are delivered to, without placeholders, allowed by `policy`.
    pub url: Url,
    /// The URL for display: stars in place of what came from a variable or looks like a token.
    pub shown_url: String,
    /// The HTTP method of its requests; POST when the file does not say.
    pub method: Method,
    /// Its request headers; they replace built-in ones of the same name.
    pub headers: Vec<(String, String)>,
    /// The template of the request body; `None` delivers the event's body as it came in.
    pub transform: Option<Template>,
    /// Its retry policies; of several, the first that lists a failure applies to it.
    pub retry: Vec<RetryPolicy>,
    /// The deadline of one attempt as a whole, connecting and reading included; 1 ms to 1 h, else
    /// that of `delivery.timeout`.
    pub timeout: Duration,
    /// Deliveries per second, counted over all processes; `None` is unlimited.
    pub rate_limit: Option<u32>,
    /// When its circuit breaker opens and closes again.
    pub breaker: BreakerRules,
    /// Which private addresses it may reach: the server's policy, with its own
    /// `allowed_private_hosts` added.
    pub policy: Policy,
}

impl Handler {
    pub(super) fn read(name: &str, mut s: Section<'_>, around: &ReadContext<'_>) -> Option<Self> {
        let who = format!("handler '{name}'");
        if name.starts_with("queue/") {
            s.error(
                "bad_name",
                "",
                format!(
                    "handler name '{name}' must not start with 'queue/' \
                (reserved prefix): rename the handler"
                ),
            );
        }
        let source = read_source(&mut s, &who, around);
        let was = s.one_or_more_texts("was").unwrap_or_default();
        if let Some(kind) = s.text("type").filter(|k| k != "http") {
            s.error(
                "unknown_word",
                "type",
                format!("handler '{name}' has invalid type '{kind}': the only type is http"),
            );
        }
        let mut policy = around.policy.clone();
        read_allowed(&mut s, &mut policy);
        if !s.has("url") {
            s.error("missing_key", "", format!("{who} has no url: add `url`, the address to call"));
        }
        let url = urls::call(&mut s, "url", &who, &policy);
        let shown_url = urls::shown(&s, "url");
        let headers = urls::headers(&mut s, &who);
        // What a variable brings is data, and may look like anything.
        let written = s.shown_texts("headers");
        if let Some((name, _)) = written.iter().find(|(_, value)| value.contains("{{")) {
            let message = format!(
                "{who} has a placeholder in its header `{name}`, but headers of handlers do not \
                 support placeholders"
            );
            let help =
                "write a fixed value, or use a workflow step: its headers support placeholders";
            s.problem(Severity::Error, "bad_template", "headers", message, Some(help.into()));
        }
        let sends_json = headers
            .iter()
            .all(|(n, v)| !n.eq_ignore_ascii_case("content-type") || v.contains("json"));
        let events = read_patterns(&mut s, around.compat);
        let filter = read_filter(&mut s, "filter", around.compat);
        let idempotency_key = read_path(&mut s, "idempotency_key");
        let method = read_method(&mut s, &who);
        let transform = read_template(&mut s, "transform", sends_json);
        let retry = read_retry(&mut s, "retry", &around.delivery.retry);
        let timeout = read_timeout(&mut s).unwrap_or(around.delivery.timeout);
        let rate_limit = s.number32("rate_limit").filter(|n| *n > 0);
        let breaker = read_breaker(&mut s);
        if method == Method::Get && s.has("transform") {
            let message = format!(
                "{who} sends GET, which has no body, so its `transform` has no effect: remove it, \
                 or use another method"
            );
            s.warn("no_effect", "transform", message);
        }
        if let Some(filter) = &filter {
            check_context(&mut s, "filter", &who, &filter.paths(), &OF_EVENT);
        }
        if let Some(transform) = &transform {
            check_context(&mut s, "transform", &who, &transform.paths(), &OF_DELIVERY);
        }
        s.finish();
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

/// The fields under `$$` that a filter can read, before there is a delivery.
pub(super) const OF_EVENT: [(&str, &[&str]); 1] = [("event", &["source", "type"])];
/// The fields under `$$` that a handler's `transform` can read.
const OF_DELIVERY: [(&str, &[&str]); 2] =
    [("event", &["id", "source", "type", "created_at"]), ("job", &["id", "handler"])];

/// Warns of paths under `$$` that are not `known` at this place: they have no value, which is
/// rarely intended.
pub(super) fn check_context(
    s: &mut Section<'_>,
    key: &str,
    who: &str,
    paths: &[&Path],
    known: &[(&str, &[&str])],
) {
    let mut told: Option<&str> = None;
    for path in paths.iter().filter(|path| path.root() == Root::Context) {
        let Some([word, rest @ ..]) = path.keys() else { continue };
        let of_word = known.iter().find(|(name, _)| name == word).map(|(_, fields)| *fields);
        let is_known = of_word.is_some_and(|fields| {
            rest.first().is_none_or(|field| fields.contains(&field.as_str()))
        });
        if is_known || told == Some(path.text()) {
            continue;
        }
        told = Some(path.text());
        let all: Vec<String> = known
            .iter()
            .flat_map(|(word, fields)| fields.iter().map(move |field| format!("$$.{word}.{field}")))
            .collect();
        let message =
            format!("{who} reads `{}`, which does not exist here and has no value", path.text());
        s.problem(
            Severity::Warning,
            "unknown_context",
            key,
            message,
            Some(format!("available here: {}", all.join(", "))),
        );
    }
}

/// Refuses an earlier name (`was`) that is also a current handler's, or that two handlers claim.
pub(super) fn check_renamed(handlers: &[Handler], problems: &mut Problems) {
    let mut taken: BTreeMap<&str, &str> = BTreeMap::new();
    for handler in handlers {
        for old in &handler.was {
            let name = &handler.name;
            let earlier = taken.insert(&old.value, name);
            let message = match earlier {
                _ if handlers.iter().any(|other| other.name == old.value) => {
                    format!(
                        "`{}` is also a handler in this file, so its waiting deliveries cannot \
                         move to `{name}`",
                        old.value
                    )
                }
                Some(other) => format!(
                    "the waiting deliveries of `{}` can move to one handler only, and `{other}` \
                     already has this name in `was`",
                    old.value
                ),
                None => continue,
            };
            let help = "`was` lists the earlier names of a handler, the oldest first".to_owned();
            let (place, key) = (Some(old.place), old.key.clone());
            problems.push(Problem {
                severity: Severity::Error,
                code: "bad_rename",
                place,
                key,
                message,
                help: Some(help),
            });
        }
    }
}

fn read_breaker(s: &mut Section<'_>) -> BreakerRules {
    let defaults = BreakerRules::default();
    let Some(mut section) = s.optional_section("breaker") else { return defaults };
    let ms = |time: Option<Duration>| {
        time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    };
    let open_for_ms =
        ms(section.duration("open_for")).filter(|ms| *ms > 0).unwrap_or(defaults.open_for_ms);
    let rules = BreakerRules {
        failures: section.number32("failures").unwrap_or(defaults.failures),
        open_for_ms,
        max_open_ms: ms(section.duration("max_open")).unwrap_or(open_for_ms),
        probes: section.number32("probes").unwrap_or(defaults.probes),
    };
    if rules.max_open_ms < rules.open_for_ms {
        section.error(
            "bad_breaker",
            "max_open",
            "`max_open` must not be shorter than `open_for`".to_owned(),
        );
    }
    section.finish();
    rules
}

/// Reads the source of a handler, workflow or queue; it must be one of the configuration.
pub(super) fn read_source(
    s: &mut Section<'_>,
    who: &str,
    around: &ReadContext<'_>,
) -> Option<String> {
    let source = s.required_text("source")?;
    // What tidehook says about itself.
    if source == SOURCE {
        return Some(source);
    }
    if around.sources.contains_key(&source) {
        return Some(source);
    }
    let names = || around.sources.keys().map(String::as_str);
    let help = did_you_mean(&source, names()).unwrap_or_else(|| match around.sources.is_empty() {
        true => "the configuration has no sources: add one under `sources`".to_owned(),
        false => format!("the sources are: {}", names().collect::<Vec<_>>().join(", ")),
    });
    s.problem(
        Severity::Error,
        "unknown_source",
        "source",
        format!("{who} references unknown source '{source}'"),
        Some(help),
    );
    None
}

/// Reads the event patterns of a consumer, and warns of those that hardly any event type matches.
/// An empty list means all types.
pub(super) fn read_patterns(s: &mut Section<'_>, compat: &Compat) -> Vec<Pattern> {
    let parse = |text: &str| {
        if compat.qhook_expressions { Pattern::parse_qhook(text) } else { Pattern::parse(text) }
    };
    let texts = s.texts("events").unwrap_or_default();
    for text in &texts {
        let text = text.value.as_str();
        if text.contains("{{") {
            s.error(
                "bad_template",
                "events",
                format!(
                    "`{text}` contains a placeholder, but \
                `events` does not support placeholders: write a fixed pattern"
                ),
            );
            continue;
        }
        let is_regex = text.len() > 1 && text.starts_with('/') && text.ends_with('/');
        let meant = match text {
            _ if text.trim().is_empty() => "remove `events` to match all types",
            _ if text.contains(['|', ',']) => {
                "write one pattern per entry: `[order.paid, order.sent]`"
            }
            _ if text.starts_with('!') => {
                "patterns cannot exclude types; use a `filter` to exclude events"
            }
            _ if is_regex || text.starts_with('^') || text.ends_with('$') => {
                "patterns are not regular expressions: use `*` to match any text"
            }
            _ => continue,
        };
        let message = format!("the pattern `{text}` matches almost no event type");
        s.problem(Severity::Warning, "odd_pattern", "events", message, Some(meant.into()));
    }
    texts.iter().map(|t| parse(&t.value)).collect()
}

/// Reads a condition under a key; `None` when it is absent or wrong, which was reported.
pub(super) fn read_filter(s: &mut Section<'_>, key: &str, compat: &Compat) -> Option<Filter> {
    let text = s.text(key)?;
    let parsed =
        if compat.qhook_expressions { Filter::parse_qhook(&text) } else { Filter::parse(&text) };
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
                format!("`{text}` is not a valid condition: {} (character {at})", bad.message),
                bad.help,
            );
            None
        }
    }
}

/// Warns where qhook 0.6 read a condition differently: comparisons with null.
fn note_old_readings(s: &mut Section<'_>, key: &str, text: &str, compat: &Compat) {
    if compat.qhook_expressions {
        return;
    }
    let compact: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if compact.contains("== null") || compact.contains("!= null") {
        let help =
            "in qhook 0.6 nothing was equal to null; set `compat.expressions: qhook` to keep that";
        let message = format!("`{text}` compares with null, unlike in qhook");
        s.problem(Severity::Warning, "new_reading", key, message, Some(help.into()));
    }
}

/// Reads a path that names one place of the payload (`items_path` may select several); `None` when
/// it is absent or wrong.
pub(super) fn read_path(s: &mut Section<'_>, key: &str) -> Option<Path> {
    let text = s.text(key)?;
    if text.contains("{{") {
        s.error(
            "bad_path",
            key,
            format!("`{text}` is a template, but `{key}` takes a path: remove the braces"),
        );
        return None;
    }
    if let Err(why) = check_path(text.trim()).and_then(|()| check_place(text.trim())) {
        s.error("bad_path", key, why);
        return None;
    }
    match Path::parse(&text) {
        // The items of a map are a list anyway.
        Ok(path) if !path.is_singular() && key != "items_path" => {
            let message = format!("`{text}` can select several values, but `{key}` takes one");
            s.problem(
                Severity::Error,
                "bad_path",
                key,
                message,
                Some("select one value: `$.order.id` or `$.items[0].id`".into()),
            );
            None
        }
        Ok(path) => Some(path),
        Err(why) => {
            s.error("bad_path", key, why);
            None
        }
    }
}

/// Reads an HTTP method in upper case; POST when it is absent or unknown, and an unknown one is
/// reported.
pub(super) fn read_method(s: &mut Section<'_>, who: &str) -> Method {
    let Some(text) = s.text("method") else { return Method::Post };
    text.parse().unwrap_or_else(|_| {
        let help = "valid methods: GET, POST, PUT, PATCH, DELETE (upper case)";
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

/// Reads a template, written as text or as a mapping. `sends_json` warns when its result would not
/// be JSON.
pub(super) fn read_template(s: &mut Section<'_>, key: &str, sends_json: bool) -> Option<Template> {
    let node = s.template(key)?;
    let parts = parts_of(&node.value, &node.key);
    let unread: Vec<&String> = parts
        .iter()
        .filter(|(_, part)| matches!(part, Part::Key(name) if name.contains("{{")))
        .map(|(path, _)| path)
        .collect();
    for key_path in &unread {
        let help = "keys are sent as written; to send names from the payload, use a list of \
            `{ name, value }` pairs";
        let message = format!(
            "the key `{key_path}` contains a placeholder, but keys do not support placeholders"
        );
        s.problem(Severity::Error, "bad_template", key, message, Some(help.into()));
    }
    let texts = || parts.iter().filter_map(|(path, part)| Some((path, part.text()?)));
    for (path, text) in texts().filter(|(_, text)| is_bare_path(text)) {
        let message =
            format!("`{path}` is the literal string `{text}`, not a value of the payload");
        s.problem(
            Severity::Warning,
            "bare_path",
            key,
            message,
            Some(format!("write `\"{{{{ {text} }}}}\"` to send the value")),
        );
    }
    let bad: Vec<_> = texts()
        .filter_map(|(path, text)| Some((path, text, Template::text(text).err()?)))
        .collect();
    for (path, text, why) in &bad {
        let at = text.get(..why.at).map_or(0, |t| t.chars().count()) + 1;
        s.error(
            "bad_template",
            key,
            format!("`{path}` is not a valid template: {} (character {at})", why.message),
        );
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
                let message = format!(
                    "the fixed text of the template `{}` is not valid JSON, so the request body \
                     will not be JSON",
                    node.key
                );
                let help = "fix the template, or set a Content-Type other than JSON in `headers`";
                s.problem(Severity::Warning, "not_json", key, message, Some(help.into()));
            }
            Some(template)
        }
        Err(bad) => {
            s.error(
                "bad_template",
                key,
                format!("`{}` is not a valid template: {}", node.key, bad.message),
            );
            None
        }
    }
}

/// Every key and every text of a template, each with its path for messages.
fn parts_of<'a>(value: &'a serde_json::Value, path: &str) -> Vec<(String, Part<'a>)> {
    match value {
        serde_json::Value::String(text) => vec![(path.to_owned(), Part::Text(text))],
        serde_json::Value::Array(items) => items
            .iter()
            .enumerate()
            .flat_map(|(at, item)| parts_of(item, &format!("{path}[{at}]")))
            .collect(),
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

/// A piece of a template as written; placeholders are allowed in texts only.
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

/// Whether a text looks like a path that was written without `{{ }}`, so that it would be sent as
/// it stands.
fn is_bare_path(text: &str) -> bool {
    let starts = text.starts_with("$.") || text.starts_with("$$.");
    starts
        && !text.contains(char::is_whitespace)
        && check_path(text).is_ok()
        && Path::parse(text).is_ok()
}
