//! The keys of workflows, and those that several types of step share. The keys of one type are in its own file.

use std::sync::LazyLock;

use super::steps::{TYPES, type_keys};
use crate::config::keys::{Key, Keys, METHODS, RETRY as RETRY_KEYS, Takes, joined, key};

/// The keys of a workflow.
pub(in crate::config) static WORKFLOW: Keys = LazyLock::new(|| {
    vec![
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
        key("retry", Takes::OneOrMore(&RETRY_KEYS), "Retry policy of steps that say nothing else"),
        key("catch", Takes::Items(&CATCH), "Where failures go that no step catches; taken once in a run"),
        key("on_failure", Takes::Word(&["stop", "compensate"]), "compensate: a run that fails undoes what its steps did"),
        key("finally", Takes::Items(&STEP), "Steps that always run last and cannot change how the run ends"),
        key("output", Takes::Template, "What a run comes to, instead of its last payload"),
        key("retention", Takes::Section(&RETENTION), "How long runs are kept, by how they ended"),
    ]
});

static CONCURRENCY: Keys = LazyLock::new(|| {
    vec![
        key("key", Takes::Text, "Template: runs with the same key count together; without one all do"),
        key("limit", Takes::Number(1, 10_000), "So many at once (1)"),
        key("on_limit", Takes::Word(ON_LIMIT), "What becomes of one too many (queue)"),
    ]
});

/// What becomes of a run that is one too many.
const ON_LIMIT: &[&str] = &["queue", "skip", "cancel_running", "replace_queued"];

static RETENTION: Keys = LazyLock::new(|| {
    vec![
        key("completed", Takes::Duration, "Those that completed"),
        key("failed", Takes::Duration, "Those that failed or were called off"),
    ]
});

static PARAM: Keys = LazyLock::new(|| {
    vec![
        key("name", Takes::Text, "The key"),
        key("type", Takes::Text, "string (default), number, boolean, object, array"),
        key("required", Takes::Bool, "Whether it must be there (true)"),
    ]
});

/// A request: where it goes, and what stands in it beside the body.
pub(super) const REQUEST: &[Key] = &[
    key("url", Takes::Url, "Where to call; it may hold placeholders"),
    key("method", Takes::Word(METHODS), "HTTP method (POST)"),
    key("headers", Takes::TextMap, "Headers of the call; values may hold placeholders"),
    key("query", Takes::TextMap, "Added to the URL's query; values may hold placeholders"),
];

/// How a call's answer is judged and read.
pub(super) const EXPECTATION: &[Key] = &[
    key("expect", Takes::Section(&EXPECT), "What counts as a success of the call"),
    key("response", Takes::Word(&["auto", "json", "text"]), "How the response is read (auto: JSON if it is JSON)"),
    key("error_path", Takes::Text, "Where the receiver's own name of a failure stands in its response ($.error.code)"),
];

const IDEMPOTENCY: Key =
    key("idempotency", Takes::Text, "The call's Idempotency-Key: visit (default), attempt, none, or a template");
const LOG: Key = key("log", Takes::Word(&["full", "metadata", "none"]), "What is kept of the call's attempts (full)");
const REDACT: Key = key("redact", Takes::Texts, "Paths of the response that are not kept with attempts");

/// How a call is repeated and recorded.
pub(super) const CALL: &[Key] = &[
    IDEMPOTENCY,
    key("delivery", Takes::Word(&["at_least_once", "at_most_once"]), "at_most_once: what may have arrived is never sent again"),
    LOG,
    REDACT,
];

/// Repeats a call until the answer is there.
pub(super) const POLL: &[Key] = &[key("poll", Takes::Section(&POLL_KEYS), "The call is made again until the answer is there")];

/// The retry policy of the job that does the step's work.
pub(super) const RETRY: &[Key] = &[key("retry", Takes::OneOrMore(&RETRY_KEYS), "Retry policy of the call, or a list of them")];

/// The deadline of a call, or of a decision.
pub(super) const TIMEOUT: &[Key] =
    &[key("timeout", Takes::Duration, "Deadline of the call (a bare number is seconds); approval: of the decision")];

/// What is sent, or computed.
pub(super) const BODY: &[Key] =
    &[key("body", Takes::Template, "Template of the request's body, which leaves the payload alone; set: the value")];

/// What becomes of a response.
pub(super) const RESULT: &[Key] = &[
    key("result", Takes::Template, "Template that selects from the response before result_path"),
    key("result_path", Takes::Text, "Where the response goes; $ replaces the payload, null discards it"),
    key("assign", Takes::Template, "Variables of the run that the step sets, read as $$.vars.NAME"),
];

/// A failure that waits for an operator.
pub(super) const PAUSE: &[Key] =
    &[key("on_exhausted", Takes::Word(&["fail", "pause"]), "pause: a failure nobody catches pauses the run instead (fail)")];

