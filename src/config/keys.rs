//! Every key there is: the one list behind reading, `did you mean` and the editor schema.

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

/// The keys of a section.
pub type Keys = [Key];

const fn key(name: &'static str, takes: Takes, about: &'static str) -> Key {
    Key { name, takes, about }
}

const ANY: u64 = u32::MAX as u64;
const METHODS: &[&str] = &["GET", "POST", "PUT", "PATCH", "DELETE"];

/// The top level.
pub static TOP: [Key; 11] = [
    key("database", Takes::Section(&DATABASE), "Where events are kept"),
    key("server", Takes::Section(&SERVER), "How tidehook is reached"),
    key("api", Takes::Section(&API), "Who may call the API"),
    key("delivery", Takes::Section(&DELIVERY), "Defaults of deliveries"),
    key("sources", Takes::Named(&SOURCE), "Where events come from"),
    key("handlers", Takes::Named(&HANDLER), "Who gets events: one HTTP call each"),
    key("workflows", Takes::Named(&WORKFLOW), "Multi-step work"),
    key("queues", Takes::Named(&QUEUE), "Queues that consumers pull from"),
    key("worker", Takes::Section(&WORKER), "How deliveries are worked off"),
    key("alerts", Takes::Section(&ALERTS), "Whom to tell when something breaks"),
    key("compat", Takes::Section(&COMPAT), "Readings of older files"),
];

static DATABASE: [Key; 9] = [
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
];

static SERVER: [Key; 13] = [
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
];

static API: [Key; 3] = [
    key(
        "auth_token",
        Takes::Secret,
        "Bearer token of /events and /api; when absent, /events is open and /api answers loopback clients only",
    ),
    key("open", Takes::Bool, "Without auth_token: /api answers everyone, and not only loopback clients (false)"),
    key("metrics_auth_token", Takes::Secret, "Bearer token of /metrics; open when absent"),
];

static RETRY: [Key; 10] = [
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
];

static DELIVERY: [Key; 5] = [
    key("signing_secret", Takes::Secret, "Signs what is sent, as Standard Webhooks; whsec_ and base64"),
    key("timeout", Takes::Duration, "Total deadline of one delivery (30s)"),
    key("default_retry", Takes::OneOrMore(&RETRY), "Retry policy of handlers that say nothing else"),
    key(
        "event_ttl",
        Takes::Duration,
        "Deliveries that wait longer are given up, within seconds of it; one that becomes due just then may still be made (off)",
    ),
    key("idempotency_ttl", Takes::Duration, "How long idempotency keys are remembered (168h)"),
];

static WORKER: [Key; 5] = [
    key("stale_threshold_secs", Takes::Number(1, ANY), "Longest lease of a delivery, in seconds (300)"),
    key("retention_hours", Takes::Number(1, 1_000_000), "How long ended work is kept (72)"),
    key("drain_timeout_secs", Takes::Number(0, 86_400), "How long a shutdown waits for deliveries (30)"),
    key("max_concurrency", Takes::Number(1, 10_000), "Parallel deliveries (10)"),
    key("batch_size", Takes::Number(1, 10_000), "Jobs claimed at once (10)"),
];

static COMPAT: [Key; 5] = [
    key("qhook_headers", Takes::Bool, "Send X-Qhook-* beside X-Tidehook-* (true)"),
    key("qhook_metrics", Takes::Bool, "Emit qhook_* beside tidehook_* (true)"),
    key("catch_payload", Takes::Word(&["superset", "qhook"]), "What a catch target receives"),
    key("expressions", Takes::Word(&["tidehook", "qhook"]), "How conditions and patterns are read"),
    key("unknown_keys", Takes::Word(&["error", "warn"]), "What an unknown key is"),
];

/// The keys of a source.
pub static SOURCE: [Key; 21] = [
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
];

/// The keys of a handler.
pub static HANDLER: [Key; 15] = [
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
    key("retry", Takes::OneOrMore(&RETRY), "Retry policy, or a list of them; what is left out comes from delivery.default_retry"),
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
];

