//! The section `sources`: where events come from, and how their requests are verified.

use std::sync::Arc;
use std::time::Duration;

use super::External;
use super::problem::{Severity, did_you_mean};
use super::read::Section;
use crate::decide::alert::RESERVED;
use crate::decide::cidr::Networks;
use crate::decide::cron::{CatchUp, Schedule, Zone};
use crate::model::json::Ref;
use crate::model::{Secret, Timestamp};

/// How the events of a source come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceKind {
    /// A provider posts to `/webhooks/{source}`.
    Webhook,
    /// An application posts to `/events/{source}/{type}`.
    Event,
    /// Amazon SNS posts notifications; checked only, this version refuses to start with it.
    Sns,
    /// A schedule makes the events.
    Cron,
    /// An application posts events that go to the endpoints of its customers; checked only, this
    /// version refuses to start with it.
    Outbound,
}

/// A source: one origin of events, and how its requests are verified, deduplicated and limited.
#[derive(Debug, Clone)]
pub struct Source {
    /// The key of its entry under `sources`; it stands in the path of its route and in every event.
    pub name: String,
    /// How its events come in; without `type`, a source that has `verify` is a webhook.
    pub kind: SourceKind,
    /// The signature scheme that requests must pass; `None` accepts requests of anyone.
    pub verify: Option<String>,
    /// The accepted secrets, any of which may have signed a request; `tidehook send` signs with the
    /// first.
    pub secrets: Vec<Secret>,
    /// The JSON Schema that payloads must satisfy, if there is one.
    pub schema: Option<Schema>,
    /// The client addresses that may send; empty allows everyone.
    pub allowed: Networks,
    /// How old a signed timestamp may be; `None` is the scheme's own window, zero switches the
    /// check off.
    pub tolerance: Option<Duration>,
    /// Which id of a request makes repeats harmless.
    pub dedupe: Dedupe,
    /// Whether the header `ce-type` of a CloudEvent sets the event type although the source is
    /// verified.
    pub ce_type_trusted: bool,
    /// The largest body of this source in bytes; `None` is the server's limit.
    pub body_bytes_max: Option<usize>,
    /// Request headers, in lower case, that are kept with the event and delivered, in addition to
    /// those of the provider.
    pub headers: Vec<String>,
    /// The settings of signature schemes that can be configured, such as `verify: hmac`.
    pub signature: SignatureOptions,
    /// When a cron source fires; `None` for other sources.
    pub cron: Option<Cron>,
}

/// When a cron source fires.
#[derive(Debug, Clone)]
pub struct Cron {
    /// The schedule in its zone.
    pub schedule: Schedule,
    /// What happens to slots that passed while nothing ran.
    pub catch_up: CatchUp,
    /// The span over which ticks are spread, each by a fixed amount of its own.
    pub jitter: Duration,
}

/// Which id of a request makes repeats of an event harmless.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dedupe {
    /// The provider's id of the delivery, or else the identity of a CloudEvent; the default.
    Provider,
    /// The provider's id of what happened, which stays the same over several deliveries; only
    /// Shopify sends one.
    Event,
    /// None: every request becomes an event of its own.
    Off,
}

/// How a configurable signature scheme signs; `None` in a field is the scheme's default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SignatureOptions {
    /// The header that carries the signature, in lower case; `None` is the scheme's own.
    pub header: Option<String>,
    /// The text before the signature in its header, such as `sha256=`.
    pub prefix: Option<String>,
    /// The hash of the HMAC: `sha256`, `sha512` or `sha1`.
    pub algorithm: Option<String>,
    /// `hex` or `base64`: how the signature is encoded; `None` is the scheme's own.
    pub encoding: Option<String>,
    /// The header that carries the timestamp, in lower case; the scheme `grafana` reads it.
    pub timestamp_header: Option<String>,
}

/// A compiled JSON Schema (draft 2020-12).
#[derive(Clone)]
pub struct Schema(Arc<jsonschema::Validator>);

impl std::fmt::Debug for Schema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Schema")
    }
}

