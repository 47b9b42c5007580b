//! The keys of workflows, and those that several types of step share. The keys of one type are in
//! its own file.

use std::sync::LazyLock;

use super::steps::{TYPES, type_keys};
use crate::config::keys::{Key, Keys, METHODS, RETRY as RETRY_KEYS, Takes, joined, key};

/// The keys of an entry under `workflows`.
pub(in crate::config) static WORKFLOW: Keys = LazyLock::new(|| {
    vec![
        key("source", Takes::Text, "The source to listen to; optional with `callable`"),
        key("events", Takes::Texts, "Event type patterns; an empty list matches all types"),
        key("filter", Takes::Text, "Condition on the payload"),
        key("idempotency_key", Takes::Text, "Path of an idempotency key: one run per key"),
        key(
            "timeout",
            Takes::Duration,
            "Deadline of a run, including waits (a number without a unit is seconds)",
        ),
        key("max_steps", Takes::Number(1, 100_000), "How many steps a run may enter (1000)"),
        key("params", Takes::Items(&PARAM), "Top-level keys that the payload must have"),
        key("steps", Takes::Items(&STEP), "The steps, in order"),
        key(
            "callable",
            Takes::Bool,
            "Other workflows may call this one; without `source`, it starts only when called",
        ),
        key("concurrency", Takes::Section(&CONCURRENCY), "Limit of concurrent runs"),
        key("retry", Takes::OneOrMore(&RETRY_KEYS), "Retry policy of steps without their own"),
        key(
            "catch",
            Takes::Items(&CATCH),
            "Catches failures that no step catches; used at most once in a run",
        ),
        key(
            "on_failure",
            Takes::OneOf(&["stop", "compensate"]),
            "What a failure does (stop). compensate: a failed run rolls back its steps",
        ),
        key(
            "finally",
            Takes::Items(&STEP),
            "Steps that always run at the end and do not change the result of the run",
        ),
        key(
            "output",
            Takes::Template,
            "Template of the output of a run (default: its last payload)",
        ),
        key("retention", Takes::Section(&RETENTION), "Retention of runs, by status"),
    ]
});

static CONCURRENCY: Keys = LazyLock::new(|| {
    vec![
        key(
            "key",
            Takes::Text,
            "Template of the key: runs with the same key share the limit; without a key, all runs \
             share it",
        ),
        key("limit", Takes::Number(1, 10_000), "Maximum number of concurrent runs (1)"),
        key("on_limit", Takes::OneOf(ON_LIMIT), "What to do with a run over the limit (queue)"),
    ]
});

/// The words of `concurrency.on_limit`: what happens to a run when the limit is reached.
const ON_LIMIT: &[&str] = &["queue", "skip", "cancel_running", "replace_queued"];

static RETENTION: Keys = LazyLock::new(|| {
    vec![
        key("completed", Takes::Duration, "Retention of completed runs"),
        key("failed", Takes::Duration, "Retention of failed and cancelled runs"),
    ]
});

static PARAM: Keys = LazyLock::new(|| {
    vec![
        key("name", Takes::Text, "Name of the top-level key"),
        key(
            "type",
            Takes::Text,
            "Type of the value: string (default), number, boolean, object, array",
        ),
        key("required", Takes::Bool, "Whether the key is required (true)"),
    ]
});

/// A request: where it goes, and what stands in it beside the body.
pub(super) const REQUEST: &[Key] = &[
    key("url", Takes::Url, "URL to call; may contain placeholders"),
    key("method", Takes::OneOf(METHODS), "HTTP method (POST)"),
    key("headers", Takes::TextMap, "Request headers; values may contain placeholders"),
    key(
        "query",
        Takes::TextMap,
        "Query parameters to add to the URL; values may contain placeholders",
    ),
];

/// How a call's answer is judged and read.
pub(super) const EXPECTATION: &[Key] = &[
    key("expect", Takes::Section(&EXPECT), "Which responses count as success"),
    key(
        "response",
        Takes::OneOf(&["auto", "json", "text"]),
        "How the response is parsed (auto: as JSON if it is JSON)",
    ),
    key(
        "error_path",
        Takes::Text,
        "Path of the receiver's own error code in the response, like $.error.code",
    ),
];