static BREAKER: [Key; 4] = [
    key("failures", Takes::Number(1, 1_000_000), "Consecutive failures that open it (5)"),
    key("open_for", Takes::Duration, "How long it stays open (60s)"),
    key("max_open", Takes::Duration, "Each failed probe doubles that time, up to this (open_for)"),
    key("probes", Takes::Number(1, 1000), "Probes that must succeed, one after the other, to close it (1)"),
];

/// The keys of a queue.
pub static QUEUE: [Key; 7] = [
    key("source", Takes::Text, "The source it listens to"),
    key("events", Takes::Texts, "Event type patterns; empty is all"),
    key("filter", Takes::Text, "Condition on the payload"),
    key("idempotency_key", Takes::Text, "Path of a key under which this queue wants an event once"),
    key("visibility_timeout", Takes::Duration, "How long a received message is invisible (30s)"),
    key("max_attempts", Takes::Number(1, 1000), "Deliveries before the dead-letter queue"),
    key("api_key", Takes::Secret, "Bearer key of its consumers; open when absent"),
];

static ALERTS: [Key; 3] = [
    key("url", Takes::Url, "Where alerts are posted"),
    key("type", Takes::Text, "generic (default), slack, discord"),
    key("on", Takes::Words(ALERT_KINDS), "Which alerts ([dlq, verification_failure])"),
];

/// The kinds of alert.
pub const ALERT_KINDS: &[&str] =
    &["dlq", "verification_failure", "circuit_opened", "workflow_failed", "db_unhealthy", "custom", "event_ttl_expired"];

/// The keys of a workflow.
pub static WORKFLOW: [Key; 16] = [
    key("source", Takes::Text, "The source it listens to; optional with callable"),
    key("events", Takes::Texts, "Event type patterns; empty is all"),
    key("filter", Takes::Text, "Condition on the payload"),
    key("idempotency_key", Takes::Text, "Path of a key under which an event starts this workflow once"),
    key("timeout", Takes::Duration, "Deadline of a run, waits included (a bare number is seconds)"),
    key("max_steps", Takes::Number(1, 100_000), "How many steps a run may enter (1000)"),
    key("params", Takes::Items(&PARAM), "Top-level keys the payload must have"),
    key("steps", Takes::Items(&STEP), "The steps, in order"),
    key("callable", Takes::Bool, "Other workflows may call it; without `source` it starts in no other way"),
    key("concurrency", Takes::Section(&CONCURRENCY), "How many runs at once"),
    key("retry", Takes::OneOrMore(&RETRY), "Retry policy of steps that say nothing else"),
    key("catch", Takes::Items(&CATCH), "Where failures go that no step catches; taken once in a run"),
    key("on_failure", Takes::Word(&["stop", "compensate"]), "compensate: a run that fails undoes what its steps did"),
    key("finally", Takes::Items(&STEP), "Steps that always run last and cannot change how the run ends"),
    key("output", Takes::Template, "What a run comes to, instead of its last payload"),
    key("retention", Takes::Section(&RETENTION), "How long runs are kept, by how they ended"),
];

static CONCURRENCY: [Key; 3] = [
    key("key", Takes::Text, "Template: runs with the same key count together; without one all do"),
    key("limit", Takes::Number(1, 10_000), "So many at once (1)"),
    key("on_limit", Takes::Word(ON_LIMIT), "What becomes of one too many (queue)"),
];

/// What becomes of a run that is one too many.
pub const ON_LIMIT: &[&str] = &["queue", "skip", "cancel_running", "replace_queued"];

static RETENTION: [Key; 2] = [
    key("completed", Takes::Duration, "Those that completed"),
    key("failed", Takes::Duration, "Those that failed or were called off"),
];

