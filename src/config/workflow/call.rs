//! Reads one call of a workflow's step: its request, what counts as a success, and what is kept of
//! it.

use std::time::Duration;

use super::super::handler::{read_filter, read_method, read_path, read_template};
use super::super::read::Section;
use super::super::server::{read_retry, read_timeout};
use super::super::{ReadContext, urls};
use crate::decide::errors::ErrorName;
use crate::decide::foreign_syntax::check_path;
use crate::decide::retry::RetryPolicy;
use crate::decide::settle::Log;
use crate::decide::template::Template;
use crate::decide::workflow::flow::{Address, Call, CallKey, Expect, Poll, Reads};
use crate::model::{Method, Path};

/// The default of `error_path`: where a receiver's answer names its failure.
const ERROR_PATH: &str = "$.error.code";
/// The default of `poll.every`: the time between two calls of a step that polls.
const POLL_EVERY: Duration = Duration::from_secs(10);
/// The default of `poll.max`: how many calls a step that polls makes.
const POLLS_MAX: u32 = 60;

/// A call as it was read; its URL may be missing, because some types of step need none.
pub(super) struct CallSpec {
    pub(super) url: Option<Address>,
    shown_url: String,
    pub(super) query: Vec<(String, Template)>,
    pub(super) method: Method,
    pub(super) headers: Vec<(String, Template)>,
    pub(super) body: Option<Template>,
    pub(super) timeout: Duration,
    pub(super) retry: Vec<RetryPolicy>,
    pub(super) sends_json: bool,
    expect: Expect,
    poll: Option<Poll>,
    key: CallKey,
    at_most_once: bool,
    log: Log,
    redact: Vec<Vec<String>>,
    error_path: Option<Path>,
    reads: Reads,
}

impl CallSpec {
    /// The call, or `None` when its URL or its error path is missing or wrong.
    pub(super) fn call(self) -> Option<Call> {
        let Self {
            shown_url,
            query,
            method,
            headers,
            body,
            timeout,
            retry,
            expect,
            poll,
            key,
            at_most_once,
            log,
            redact,
            reads,
            ..
        } = self;
        let error_path = self.error_path?;
        Some(Call {
            url: self.url?,
            shown_url,
            query,
            method,
            headers,
            body,
            timeout,
            retry,
            expect,
            poll,
            key,
            at_most_once,
            log,
            redact,
            error_path,
            reads,
        })
    }

    /// Reads the keys of a call that a section has.
    pub(super) fn read(
        s: &mut Section<'_>,
        who: &str,
        around: &ReadContext<'_>,
        retry: &[RetryPolicy],
    ) -> Self {
        let url = urls::address(s, "url", who, around.policy);
        let shown_url = urls::shown(s, "url");
        let headers = urls::headers(s, who);
        let sends_json = headers
            .iter()
            .all(|(n, v)| !n.eq_ignore_ascii_case("content-type") || v.contains("json"));
        let headers = urls::templates(s, "headers", headers);
        let query =
            s.text_map("query").into_iter().map(|(name, value)| (name.text, value.value)).collect();
        let query = urls::templates(s, "query", query);
        let timeout = read_timeout(s);
        let method = read_method(s, who);
        if method == Method::Get && s.has("body") {
            s.warn(
                "no_effect",
                "body",
                format!(
                    "{who} sends GET, which has no body, so its `body` \
                has no effect: remove it, or use another method"
                ),
            );
        }
        Self {
            url,
            shown_url,
            query,
            method,
            headers,
            body: read_template(s, "body", sends_json),
            timeout: timeout.unwrap_or(around.delivery.timeout),
            retry: read_retry(s, "retry", retry),
            sends_json,
            expect: if s.has("expect") {
                read_expect(s.section("expect"), around)
            } else {
                Expect::default()
            },
            poll: s.optional_section("poll").and_then(|poll| read_poll(poll, around)),
            key: read_key(s),
            at_most_once: s.one_of("delivery").is_some_and(|word| word == "at_most_once"),
            log: match s.one_of("log").as_deref() {
                Some("metadata") => Log::Metadata,
                Some("none") => Log::None,
                _ => Log::Full,
            },
            redact: read_redact(s),
            error_path: match s.has("error_path") {
                true => read_path(s, "error_path"),
                false => Path::parse(ERROR_PATH).ok(),
            },
            reads: match s.one_of("response").as_deref() {
                Some("json") => Reads::Json,
                Some("text") => Reads::Text,
                _ => Reads::Auto,
            },
        }
    }
}

/// Reads `expect`: statuses, ranges of statuses, and a condition on the answer.
fn read_expect(mut s: Section<'_>, around: &ReadContext<'_>) -> Expect {
    let mut status = Vec::new();
    for text in s.texts("status").unwrap_or_default() {
        match text.value.parse::<ErrorName>() {
            Ok(ErrorName::Status(from, to)) => status.push((from, to)),
            _ => {
                let message = format!(
                    "`{}` is not an HTTP status: write a status like 409, or a range like 200-299",
                    text.value
                );
                s.error("bad_status", "status", message);
            }
        }
    }
    if status.is_empty() && !s.has("when") {
        s.error("missing_key", "status", "`expect` is empty: add `status` or `when`".to_owned());
    }
    let when = read_filter(&mut s, "when", around.compat);
    s.finish();
    Expect { status, when }
}

fn read_poll(mut s: Section<'_>, around: &ReadContext<'_>) -> Option<Poll> {
    s.required_text("until");
    let until = read_filter(&mut s, "until", around.compat);
    if s.duration("every").is_some_and(|every| every.is_zero()) {
        s.error("out_of_range", "every", "`poll.every` must be longer than 0".to_owned());
    }
    let poll = (s.duration("every").unwrap_or(POLL_EVERY), s.number32("max").unwrap_or(POLLS_MAX));
    s.finish();
    let (every, max) = poll;
    Some(Poll { until: until?, every, max })
}

fn read_key(s: &mut Section<'_>) -> CallKey {
    let Some(text) = s.text("idempotency") else { return CallKey::Visit };
    match text.as_str() {
        "visit" => CallKey::Visit,
        "attempt" => CallKey::Attempt,
        "none" => CallKey::None,
        template if template.contains("{{") => match Template::text(template) {
            Ok(template) => CallKey::Template(template),
            Err(bad) => {
                s.error(
                    "bad_template",
                    "idempotency",
                    format!("`idempotency` is not a valid template: {}", bad.message),
                );
                CallKey::Visit
            }
        },
        other => {
            s.not_one_of(
                "idempotency",
                other,
                &["visit", "attempt", "none", "a template like {{ $.id }}"],
            );
            CallKey::Visit
        }
    }
}

fn read_redact(s: &mut Section<'_>) -> Vec<Vec<String>> {
    let mut places = Vec::new();
    for text in s.texts("redact").unwrap_or_default() {
        if let Err(why) = check_path(text.value.trim()) {
            s.error("bad_path", "redact", why);
            continue;
        }
        let keys =
            Path::parse(&text.value).ok().and_then(|path| path.keys().map(<[String]>::to_vec));
        match keys.filter(|keys| !keys.is_empty()) {
            Some(keys) => places.push(keys),
            None => s.error(
                "bad_path",
                "redact",
                format!("`{}` is not a path of keys: write it like `$.card.number`", text.value),
            ),
        }
    }
    places
}