const IDEMPOTENCY: Key = key(
    "idempotency",
    Takes::Text,
    "Idempotency-Key of the call: visit (default), attempt, none, or a template",
);
const LOG: Key = key(
    "log",
    Takes::OneOf(&["full", "metadata", "none"]),
    "What is stored of each attempt (full)",
);
const REDACT: Key =
    key("redact", Takes::Texts, "Paths in the response that are not stored with attempts");

/// How a call is repeated and recorded.
pub(super) const CALL: &[Key] = &[
    IDEMPOTENCY,
    key(
        "delivery",
        Takes::OneOf(&["at_least_once", "at_most_once"]),
        "Delivery guarantee (at_least_once). at_most_once: a request that may have arrived is \
         never sent again",
    ),
    LOG,
    REDACT,
];

/// Repeats a call until the answer is there.
pub(super) const POLL: &[Key] = &[key(
    "poll",
    Takes::Section(&POLL_KEYS),
    "Repeat the call until the response meets a condition",
)];

/// The retry policy of the job that does the step's work.
pub(super) const RETRY: &[Key] =
    &[key("retry", Takes::OneOrMore(&RETRY_KEYS), "Retry policy of the call, or a list of them")];

/// The deadline of a call, or of a decision.
pub(super) const TIMEOUT: &[Key] = &[key(
    "timeout",
    Takes::Duration,
    "Deadline of the call (a number without a unit is seconds); approval: deadline of the decision",
)];

/// The key of what a step sends or computes.
pub(super) const BODY: &[Key] = &[key(
    "body",
    Takes::Template,
    "Template of the request body; it does not change the payload. set: template of the new value",
)];

/// The keys that say what becomes of a response.
pub(super) const RESULT: &[Key] = &[
    key(
        "result",
        Takes::Template,
        "Template that selects from the response, applied before result_path",
    ),
    key(
        "result_path",
        Takes::Text,
        "Where in the payload the response is stored ($ replaces the payload, null discards the \
         response)",
    ),
    key("assign", Takes::Template, "Variables of the run to set; read them as $$.vars.NAME"),
];

/// The key that pauses a run for an operator when a step has failed for good.
pub(super) const PAUSE: &[Key] = &[key(
    "on_exhausted",
    Takes::OneOf(&["fail", "pause"]),
    "What an uncaught failure does to the run (fail). pause: the run pauses instead of failing",
)];

/// The key of the call that undoes the step in a rollback.
pub(super) const UNDO: &[Key] =
    &[key("compensate", Takes::Section(&UNDO_CALL), "The call that undoes the step")];

/// The keys that steps of every type accept.
fn of_every_step(types: &'static [&'static str]) -> [Key; 9] {
    [
        key("name", Takes::Text, "Name of the step; unique in the workflow, or inside its map"),
        key("type", Takes::OneOf(types), "Type of the step (http)"),
        key("if", Takes::Text, "Condition on the payload; if it is false, the step is skipped"),
        key("input", Takes::Template, "Template of the step's input"),
        key(
            "output",
            Takes::Template,
            "Template of the payload after the step, applied after result_path",
        ),
        key("catch", Takes::Items(&CATCH), "Catches failures of the step"),
        key(
            "on_failure",
            Takes::OneOf(&["stop", "continue"]),
            "What an uncaught failure does (stop)",
        ),
        key("end", Takes::Bool, "Whether the run ends after this step"),
        key("goto", Takes::Text, "The next step, instead of the following one in the list"),
    ]
}

static TYPE_NAMES: LazyLock<Vec<&str>> =
    LazyLock::new(|| TYPES.iter().map(|entry| entry.name).collect());
static INNER_TYPE_NAMES: LazyLock<Vec<&str>> =
    LazyLock::new(|| TYPES.iter().filter(|entry| entry.in_map).map(|entry| entry.name).collect());