static PARAM: [Key; 3] = [
    key("name", Takes::Text, "The key"),
    key("type", Takes::Text, "string (default), number, boolean, object, array"),
    key("required", Takes::Bool, "Whether it must be there (true)"),
];

/// The types of step.
pub const STEP_TYPES: &[&str] =
    &["http", "choice", "parallel", "map", "wait", "callback", "approval", "workflow", "set", "emit", "fail"];
/// Those that may stand inside a map.
const INNER_TYPES: &[&str] = &["http", "choice", "wait", "callback", "approval", "workflow", "set", "emit", "fail"];

const CALLING: &[&str] = &["http", "map", "callback"];
const WAITING: &[&str] = &["callback", "approval"];

/// Keys that only some types of step read.
pub const STEP_KEYS_OF: [(&str, &[&str]); 42] = [
    ("choices", &["choice"]),
    ("default", &["choice"]),
    ("branches", &["parallel"]),
    ("iterator", &["map"]),
    ("items", &["map"]),
    ("items_path", &["map"]),
    ("steps", &["map"]),
    ("max_concurrency", &["map"]),
    ("tolerated_failures", &["map"]),
    ("tolerated_failure_percent", &["map"]),
    ("on_item_failure", &["map"]),
    ("workflow", &["workflow", "map"]),
    ("seconds", &["wait"]),
    ("timestamp_path", &["wait"]),
    ("callback_timeout", &["callback"]),
    ("heartbeat", WAITING),
    ("notify", WAITING),
    ("approvers", &["approval"]),
    ("source", &["emit"]),
    ("event", &["emit"]),
    ("error", &["fail"]),
    ("message", &["fail"]),
    ("url", CALLING),
    ("method", CALLING),
    ("headers", CALLING),
    ("query", CALLING),
    ("expect", &["http", "map"]),
    ("response", &["http", "map"]),
    ("error_path", &["http", "map"]),
    ("idempotency", CALLING),
    ("delivery", CALLING),
    ("log", CALLING),
    ("redact", CALLING),
    ("poll", &["http"]),
    ("compensate", &["http", "callback", "approval", "workflow", "emit", "set"]),
    ("retry", &["http", "map", "callback", "parallel", "workflow", "emit"]),
    ("timeout", &["http", "map", "callback", "approval", "parallel"]),
    ("body", &["http", "map", "set", "emit"]),
    ("result", &["http", "parallel", "map", "callback", "approval", "workflow", "set"]),
    ("assign", &["http", "parallel", "map", "callback", "approval", "workflow", "set"]),
    ("on_exhausted", &["http", "parallel", "map", "callback", "approval", "workflow", "emit"]),
    ("result_path", &["http", "parallel", "map", "callback", "approval", "workflow", "set"]),
];

static EXPECT: [Key; 2] = [
    key("status", Takes::Texts, "Statuses and ranges of them, as 409 or 200-299; 2xx when absent"),
    key("when", Takes::Text, "Condition on the response; when it does not hold the call has failed"),
];

static POLL: [Key; 3] = [
    key("until", Takes::Text, "Condition on the response: the answer is there"),
    key("every", Takes::Duration, "The time between two calls (10s)"),
    key("max", Takes::Number(1, 100_000), "So many calls at most (60)"),
];

static UNDO: [Key; 11] = [
    key("url", Takes::Url, "Where to call; it may hold placeholders"),
    key("method", Takes::Word(METHODS), "HTTP method (POST)"),
    key("headers", Takes::TextMap, "Headers of the call; values may hold placeholders"),
    key("query", Takes::TextMap, "Added to the URL's query; values may hold placeholders"),
    key("body", Takes::Template, "Template of the request's body; the payload after the step when absent"),
    key("retry", Takes::OneOrMore(&RETRY), "Retry policy of the call, or a list of them (max 10)"),
    key("timeout", Takes::Duration, "Deadline of the call (a bare number is seconds)"),
    key("expect", Takes::Section(&EXPECT), "What counts as a success of the call"),
    key("idempotency", Takes::Text, "The call's Idempotency-Key: visit (default), attempt, none, or a template"),
    key("log", Takes::Word(&["full", "metadata", "none"]), "What is kept of the call's attempts (full)"),
    key("redact", Takes::Texts, "Paths of the response that are not kept with attempts"),
];

