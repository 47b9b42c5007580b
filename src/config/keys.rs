//! The keys of the configuration. Reading, suggestions (`did you mean`), the reference and the
//! editor schema all use these lists.
//!
//! The keys of workflows and steps are in `workflow::keys` and in the files of the step types.

use std::sync::LazyLock;

use super::workflow;

/// The kind of value that a key of the configuration accepts.
#[derive(Debug, Clone, Copy)]
pub enum Takes {
    /// Any scalar, read as text; a variable that is not set is a warning.
    Text,
    /// A text that must not be empty; a variable in it that is not set is an error.
    Secret,
    /// An http or https URL; a variable in it that is not set is an error.
    Url,
    /// `true` or `false`, also with a capital letter or in capitals.
    Bool,
    /// A whole number from the first bound to the second, both included.
    Number(u64, u64),
    /// A number from the first bound to the second, both included; it may have decimals.
    Fraction(f64, f64),
    /// A whole number with a unit, `250ms`, `30s`, `5m`, `2h` or `7d`; without a unit it is
    /// seconds.
    Duration,
    /// One of these words, in this spelling.
    OneOf(&'static [&'static str]),
    /// A list of scalars, read as texts.
    Texts,
    /// One scalar, or a list of scalars, read as texts.
    OneOrMoreTexts,
    /// A list whose entries are some of these words.
    AnyOf(&'static [&'static str]),
    /// A mapping of free names to texts, such as headers.
    TextMap,
    /// A template: a text, or a mapping or list that holds texts.
    Template,
    /// A section with these keys.
    Section(&'static Keys),
    /// A section with these keys, or a list of such sections.
    OneOrMore(&'static Keys),
    /// A mapping of free names to sections with these keys, such as `handlers`.
    Named(&'static Keys),
    /// A list of sections with these keys, such as the steps of a workflow.
    Items(&'static Keys),
}

/// One key of the configuration: its name, the value it accepts and its line in the reference.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// The key as it is written in the file, without the path of its section.
    pub name: &'static str,
    /// The kind of value; it drives reading, the editor schema and the generated reference.
    pub takes: Takes,
    /// One line of documentation for editors and the generated reference; defaults stand in
    /// parentheses.
    pub about: &'static str,
}

/// The keys that one section accepts; any other key in it is reported as unknown. A list is built
/// when it is first used, so that groups of keys can be shared.
pub type Keys = LazyLock<Vec<Key>>;

/// Concatenates groups of keys into the list of a section.
pub(super) fn joined(groups: &[&[Key]]) -> Vec<Key> {
    groups.concat()
}

/// The list of a section that accepts no keys at all.
pub(super) static NONE: Keys = LazyLock::new(Vec::new);

pub(super) const fn key(name: &'static str, takes: Takes, about: &'static str) -> Key {
    Key { name, takes, about }
}

/// The upper bound of a number that has no other bound.
pub(super) const ANY: u64 = u32::MAX as u64;
pub(super) const METHODS: &[&str] = &["GET", "POST", "PUT", "PATCH", "DELETE"];

/// The sections at the top of the file, in the order of the reference.
pub static TOP: Keys = LazyLock::new(|| {
    vec![
        key("database", Takes::Section(&DATABASE), "The database that stores events"),
        key(
            "server",
            Takes::Section(&SERVER),
            "The HTTP server, and which addresses deliveries may reach",
        ),
        key("api", Takes::Section(&API), "Access to the API"),
        key("delivery", Takes::Section(&DELIVERY), "Defaults for deliveries"),
        key("sources", Takes::Named(&SOURCE), "Where events come from"),
        key(
            "handlers",
            Takes::Named(&HANDLER),
            "Who gets events: one HTTP delivery per matching event",
        ),
        key(
            "workflows",
            Takes::Named(&workflow::keys::WORKFLOW),
            "Workflows: runs of several steps",
        ),
        key("queues", Takes::Named(&QUEUE), "Queues that consumers pull from"),
        key(
            "worker",
            Takes::Section(&WORKER),
            "How the worker processes deliveries, and retention",
        ),
        key("alerts", Takes::Section(&ALERTS), "Where to send alerts"),
        key("compat", Takes::Section(&COMPAT), "Compatibility with qhook"),
    ]
});

static DATABASE: Keys = LazyLock::new(|| {
    vec![
        key(
            "driver",
            Takes::OneOf(&["sqlite", "postgres", "mysql", "d1"]),
            "sqlite (default), postgres, or mysql for MySQL and MariaDB",
        ),
        key("url", Takes::Secret, "Database URL (default: DATABASE_URL)"),
        key("max_connections", Takes::Number(1, 1000), "Pool size (10)"),
        key(
            "pooler",
            Takes::OneOf(&["none", "transaction", "rds_proxy"]),
            "Pooler in front of the database (none). transaction: PgBouncer in transaction mode; \
             rds_proxy: RDS Proxy with the init query of infra/proxy.yaml",
        ),
        key(
            "auth",
            Takes::OneOf(&["password", "iam"]),
            "How to log in (password). iam: an IAM token signed with the AWS credentials, for RDS \
             and Aurora",
        ),
        key("account_id", Takes::Text, "Cloudflare D1"),
        key("database_id", Takes::Text, "Cloudflare D1"),
        key("api_token", Takes::Secret, "Cloudflare D1"),
        key("d1_endpoint", Takes::Text, "Cloudflare D1"),
    ]
});

static SERVER: Keys = LazyLock::new(|| {
    vec![
        key("port", Takes::Number(0, 65535), "Listen port (8888)"),
        key("bind", Takes::Text, "Listen address (0.0.0.0)"),
        key("public_url", Takes::Url, "Base URL of this server as seen from outside"),
        key("max_body_size", Takes::Number(1, 1 << 30), "Largest request body in bytes (1048576)"),
        key(
            "max_inbound",
            Takes::Number(1, ANY),
            "Maximum number of requests in progress (100); a request counts once it has arrived in \
             full; more get 503",
        ),
        key(
            "ip_rate_limit",
            Takes::Number(0, ANY),
            "Maximum requests per second per client address; 0 turns it off",
        ),
        key(
            "allow_private_urls",
            Takes::Bool,
            "Allow deliveries to private and loopback addresses (development only)",
        ),
        key(
            "allowed_private_hosts",
            Takes::Texts,
            "Private host names, globs or networks that deliveries may reach",
        ),
        key("denied_ports", Takes::Texts, "Ports that deliveries may not reach"),
        key("trust_proxy", Takes::Bool, "Read the client address from X-Forwarded-For"),
        key(
            "trusted_proxies",
            Takes::Texts,
            "Networks of the proxies whose X-Forwarded-For is trusted; or the number of proxies, \
             if clients cannot bypass them (1)",
        ),
        key(
            "skip_endpoint_verification",
            Takes::Bool,
            "Outbound endpoints start active without a challenge (later)",
        ),
        key("echo", Takes::Bool, "Serve /_echo (default: the value of allow_private_urls)"),
    ]
});

static API: Keys = LazyLock::new(|| {
    vec![
        key(
            "auth_token",
            Takes::Secret,
            "Bearer token for /events and /api. Without it, /events is open, and /api accepts \
             loopback clients only",
        ),
        key(
            "open",
            Takes::Bool,
            "Without auth_token: /api accepts all clients, not only loopback clients (false)",
        ),
        key(
            "metrics_auth_token",
            Takes::Secret,
            "Bearer token for /metrics; without it, /metrics is open",
        ),
    ]
});

pub(super) static RETRY: Keys = LazyLock::new(|| {
    vec![
        key(
            "max",
            Takes::Number(0, 1000),
            "Maximum number of attempts, including the first (5); 0 and 1 mean one attempt",
        ),
        key(
            "backoff",
            Takes::OneOf(&["exponential", "fixed"]),
            "How the delay between attempts grows (exponential)",
        ),
        key(
            "rate",
            Takes::Fraction(1.0, 100.0),
            "Factor from one delay to the next (2); 1 keeps the delay constant",
        ),
        key("interval", Takes::Duration, "Delay before the second attempt (30s)"),
        key("max_delay", Takes::Duration, "Longest delay (8h)"),
        key("max_interval", Takes::Duration, "Other name of max_delay"),
        key(
            "jitter",
            Takes::Text,
            "Random variation of each delay as a share of it (0.2); full: any value up to the \
             delay; none: no variation",
        ),
        key(
            "errors",
            Takes::Texts,
            "Which failures are retried ([all]): error classes, statuses, ranges",
        ),
        key(
            "deadline",
            Takes::Duration,
            "No attempt starts later than this after the first due time (off)",
        ),
        key(
            "respect_retry_after",
            Takes::Bool,
            "Wait for the Retry-After of the receiver if it is later than the backoff (true)",
        ),
    ]
});

static DELIVERY: Keys = LazyLock::new(|| {
    vec![
        key(
            "signing_secret",
            Takes::Secret,
            "Secret that signs deliveries (Standard Webhooks): whsec_ followed by base64",
        ),
        key("timeout", Takes::Duration, "Total deadline of one delivery (30s)"),
        key(
            "default_retry",
            Takes::OneOrMore(&RETRY),
            "Retry policy of handlers without their own",
        ),
        key(
            "event_ttl",
            Takes::Duration,
            "Deliveries that are not done after this time become dead within seconds (off); one \
             that becomes due at that moment may still be sent",
        ),
        key("idempotency_ttl", Takes::Duration, "How long idempotency keys are kept (168h)"),
    ]
});

static RETENTION: Keys = LazyLock::new(|| {
    vec![
        key(
            "completed",
            Takes::Section(&KEEP),
            "Deliveries that were made or cancelled, and runs that completed or were cancelled",
        ),
        key("dead", Takes::Section(&KEEP), "Dead deliveries and failed runs"),
    ]
});

static KEEP: Keys = LazyLock::new(|| {
    vec![
        key("age", Takes::Duration, "Time after the end (retention_hours)"),
        key(
            "count",
            Takes::Number(1, 10_000_000),
            "Number of deliveries to keep; an older one is deleted before its time",
        ),
    ]
});

static WORKER: Keys = LazyLock::new(|| {
    vec![
        key(
            "stale_threshold_secs",
            Takes::Number(1, ANY),
            "Longest lease of a delivery, in seconds (300)",
        ),
        key(
            "retention_hours",
            Takes::Number(1, 1_000_000),
            "Retention of finished work, in hours (72)",
        ),
        key("retention", Takes::Section(&RETENTION), "Retention of finished work, by status"),
        key(
            "drain_timeout_secs",
            Takes::Number(0, 86_400),
            "How long a graceful shutdown waits for in-flight deliveries, in seconds (30)",
        ),
        key(
            "max_concurrency",
            Takes::Number(1, 10_000),
            "Maximum number of parallel deliveries (10)",
        ),
        key("batch_size", Takes::Number(1, 10_000), "Maximum number of jobs per claim (10)"),
    ]
});

static COMPAT: Keys = LazyLock::new(|| {
    vec![
        key(
            "qhook_headers",
            Takes::Bool,
            "Also send X-Qhook-* headers with the X-Tidehook-* headers (true)",
        ),
        key(
            "qhook_metrics",
            Takes::Bool,
            "Also export qhook_* metrics with the tidehook_* metrics (true)",
        ),
        key(
            "catch_payload",
            Takes::OneOf(&["superset", "qhook"]),
            "Payload that the target of a catch receives",
        ),
        key(
            "expressions",
            Takes::OneOf(&["tidehook", "qhook"]),
            "How conditions and patterns are read",
        ),
        key(
            "unknown_keys",
            Takes::OneOf(&["error", "warn"]),
            "Whether an unknown key is an error or a warning",
        ),
    ]
});

/// The keys of an entry under `sources`, for all types of source together.
pub static SOURCE: Keys = LazyLock::new(|| {
    vec![
        key(
            "type",
            Takes::OneOf(&["webhook", "event", "sns", "cron", "outbound"]),
            "The kind of source",
        ),
        key(
            "verify",
            Takes::Text,
            "Signature scheme of the provider; `none` turns verification off",
        ),
        key("secret", Takes::Secret, "The signing secret of the provider"),
        key("secrets", Takes::Texts, "Additional secrets that are accepted, for rotation"),
        key("skip_verify", Takes::Bool, "SNS only: skip the certificate check"),
        key(
            "schedule",
            Takes::Text,
            "Cron only: cron expression with 5 fields, or 6 with leading seconds",
        ),
        key(
            "catch_up",
            Takes::OneOf(&["skip", "one", "all"]),
            "Cron only: what happens to times that passed while nothing ran: they are left out, \
             the last one fires, or all do (the last hundred at most); `skip` if absent",
        ),
        key(
            "jitter",
            Takes::Duration,
            "Cron only: spreads ticks over this span, each by a fixed amount",
        ),
        key("timezone", Takes::Text, "Cron only: time zone: UTC, an offset or an IANA name"),
        key(
            "schema",
            Takes::Text,
            "JSON Schema (draft 2020-12) that payloads must satisfy, as a string; `format` is not \
             checked",
        ),
        key("allowed_ips", Takes::Texts, "Client addresses or networks that may send requests"),
        key("path", Takes::Text, "No effect; accepted because samples contain it"),
        key(
            "tolerance",
            Takes::Duration,
            "Maximum age of a signature (replay window); 0 turns the check off",
        ),
        key(
            "max_body_size",
            Takes::Number(1, 1 << 30),
            "Largest body of this source in bytes (default: server.max_body_size)",
        ),
        key(
            "headers",
            Takes::Texts,
            "Additional request headers to store with the event and send with deliveries",
        ),
        key(
            "dedupe",
            Takes::OneOf(&["provider", "event", "off"]),
            "Which id detects duplicates (provider). provider: the delivery id of the provider; \
             event: the event id (shopify only); off: none",
        ),
        key("topic_arns", Takes::Texts, "SNS topics to accept and confirm"),
        key(
            "ce_type",
            Takes::OneOf(&["unverified", "trusted"]),
            "Whether the header ce-type sets the event type on a verified source",
        ),
        key(
            "signature_header",
            Takes::Text,
            "verify: hmac: header of the signature (X-Webhook-Signature)",
        ),
        key("signature_prefix", Takes::Text, "verify: hmac: prefix before the signature"),
        key(
            "signature_algorithm",
            Takes::OneOf(&["sha256", "sha512", "sha1"]),
            "verify: hmac: hash algorithm (sha256)",
        ),
        key(
            "signature_encoding",
            Takes::OneOf(&["hex", "base64"]),
            "verify: hmac: encoding of the signature (hex)",
        ),
        key("timestamp_header", Takes::Text, "verify: grafana: header of the timestamp"),
    ]
});

/// The keys of an entry under `handlers`.
pub static HANDLER: Keys = LazyLock::new(|| {
    vec![
        key("source", Takes::Text, "The source to listen to"),
        key(
            "was",
            Takes::OneOrMoreTexts,
            "Earlier name of the handler, or a list of them, oldest first; waiting deliveries move \
             to the new name",
        ),
        key("events", Takes::Texts, "Event type patterns; an empty list matches all types"),
        key("url", Takes::Url, "URL that deliveries are sent to"),
        key("type", Takes::OneOf(&["http"]), "Always http"),
        key("method", Takes::OneOf(METHODS), "HTTP method (POST)"),
        key(
            "retry",
            Takes::OneOrMore(&RETRY),
            "Retry policy, or a list of them; missing keys come from delivery.default_retry",
        ),
        key("timeout", Takes::Duration, "Total deadline of one delivery"),
        key(
            "idempotency_key",
            Takes::Text,
            "Path of an idempotency key: the handler gets one delivery per key",
        ),
        key(
            "rate_limit",
            Takes::Number(0, ANY),
            "Maximum deliveries per second, across all processes; also the burst after a pause; 0 \
             is unlimited",
        ),
        key(
            "breaker",
            Takes::Section(&BREAKER),
            "When the circuit breaker of the handler opens and closes",
        ),
        key("filter", Takes::Text, "Condition on the payload"),
        key("transform", Takes::Template, "Template of the request body"),
        key(
            "headers",
            Takes::TextMap,
            "Request headers; they replace built-in headers of the same name",
        ),
        key(
            "allowed_private_hosts",
            Takes::Texts,
            "Private networks or hosts that this handler may reach",
        ),
    ]
});

static BREAKER: Keys = LazyLock::new(|| {
    vec![
        key(
            "failures",
            Takes::Number(1, 1_000_000),
            "Consecutive failures that open the breaker (5)",
        ),
        key("open_for", Takes::Duration, "How long the breaker stays open (60s)"),
        key(
            "max_open",
            Takes::Duration,
            "Each failed probe doubles the open time, up to this (default: open_for)",
        ),
        key(
            "probes",
            Takes::Number(1, 1000),
            "Consecutive successful probes that close the breaker (1)",
        ),
    ]
});

/// The keys of an entry under `queues`.
pub static QUEUE: Keys = LazyLock::new(|| {
    vec![
        key("source", Takes::Text, "The source to listen to"),
        key("events", Takes::Texts, "Event type patterns; an empty list matches all types"),
        key("filter", Takes::Text, "Condition on the payload"),
        key(
            "idempotency_key",
            Takes::Text,
            "Path of an idempotency key: the queue gets one message per key",
        ),
        key(
            "visibility_timeout",
            Takes::Duration,
            "How long a received message stays invisible (30s)",
        ),
        key(
            "max_attempts",
            Takes::Number(1, 1000),
            "Receives of a message before it moves to the dead-letter queue",
        ),
        key("api_key", Takes::Secret, "Bearer key of the consumers; without it, the queue is open"),
    ]
});

static ALERTS: Keys = LazyLock::new(|| {
    vec![
        key("url", Takes::Url, "URL that alerts are posted to"),
        key(
            "type",
            Takes::Text,
            "Format of the alerts: generic (default), slack, discord, pagerduty",
        ),
        key("routing_key", Takes::Secret, "PagerDuty only: the integration key of the service"),
        key("on", Takes::AnyOf(ALERT_KINDS), "Which alerts to send ([dlq, verification_failure])"),
    ]
});

/// The words that `alerts.on` accepts; the first two are its default.
pub const ALERT_KINDS: &[&str] = &[
    "dlq",
    "verification_failure",
    "circuit_opened",
    "workflow_failed",
    "db_unhealthy",
    "custom",
    "event_ttl_expired",
    "compensation_failed",
];