/// The keys of a step of a workflow.
static STEP: Keys =
    LazyLock::new(|| joined(&[&of_every_step(&TYPE_NAMES), &type_keys(TYPES.iter().copied())]));

/// The keys of a step inside a map.
pub(super) static INNER_STEP: Keys = LazyLock::new(|| {
    let types = TYPES.iter().copied().filter(|entry| entry.in_map);
    joined(&[&of_every_step(&INNER_TYPE_NAMES), &type_keys(types)])
});

/// What counts as a success of a call.
static EXPECT: Keys = LazyLock::new(|| {
    vec![
        key(
            "status",
            Takes::Texts,
            "Expected statuses or ranges, like 409 or 200-299 (default: 2xx)",
        ),
        key("when", Takes::Text, "Condition on the response; if it is false, the call has failed"),
    ]
});

/// A call that is repeated until the answer is there.
static POLL_KEYS: Keys = LazyLock::new(|| {
    vec![
        key("until", Takes::Text, "Condition on the response that ends the polling"),
        key("every", Takes::Duration, "Time between two calls (10s)"),
        key("max", Takes::Number(1, 100_000), "Maximum number of calls (60)"),
    ]
});

/// The call that undoes a step, or a branch.
pub(super) static UNDO_CALL: Keys = LazyLock::new(|| {
    joined(&[
        REQUEST,
        &[
            key(
                "body",
                Takes::Template,
                "Template of the request body (default: the payload after the step)",
            ),
            key(
                "retry",
                Takes::OneOrMore(&RETRY_KEYS),
                "Retry policy of the call, or a list of them (max 10)",
            ),
            key(
                "timeout",
                Takes::Duration,
                "Deadline of the call (a number without a unit is seconds)",
            ),
            key("expect", Takes::Section(&EXPECT), "Which responses count as success"),
            IDEMPOTENCY,
            LOG,
            REDACT,
        ],
    ])
});

/// The call that carries the token of an answer.
pub(super) static NOTIFY: Keys = LazyLock::new(|| {
    joined(&[
        REQUEST,
        &[
            key(
                "retry",
                Takes::OneOrMore(&RETRY_KEYS),
                "Retry policy of the call, or a list of them",
            ),
            key(
                "timeout",
                Takes::Duration,
                "Deadline of the call (a number without a unit is seconds)",
            ),
        ],
    ])
});

/// The keys of an entry under `catch`.
static CATCH: Keys = LazyLock::new(|| {
    vec![
        key("errors", Takes::Texts, "Failures to catch: error classes, statuses, ranges, or all"),
        key("goto", Takes::Text, "The step to continue with"),
        key("compensate", Takes::Bool, "Instead of goto: the run fails and rolls back its steps"),
        key(
            "result_path",
            Takes::Text,
            "Where in the payload the error is stored, instead of in its top-level fields",
        ),
    ]
});

/// The keys of an entry under `choices`.
pub(super) static CHOICE: Keys = LazyLock::new(|| {
    vec![
        key("when", Takes::Text, "The condition"),
        key("condition", Takes::Text, "Other name of `when`"),
        key("goto", Takes::Text, "The step to continue with"),
    ]
});

/// The call of one branch of a parallel step.
pub(super) static BRANCH: Keys = LazyLock::new(|| {
    let own = [
        key("body", Takes::Template, "Template of the request body"),
        key("compensate", Takes::Section(&UNDO_CALL), "The call that undoes the branch"),
    ];
    joined(&[&[key("name", Takes::Text, "Name of the branch, unique in the step")], REQUEST, &own])
});

/// The call of each item of a map.
pub(super) static ITERATOR: Keys = LazyLock::new(|| {
    let own = [
        key("body", Takes::Template, "Template of the request body"),
        key("input", Takes::Template, "Template of each item's input"),
        key(
            "timeout",
            Takes::Duration,
            "Deadline of the call (a number without a unit is seconds)",
        ),
    ];
    joined(&[REQUEST, &own, RETRY])
});
