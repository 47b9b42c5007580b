//! The keys of the configuration file: the one list behind reading, `did you mean`, the reference and the editor schema.
//!
//! Those of workflows and steps are in `workflow::keys` and in the files of the step types.

use std::sync::LazyLock;

use super::workflow;

/// What a key takes.
#[derive(Debug, Clone, Copy)]
pub enum Takes {
    /// Text.
    Text,
    /// Text that must not be empty and whose variables must be set.
    Secret,
    /// An http or https URL.
    Url,
    /// `true` or `false`.
    Bool,
    /// A whole number in a range.
    Number(u64, u64),
    /// A fraction in a range.
    Fraction(f64, f64),
    /// A duration.
    Duration,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A list of texts.
    Texts,
    /// One text, or a list of texts.
    OneOrMoreTexts,
    /// A list of words.
    Words(&'static [&'static str]),
    /// A mapping of names to texts.
    TextMap,
    /// Text, or any mapping or list of texts: a template.
    Template,
    /// A section with keys of its own.
    Section(&'static Keys),
    /// A section, or a list of such sections.
    OneOrMore(&'static Keys),
    /// Named sections with the same keys.
    Named(&'static Keys),
    /// A list of sections with the same keys.
    Items(&'static Keys),
}

/// A key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What it takes.
    pub takes: Takes,
    /// What it means, for editors.
    pub about: &'static str,
}

/// The keys of a section. Lists are built when they are first used, so that groups of keys can be shared.
pub type Keys = LazyLock<Vec<Key>>;

/// One list of several groups.
pub(super) fn joined(groups: &[&[Key]]) -> Vec<Key> {
    groups.concat()
}

/// A section without keys.
pub(super) static NONE: Keys = LazyLock::new(Vec::new);

pub(super) const fn key(name: &'static str, takes: Takes, about: &'static str) -> Key {
    Key { name, takes, about }
}

/// The largest number where nothing else bounds it.
pub(super) const ANY: u64 = u32::MAX as u64;
pub(super) const METHODS: &[&str] = &["GET", "POST", "PUT", "PATCH", "DELETE"];

/// The top level.
pub static TOP: Keys = LazyLock::new(|| {
    vec![
        key("database", Takes::Section(&DATABASE), "Where events are kept"),
        key("server", Takes::Section(&SERVER), "How tidehook is reached"),
        key("api", Takes::Section(&API), "Who may call the API"),
        key("delivery", Takes::Section(&DELIVERY), "Defaults of deliveries"),
        key("sources", Takes::Named(&SOURCE), "Where events come from"),
        key("handlers", Takes::Named(&HANDLER), "Who gets events: one HTTP call each"),
        key("workflows", Takes::Named(&workflow::keys::WORKFLOW), "Multi-step work"),
        key("queues", Takes::Named(&QUEUE), "Queues that consumers pull from"),
        key("worker", Takes::Section(&WORKER), "How deliveries are worked off"),
        key("alerts", Takes::Section(&ALERTS), "Whom to tell when something breaks"),
        key("compat", Takes::Section(&COMPAT), "Readings of older files"),
    ]
});

static DATABASE: Keys = LazyLock::new(|| {
    vec![
        key("driver", Takes::Word(&["sqlite", "postgres", "mysql", "d1"]), "sqlite (default), postgres, mysql"),
        key("url", Takes::Secret, "Database URL; DATABASE_URL when absent"),
        key("max_connections", Takes::Number(1, 1000), "Pool size (10)"),
        key(
            "pooler",
            Takes::Word(&["none", "transaction", "rds_proxy"]),
            "transaction: behind PgBouncer in transaction mode; rds_proxy: behind RDS Proxy with the init query of infra/proxy.yaml (none)",
        ),
        key(
            "auth",
            Takes::Word(&["password", "iam"]),
            "iam: the password is signed by AWS's credentials, for RDS and Aurora (password)",
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
        key("public_url", Takes::Url, "The base URL as the outside sees it"),
        key("max_body_size", Takes::Number(1, 1 << 30), "Largest request body in bytes (1048576)"),
        key(
            "max_inbound",
            Takes::Number(1, ANY),
            "Requests at work at once, counted when they have arrived in full; more are answered 503 (100)",
        ),
        key("ip_rate_limit", Takes::Number(0, ANY), "Requests per second and client address; 0 is off"),
        key("allow_private_urls", Takes::Bool, "Allow private and loopback URLs (development only)"),
        key("allowed_private_hosts", Takes::Texts, "Host names, globs or networks that may be reached although private"),
        key("denied_ports", Takes::Texts, "Ports that deliveries may not reach"),
        key("trust_proxy", Takes::Bool, "Take the client address from X-Forwarded-For"),
        key(
            "trusted_proxies",
            Takes::Texts,
            "The networks of the proxies whose X-Forwarded-For counts; or how many hops stand in front, if nobody can get past them (1)",
        ),
        key("skip_endpoint_verification", Takes::Bool, "Outbound endpoints start active without a challenge (later)"),
        key("echo", Takes::Bool, "Serve /_echo; follows allow_private_urls"),
    ]
});

static API: Keys = LazyLock::new(|| {
    vec![
        key(
            "auth_token",
            Takes::Secret,
            "Bearer token of /events and /api; when absent, /events is open and /api answers loopback clients only",
        ),
        key("open", Takes::Bool, "Without auth_token: /api answers everyone, and not only loopback clients (false)"),
        key("metrics_auth_token", Takes::Secret, "Bearer token of /metrics; open when absent"),
    ]
});

pub(super) static RETRY: Keys = LazyLock::new(|| {
    vec![
        key("max", Takes::Number(0, 1000), "Attempts in all (5); 0 and 1 are one attempt"),
        key("backoff", Takes::Word(&["exponential", "fixed"]), "How the delay grows (exponential)"),
        key("rate", Takes::Fraction(1.0, 100.0), "Each delay is this many times the one before (2); 1 is fixed"),
        key("interval", Takes::Duration, "The first delay (30s)"),
        key("max_delay", Takes::Duration, "No delay is longer (8h)"),
        key("max_interval", Takes::Duration, "The same as max_delay"),
        key("jitter", Takes::Text, "Each delay varies by this share (0.2); full: anything up to the delay; none"),
        key("errors", Takes::Texts, "Which failures are worth another attempt ([all]): classes, statuses, ranges"),
        key("deadline", Takes::Duration, "No attempt is later than this after the work was due first (off)"),
        key(
            "respect_retry_after",
            Takes::Bool,
            "Whether the next attempt waits for Retry-After where that is later than the schedule (true)",
        ),
    ]
});

static DELIVERY: Keys = LazyLock::new(|| {
    vec![
        key("signing_secret", Takes::Secret, "Signs what is sent, as Standard Webhooks; whsec_ and base64"),
        key("timeout", Takes::Duration, "Total deadline of one delivery (30s)"),
        key("default_retry", Takes::OneOrMore(&RETRY), "Retry policy of handlers that say nothing else"),
        key(
            "event_ttl",
            Takes::Duration,
            "Deliveries that wait longer are given up, within seconds of it; one that becomes due just then may still be made (off)",
        ),
        key("idempotency_ttl", Takes::Duration, "How long idempotency keys are remembered (168h)"),
    ]
});

static WORKER: Keys = LazyLock::new(|| {
    vec![
        key("stale_threshold_secs", Takes::Number(1, ANY), "Longest lease of a delivery, in seconds (300)"),
        key("retention_hours", Takes::Number(1, 1_000_000), "How long ended work is kept (72)"),
        key("drain_timeout_secs", Takes::Number(0, 86_400), "How long a shutdown waits for deliveries (30)"),
        key("max_concurrency", Takes::Number(1, 10_000), "Parallel deliveries (10)"),
        key("batch_size", Takes::Number(1, 10_000), "Jobs claimed at once (10)"),
    ]
});

static COMPAT: Keys = LazyLock::new(|| {
    vec![
        key("qhook_headers", Takes::Bool, "Send X-Qhook-* beside X-Tidehook-* (true)"),
        key("qhook_metrics", Takes::Bool, "Emit qhook_* beside tidehook_* (true)"),
        key("catch_payload", Takes::Word(&["superset", "qhook"]), "What a catch target receives"),
        key("expressions", Takes::Word(&["tidehook", "qhook"]), "How conditions and patterns are read"),
        key("unknown_keys", Takes::Word(&["error", "warn"]), "What an unknown key is"),
    ]
});

/// The keys of a source.
pub static SOURCE: Keys = LazyLock::new(|| {
    vec![
        key("type", Takes::Word(&["webhook", "event", "sns", "cron", "outbound"]), "What kind of source it is"),
        key("verify", Takes::Text, "Signature scheme of the provider; `none` on purpose"),
        key("secret", Takes::Secret, "The provider's signing secret"),
        key("secrets", Takes::Texts, "Further accepted secrets, for rotation"),
        key("skip_verify", Takes::Bool, "SNS only: skip the certificate check"),
        key("schedule", Takes::Text, "Cron only: 5 fields, or 6 with leading seconds"),
        key("timezone", Takes::Text, "Cron only: UTC, an offset or an IANA name"),
        key(
            "schema",
            Takes::Text,
            "JSON Schema (draft 2020-12) as text that payloads must satisfy; `format` is a note and not asserted",
        ),
        key("allowed_ips", Takes::Texts, "Client addresses or networks that may send"),
        key("path", Takes::Text, "No effect; appears in samples"),
        key("tolerance", Takes::Duration, "Replay window of signatures; 0 is off"),
        key("max_body_size", Takes::Number(1, 1 << 30), "Largest body of this source in bytes; server.max_body_size when absent"),
        key("headers", Takes::Texts, "Request headers that are kept with the event and delivered, beside those of the provider"),
        key(
            "dedupe",
            Takes::Word(&["provider", "event", "off"]),
            "Which id makes repeats harmless: the provider's of the delivery (provider), of the event (shopify), or none",
        ),
        key("topic_arns", Takes::Texts, "SNS topics that are accepted and confirmed"),
        key("ce_type", Takes::Word(&["unverified", "trusted"]), "Whether ce-type sets the type on a verified source"),
        key("signature_header", Takes::Text, "verify: hmac: the header (X-Webhook-Signature)"),
        key("signature_prefix", Takes::Text, "verify: hmac: what stands before the signature"),
        key("signature_algorithm", Takes::Word(&["sha256", "sha512", "sha1"]), "verify: hmac: sha256"),
        key("signature_encoding", Takes::Word(&["hex", "base64"]), "verify: hmac: hex"),
        key("timestamp_header", Takes::Text, "verify: grafana: the header with the timestamp"),
    ]
});

/// The keys of a handler.
pub static HANDLER: Keys = LazyLock::new(|| {
    vec![
        key("source", Takes::Text, "The source it listens to"),
        key(
            "was",
            Takes::OneOrMoreTexts,
            "Its earlier name, or a list of them, the first one first: deliveries that wait under it become its own",
        ),
        key("events", Takes::Texts, "Event type patterns; empty is all"),
        key("url", Takes::Url, "Where events are delivered"),
        key("type", Takes::Word(&["http"]), "Only http"),
        key("method", Takes::Word(METHODS), "HTTP method (POST)"),
        key(
            "retry",
            Takes::OneOrMore(&RETRY),
            "Retry policy, or a list of them; what is left out comes from delivery.default_retry",
        ),
        key("timeout", Takes::Duration, "Total deadline of one delivery"),
        key("idempotency_key", Takes::Text, "Path of a key under which this handler wants an event once"),
        key(
            "rate_limit",
            Takes::Number(0, ANY),
            "Deliveries per second over all processes, and as many at once after a pause; 0 is unlimited",
        ),
        key("breaker", Takes::Section(&BREAKER), "When its circuit breaker opens and closes"),
        key("filter", Takes::Text, "Condition on the payload"),
        key("transform", Takes::Template, "Template of the body"),
        key("headers", Takes::TextMap, "Headers; they replace built-in ones of the same name"),
        key("allowed_private_hosts", Takes::Texts, "Networks or hosts this handler may reach although private"),
    ]
});

static BREAKER: Keys = LazyLock::new(|| {
    vec![
        key("failures", Takes::Number(1, 1_000_000), "Consecutive failures that open it (5)"),
        key("open_for", Takes::Duration, "How long it stays open (60s)"),
        key("max_open", Takes::Duration, "Each failed probe doubles that time, up to this (open_for)"),
        key("probes", Takes::Number(1, 1000), "Probes that must succeed, one after the other, to close it (1)"),
    ]
});

/// The keys of a queue.
pub static QUEUE: Keys = LazyLock::new(|| {
    vec![
        key("source", Takes::Text, "The source it listens to"),
        key("events", Takes::Texts, "Event type patterns; empty is all"),
        key("filter", Takes::Text, "Condition on the payload"),
        key("idempotency_key", Takes::Text, "Path of a key under which this queue wants an event once"),
        key("visibility_timeout", Takes::Duration, "How long a received message is invisible (30s)"),
        key("max_attempts", Takes::Number(1, 1000), "Deliveries before the dead-letter queue"),
        key("api_key", Takes::Secret, "Bearer key of its consumers; open when absent"),
    ]
});

static ALERTS: Keys = LazyLock::new(|| {
    vec![
        key("url", Takes::Url, "Where alerts are posted"),
        key("type", Takes::Text, "generic (default), slack, discord"),
        key("on", Takes::Words(ALERT_KINDS), "Which alerts ([dlq, verification_failure])"),
    ]
});

/// The kinds of alert.
pub const ALERT_KINDS: &[&str] =
    &["dlq", "verification_failure", "circuit_opened", "workflow_failed", "db_unhealthy", "custom", "event_ttl_expired"];