impl Schema {
    /// The first five violations, one sentence each; empty when the payload satisfies the schema.
    pub fn violations(&self, payload: Ref<'_>) -> Vec<String> {
        let made;
        let payload = match payload {
            Ref::Value(value) => value,
            other => {
                made = other.to_value();
                &made
            }
        };
        self.0
            .iter_errors(payload)
            .take(5)
            .map(|e| format!("{e} at `{}`", e.instance_path()))
            .collect()
    }
}

fn read_dedupe(name: &str, s: &mut Section<'_>, verify: Option<&str>) -> Dedupe {
    match s.one_of("dedupe").as_deref() {
        Some("off") => Dedupe::Off,
        Some("event") if verify != Some("shopify") => {
            let message = format!(
                "source '{name}': `dedupe: event` works with `verify: shopify` only; use \
                 `provider` or `off`"
            );
            s.error("unknown_word", "dedupe", message);
            Dedupe::Provider
        }
        Some("event") => Dedupe::Event,
        _ => Dedupe::Provider,
    }
}

impl Source {
    pub(super) fn read(name: &str, mut s: Section<'_>, known: &External) -> Option<Self> {
        let kind = read_kind(name, &mut s);
        if name.starts_with(RESERVED) {
            s.error(
                "bad_name",
                "",
                format!("source name '{name}' must not start with '{RESERVED}': rename the source"),
            );
        }
        let verify = read_verify(name, &mut s, known);
        let mut secrets: Vec<Secret> = s.secret("secret").into_iter().collect();
        for text in s.texts("secrets").unwrap_or_default() {
            if text.value.trim().is_empty() {
                s.error(
                    "empty_secret",
                    "secrets",
                    format!(
                        "source '{name}' has an empty entry in \
                    `secrets`: set a value, or remove the entry"
                    ),
                );
            } else {
                secrets.push(Secret::new(text.value));
            }
        }
        if let Some(scheme) = &verify {
            check_secrets(name, &mut s, scheme, &secrets, known);
        }
        let cron = read_cron(name, &mut s, kind);
        let source = Self {
            name: name.to_owned(),
            kind: kind.unwrap_or(SourceKind::Event),
            cron,
            secrets,
            schema: read_schema(name, &mut s),
            allowed: read_networks(name, &mut s),
            tolerance: s.duration("tolerance"),
            dedupe: read_dedupe(name, &mut s, verify.as_deref()),
            verify,
            body_bytes_max: s.number("max_body_size").and_then(|n| usize::try_from(n).ok()),
            headers: read_header_names(&mut s),
            ce_type_trusted: s.one_of("ce_type").as_deref() == Some("trusted"),
            signature: SignatureOptions {
                header: read_header_name(&mut s, "signature_header"),
                prefix: s.text("signature_prefix"),
                algorithm: s.one_of("signature_algorithm"),
                encoding: s.one_of("signature_encoding"),
                timestamp_header: read_header_name(&mut s, "timestamp_header"),
            },
        };
        s.bool("skip_verify");
        let topics = s.texts("topic_arns").unwrap_or_default();
        if kind == Some(SourceKind::Sns) && topics.is_empty() {
            s.warn(
                "no_topics",
                "type",
                format!(
                    "source '{name}' has no `topic_arns`, so it \
                refuses every SNS message: list the topics it accepts"
                ),
            );
        }
        if s.has("path") {
            s.warn(
                "no_effect",
                "path",
                format!(
                    "source '{name}': `path` has no effect, because \
                the route is always /webhooks/{name}; remove it"
                ),
            );
            s.text("path");
        }
        s.finish();
        kind.map(|_| source)
    }
}