/// Rollback.
pub(super) const UNDO: &[Key] = &[key("compensate", Takes::Section(&UNDO_CALL), "The call that undoes the step")];

/// The keys of every step.
fn of_every_step(types: &'static [&'static str]) -> [Key; 9] {
    [
        key("name", Takes::Text, "Unique among its steps"),
        key("type", Takes::Word(types), "What kind of step it is (http)"),
        key("if", Takes::Text, "Condition on the payload; when it does not hold the step is passed over"),
        key("input", Takes::Template, "Template of the step's input"),
        key("output", Takes::Template, "Template applied after the merge"),
        key("catch", Takes::Items(&CATCH), "Where failures go"),
        key("on_failure", Takes::Word(&["stop", "continue"]), "What a failure nobody catches does (stop)"),
        key("end", Takes::Bool, "Nothing comes after this step"),
        key("goto", Takes::Text, "The next step instead of the following one"),
    ]
}

static TYPE_NAMES: LazyLock<Vec<&str>> = LazyLock::new(|| TYPES.iter().map(|entry| entry.name).collect());
static INNER_TYPE_NAMES: LazyLock<Vec<&str>> =
    LazyLock::new(|| TYPES.iter().filter(|entry| entry.in_map).map(|entry| entry.name).collect());

/// The keys of a step of a workflow.
static STEP: Keys = LazyLock::new(|| joined(&[&of_every_step(&TYPE_NAMES), &type_keys(TYPES.iter().copied())]));

/// The keys of a step inside a map.
pub(super) static INNER_STEP: Keys = LazyLock::new(|| {
    let types = TYPES.iter().copied().filter(|entry| entry.in_map);
    joined(&[&of_every_step(&INNER_TYPE_NAMES), &type_keys(types)])
});

/// What counts as a success of a call.
static EXPECT: Keys = LazyLock::new(|| {
    vec![
        key("status", Takes::Texts, "Statuses and ranges of them, as 409 or 200-299; 2xx when absent"),
        key("when", Takes::Text, "Condition on the response; when it does not hold the call has failed"),
    ]
});

/// A call that is repeated until the answer is there.
static POLL_KEYS: Keys = LazyLock::new(|| {
    vec![
        key("until", Takes::Text, "Condition on the response: the answer is there"),
        key("every", Takes::Duration, "The time between two calls (10s)"),
        key("max", Takes::Number(1, 100_000), "So many calls at most (60)"),
    ]
});

/// The call that undoes a step, or a branch.
pub(super) static UNDO_CALL: Keys = LazyLock::new(|| {
    joined(&[
        REQUEST,
        &[
            key("body", Takes::Template, "Template of the request's body; the payload after the step when absent"),
            key("retry", Takes::OneOrMore(&RETRY_KEYS), "Retry policy of the call, or a list of them (max 10)"),
            key("timeout", Takes::Duration, "Deadline of the call (a bare number is seconds)"),
            key("expect", Takes::Section(&EXPECT), "What counts as a success of the call"),
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
            key("retry", Takes::OneOrMore(&RETRY_KEYS), "Retry policy of the call, or a list of them"),
            key("timeout", Takes::Duration, "Deadline of the call (a bare number is seconds)"),
        ],
    ])
});

/// Where some failures go.
static CATCH: Keys = LazyLock::new(|| {
    vec![
        key("errors", Takes::Texts, "Which failures"),
        key("goto", Takes::Text, "The step to go on with"),
        key("compensate", Takes::Bool, "Instead of goto: the run fails and undoes what its steps did"),
        key("result_path", Takes::Text, "Where the error goes, instead of beside the payload's fields"),
    ]
});

/// One condition of a choice.
pub(super) static CHOICE: Keys = LazyLock::new(|| {
    vec![
        key("when", Takes::Text, "The condition"),
        key("condition", Takes::Text, "The condition"),
        key("goto", Takes::Text, "The step to go on with"),
    ]
});

/// The call of one branch of a parallel step.
pub(super) static BRANCH: Keys = LazyLock::new(|| {
    let own = [
        key("body", Takes::Template, "Template of the request's body"),
        key("compensate", Takes::Section(&UNDO_CALL), "The call that undoes the branch"),
    ];
    joined(&[&[key("name", Takes::Text, "Unique in the step")], REQUEST, &own])
});

/// The call of each item of a map.
pub(super) static ITERATOR: Keys = LazyLock::new(|| {
    let own = [
        key("body", Takes::Template, "Template of the request's body"),
        key("input", Takes::Template, "Template of each item's input"),
        key("timeout", Takes::Duration, "Deadline of the call (a bare number is seconds)"),
    ];
    joined(&[REQUEST, &own, RETRY])
});