static NOTIFY: [Key; 6] = [
    key("url", Takes::Url, "Where to call; it may hold placeholders"),
    key("method", Takes::Word(METHODS), "HTTP method (POST)"),
    key("headers", Takes::TextMap, "Headers of the call; values may hold placeholders"),
    key("query", Takes::TextMap, "Added to the URL's query; values may hold placeholders"),
    key("retry", Takes::OneOrMore(&RETRY), "Retry policy of the call, or a list of them"),
    key("timeout", Takes::Duration, "Deadline of the call (a bare number is seconds)"),
];

/// The keys that a step has wherever it stands.
const OF_STEP: [Key; 40] = [
    key("url", Takes::Url, "Where to call; it may hold placeholders"),
    key("method", Takes::Word(METHODS), "HTTP method (POST)"),
    key("headers", Takes::TextMap, "Headers of the call; values may hold placeholders"),
    key("query", Takes::TextMap, "Added to the URL's query; values may hold placeholders"),
    key("input", Takes::Template, "Template of the step's input"),
    key("if", Takes::Text, "Condition on the payload; when it does not hold the step is passed over"),
    key("body", Takes::Template, "Template of the request's body, which leaves the payload alone; set: the value"),
    key("result", Takes::Template, "Template that selects from the response before result_path"),
    key("result_path", Takes::Text, "Where the response goes; $ replaces the payload, null discards it"),
    key("output", Takes::Template, "Template applied after the merge"),
    key("assign", Takes::Template, "Variables of the run that the step sets, read as $$.vars.NAME"),
    key("retry", Takes::OneOrMore(&RETRY), "Retry policy of the call, or a list of them"),
    key("catch", Takes::Items(&CATCH), "Where failures go"),
    key("timeout", Takes::Duration, "Deadline of the call (a bare number is seconds); approval: of the decision"),
    key("expect", Takes::Section(&EXPECT), "What counts as a success of the call"),
    key("response", Takes::Word(&["auto", "json", "text"]), "How the response is read (auto: JSON if it is JSON)"),
    key("error_path", Takes::Text, "Where the receiver's own name of a failure stands in its response ($.error.code)"),
    key("idempotency", Takes::Text, "The call's Idempotency-Key: visit (default), attempt, none, or a template"),
    key("delivery", Takes::Word(&["at_least_once", "at_most_once"]), "at_most_once: what may have arrived is never sent again"),
    key("compensate", Takes::Section(&UNDO), "The call that undoes the step"),
    key("on_failure", Takes::Word(&["stop", "continue"]), "What a failure nobody catches does (stop)"),
    key("on_exhausted", Takes::Word(&["fail", "pause"]), "pause: a failure nobody catches pauses the run instead (fail)"),
    key("log", Takes::Word(&["full", "metadata", "none"]), "What is kept of the call's attempts (full)"),
    key("redact", Takes::Texts, "Paths of the response that are not kept with attempts"),
    key("poll", Takes::Section(&POLL), "The call is made again until the answer is there"),
    key("end", Takes::Bool, "Nothing comes after this step"),
    key("goto", Takes::Text, "The next step instead of the following one"),
    key("choices", Takes::Items(&CHOICE), "choice: conditions in order"),
    key("default", Takes::Text, "choice: the step when no condition holds"),
    key("seconds", Takes::Number(0, 315_360_000), "wait: how long"),
    key("timestamp_path", Takes::Text, "wait: the path of the instant"),
    key("callback_timeout", Takes::Duration, "callback: how long the answer may take (1d; a bare number is seconds)"),
    key("heartbeat", Takes::Duration, "callback: how long whoever works on it may be silent (off)"),
    key("notify", Takes::Section(&NOTIFY), "approval, callback: the call that tells of it"),
    key("approvers", Takes::Texts, "approval: the names that may decide; empty is anyone with the token or the API's"),
    key("workflow", Takes::Text, "workflow: which one; map: the one that is called for each item"),
    key("source", Takes::Text, "emit: the source of the event"),
    key("event", Takes::Text, "emit: the type of the event"),
    key("error", Takes::Text, "fail: the error's name; its class is app:NAME"),
    key("message", Takes::Text, "fail: the error's text"),
];