fn read_kind(name: &str, s: &mut Section<'_>) -> Option<SourceKind> {
    let Some(word) = s.text("type") else {
        if s.has("verify") {
            return Some(SourceKind::Webhook);
        }
        let help = "add `type`: webhook, event, sns, cron or outbound";
        s.problem(
            Severity::Error,
            "missing_key",
            "",
            format!("source '{name}' has no type"),
            Some(help.into()),
        );
        return None;
    };
    match word.as_str() {
        "webhook" => Some(SourceKind::Webhook),
        "event" => Some(SourceKind::Event),
        "sns" => Some(SourceKind::Sns),
        "cron" => Some(SourceKind::Cron),
        "outbound" => Some(SourceKind::Outbound),
        other => {
            let known = ["webhook", "event", "sns", "cron", "outbound"];
            let help = did_you_mean(other, known)
                .unwrap_or_else(|| format!("valid types: {}", known.join(", ")));
            s.problem(
                Severity::Error,
                "unknown_word",
                "type",
                format!("source '{name}' has invalid type '{other}'"),
                Some(help),
            );
            None
        }
    }
}

fn read_verify(name: &str, s: &mut Section<'_>, known: &External) -> Option<String> {
    let is_webhook = matches!(s.text("type").as_deref(), Some("webhook") | None);
    let Some(scheme) = s.text("verify") else {
        if is_webhook && !s.has("verify") && s.has("type") {
            let message =
                format!("source '{name}' accepts webhooks from anyone, because it has no `verify`");
            s.problem(
                Severity::Warning,
                "unverified",
                "type",
                message,
                Some("set `verify` to the provider, or to `none` if this is intended".into()),
            );
        }
        return None;
    };
    if scheme == "none" {
        return None;
    }
    if known.providers.contains_key(scheme.as_str()) {
        return Some(scheme);
    }
    let names = || known.providers.keys().copied();
    let help = did_you_mean(&scheme, names())
        .unwrap_or_else(|| format!("valid values: {}", names().collect::<Vec<_>>().join(", ")));
    s.problem(
        Severity::Error,
        "unknown_provider",
        "verify",
        format!("source '{name}' has unknown verify '{scheme}'"),
        Some(help),
    );
    None
}

/// The number of characters below which a secret is warned of.
const SECRET_CHARS_LEAST: usize = 8;

fn check_secrets(
    name: &str,
    s: &mut Section<'_>,
    scheme: &str,
    secrets: &[Secret],
    known: &External,
) {
    if secrets.is_empty() {
        // An unset variable and an empty text have been told already.
        if !s.has("secret") {
            let help = "add `secret: ${NAME_OF_A_VARIABLE}`";
            let message = format!("source '{name}' has verify enabled but no secret configured");
            s.problem(Severity::Error, "missing_secret", "verify", message, Some(help.into()));
        }
        return;
    }
    let key =
        |s: &Section<'_>, at: usize| if at == 0 && s.has("secret") { "secret" } else { "secrets" };
    if let Some(at) = secrets.iter().position(|secret| secret.expose().trim() != secret.expose()) {
        let message = format!(
            "source '{name}': a secret starts or ends with white space, which counts as part of \
             the secret"
        );
        let help = "remove the white space (often a line break from `echo`), unless the sender \
            uses it too";
        s.problem(Severity::Warning, "secret_whitespace", key(s, at), message, Some(help.into()));
    }
    if let Some(at) =
        secrets.iter().position(|secret| secret.expose().trim().len() < SECRET_CHARS_LEAST)
    {
        let message = format!(
            "source '{name}': a secret has fewer than {SECRET_CHARS_LEAST} characters and can be \
             guessed"
        );
        s.problem(
            Severity::Warning,
            "weak_secret",
            key(s, at),
            message,
            Some("use at least 16 random characters".into()),
        );
    }
    let Some(check) = known.providers.get(scheme) else { return };
    for (at, secret) in secrets.iter().enumerate() {
        if let Err(why) = check(secret.expose()) {
            s.error("bad_secret", key(s, at), format!("source '{name}': {why}"));
        }
    }
}

fn read_networks(name: &str, s: &mut Section<'_>) -> Networks {
    let entries = s.texts("allowed_ips").unwrap_or_default();
    match Networks::parse(entries.iter().map(|e| e.value.as_str())) {
        Ok(networks) => networks,
        Err(why) => {
            s.error("bad_address", "allowed_ips", format!("source '{name}': {why}"));
            Networks::default()
        }
    }
}

fn read_header_name(s: &mut Section<'_>, key: &str) -> Option<String> {
    let name = s.text(key)?;
    if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
        s.error("bad_header", key, format!("`{name}` is not a valid header name"));
        return None;
    }
    Some(name.to_ascii_lowercase())
}

fn read_header_names(s: &mut Section<'_>) -> Vec<String> {
    let mut names = Vec::new();
    for text in s.texts("headers").unwrap_or_default() {
        let name = text.value.trim().to_ascii_lowercase();
        let is_secret = ["authorization", "proxy-authorization", "cookie"].contains(&name.as_str());
        match http::HeaderName::from_bytes(name.as_bytes()) {
            Ok(_) if is_secret => {
                s.error(
                    "bad_header",
                    "headers",
                    format!(
                        "the header `{name}` contains a secret of \
                    the sender and cannot be stored with events: remove it"
                    ),
                );
            }
            Ok(_) => names.push(name),
            Err(_) => {
                s.error("bad_header", "headers", format!("`{name}` is not a valid header name"))
            }
        }
    }
    names
}

fn read_schema(name: &str, s: &mut Section<'_>) -> Option<Schema> {
    let text = s.text("schema").filter(|t| !t.trim().is_empty())?;
    let value: serde_json::Value = match serde_json::from_str(&text) {
        Ok(value) => value,
        Err(why) => {
            s.error(
                "bad_schema",
                "schema",
                format!("source '{name}': the schema is not JSON: {why}"),
            );
            return None;
        }
    };
    match jsonschema::draft202012::new(&value) {
        Ok(validator) => Some(Schema(Arc::new(validator))),
        Err(why) => {
            s.error(
                "bad_schema",
                "schema",
                format!("source '{name}': the schema is not a valid JSON Schema: {why}"),
            );
            None
        }
    }
}

fn read_cron(name: &str, s: &mut Section<'_>, kind: Option<SourceKind>) -> Option<Cron> {
    let schedule = s.text("schedule");
    let zone = s.text("timezone").unwrap_or_else(|| "UTC".to_owned());
    let catch_up = match s.one_of("catch_up").as_deref() {
        Some("one") => CatchUp::One,
        Some("all") => CatchUp::All,
        _ => CatchUp::Skip,
    };
    let jitter = s.duration("jitter").unwrap_or(Duration::ZERO);
    let read: Result<Zone, ()> = zone.parse();
    if read.is_err() {
        let message = format!(
            "source '{name}' has invalid timezone '{zone}'. Use UTC, an offset like +09:00, or a \
             name like America/New_York"
        );
        s.error("bad_timezone", "timezone", message);
    }
    if kind != Some(SourceKind::Cron) {
        return None;
    }
    let Some(text) = schedule else {
        s.error(
            "missing_key",
            "type",
            format!(
                "source '{name}' is type 'cron' but has no \
            schedule: add `schedule`, a cron expression like `0 9 * * *`"
            ),
        );
        return None;
    };
    match Schedule::parse(&text, read.ok()?) {
        Ok(schedule) => {
            // Ten years from a fixed day hold every date a schedule can name, leap days included.
            if schedule.after(Timestamp(1_767_225_600_000)).is_none() {
                s.warn(
                    "never_fires",
                    "schedule",
                    format!(
                        "source '{name}' has a cron schedule \
                    '{text}' that never fires: no date matches it"
                    ),
                );
            }
            let first = schedule.after(Timestamp(1_767_225_600_000));
            let second = first.and_then(|first| schedule.after(first));
            if let (Some(first), Some(second)) = (first, second)
                && jitter > second.since(first)
            {
                let message = format!(
                    "source '{name}' has a jitter that is longer than the time between two ticks, \
                     so ticks come late; use a shorter one"
                );
                s.warn("long_jitter", "jitter", message);
            }
            Some(Cron { schedule, catch_up, jitter })
        }
        Err(why) => {
            let message = format!("source '{name}' has invalid cron schedule '{text}': {why}");
            s.error("bad_schedule", "schedule", message);
            None
        }
    }
}