/// One list after another.
const fn joined<const A: usize, const B: usize, const N: usize>(a: [Key; A], b: [Key; B]) -> [Key; N] {
    let mut all = [key("", Takes::Text, ""); N];
    let mut at = 0;
    while at < N {
        all[at] = if at < A { a[at] } else { b[at - A] };
        at += 1;
    }
    all
}

const fn of_step(types: &'static [&'static str]) -> [Key; 42] {
    let first =
        [key("name", Takes::Text, "Unique among its steps"), key("type", Takes::Word(types), "What kind of step it is (http)")];
    joined(first, OF_STEP)
}

static STEP: [Key; 51] = joined(
    of_step(STEP_TYPES),
    [
        key("branches", Takes::Items(&BRANCH), "parallel: the calls"),
        key("items_path", Takes::Text, "map: the path of the array"),
        key("items", Takes::Template, "map: template of the array"),
        key("steps", Takes::Items(&INNER), "map: the steps of each item"),
        key("tolerated_failures", Takes::Number(0, ANY), "map: how many items may fail (0)"),
        key("tolerated_failure_percent", Takes::Number(0, 100), "map: how many of a hundred items may fail (0)"),
        key("on_item_failure", Takes::Word(&["fail", "collect"]), "map: collect puts a failed item's error in its place"),
        key("max_concurrency", Takes::Number(1, 10_000), "map: how many at once"),
        key("iterator", Takes::Section(&ITERATOR), "map: the call of each item"),
    ],
);

static INNER: [Key; 42] = of_step(INNER_TYPES);

static CATCH: [Key; 4] = [
    key("errors", Takes::Texts, "Which failures"),
    key("goto", Takes::Text, "The step to go on with"),
    key("compensate", Takes::Bool, "Instead of goto: the run fails and undoes what its steps did"),
    key("result_path", Takes::Text, "Where the error goes, instead of beside the payload's fields"),
];

static CHOICE: [Key; 3] = [
    key("when", Takes::Text, "The condition"),
    key("condition", Takes::Text, "The condition"),
    key("goto", Takes::Text, "The step to go on with"),
];

static BRANCH: [Key; 7] = [
    key("name", Takes::Text, "Unique in the step"),
    key("url", Takes::Url, "Where to call; it may hold placeholders"),
    key("method", Takes::Word(METHODS), "HTTP method (POST)"),
    key("headers", Takes::TextMap, "Headers of the call; values may hold placeholders"),
    key("query", Takes::TextMap, "Added to the URL's query; values may hold placeholders"),
    key("body", Takes::Template, "Template of the request's body"),
    key("compensate", Takes::Section(&UNDO), "The call that undoes the branch"),
];

static ITERATOR: [Key; 8] = [
    key("url", Takes::Url, "Where to call; it may hold placeholders"),
    key("method", Takes::Word(METHODS), "HTTP method (POST)"),
    key("headers", Takes::TextMap, "Headers of the call; values may hold placeholders"),
    key("query", Takes::TextMap, "Added to the URL's query; values may hold placeholders"),
    key("body", Takes::Template, "Template of the request's body"),
    key("input", Takes::Template, "Template of each item's input"),
    key("timeout", Takes::Duration, "Deadline of the call (a bare number is seconds)"),
    key("retry", Takes::OneOrMore(&RETRY), "Retry policy of the call, or a list of them"),
];
