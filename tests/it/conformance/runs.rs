//! The verbs of runs: what a change makes true it makes true at once, and only over what it was
//! decided on.

use std::time::Duration;

use serde_json::{Value, json};
use tidehook::model::history::{Note, NoteKind};
use tidehook::model::run::{
    Change, Due, Gate, GateChange, RunError, RunJob, RunState, Start, Token,
};
use tidehook::model::target::VisitRef;
use tidehook::model::{
    EventId, JobId, JobState, LaneId, LaneSpec, Payload, Run, RunId, RunStatus, Target, Timestamp,
};
use tidehook::store::{Definition, Error, JobFilter, Page, RunFilter, Store};

use super::build::{IDS, accept, claim_request, new_event};
use super::on_every_store;
use crate::support::stores::Fresh;

on_every_store!(
    a_definition_is_kept_once_and_found_by_its_hash,
    a_run_is_as_it_was_stored,
    a_change_needs_the_run_that_it_was_decided_on,
    changes_of_one_call_stand_alone,
    a_change_is_made_whole_or_not_at_all,
    jobs_of_a_run_are_held_freed_and_called_off,
    history_is_in_order_and_grows,
    gates_are_fenced_by_their_own_version,
    tokens_are_found_by_their_hash_and_used_up,
    lists_of_runs_are_filtered_and_paged,
    children_are_stored_with_their_parent,
);

const PAGE: Page = Page { limit: 100, newest_first: false };

/// A state of a run: what it started with and nothing else yet.
pub fn state(input: &Value) -> RunState {
    let input = serde_json::to_value(Payload::Json(input.clone())).unwrap();
    serde_json::from_value(json!({ "input": input, "visits": {}, "visited": 0 })).unwrap()
}

pub fn run_of(event: EventId, workflow: &str) -> Run {
    Run {
        id: RunId::next(&*IDS),
        workflow: workflow.to_owned(),
        definition: "0".repeat(64),
        event,
        parent: None,
        status: RunStatus::Running,
        error: None,
        version: 0,
        created_at: Timestamp(0),
        finished_at: None,
        state: state(&json!({ "id": 7 })),
        unreadable: None,
    }
}

pub fn change_of(run: &Run, is_new: bool) -> Change {
    Change {
        run: run.clone(),
        is_new,
        ends: false,
        jobs: Vec::new(),
        cancel_jobs: Vec::new(),
        pause_jobs: Vec::new(),
        resume_jobs: Vec::new(),
        gate: None,
        retention: None,
        notes: Vec::new(),
        tokens: Vec::new(),
        spent: None,
        starts: Vec::new(),
        children: Vec::new(),
    }
}

pub fn note(kind: NoteKind, data: Value) -> Note {
    Note { kind, step: Some("a".to_owned()), visit: Some(1), data }
}

fn job(run: &Run, due: Due) -> RunJob {
    let target = Target::Step(VisitRef { run: run.id, visit: 1, step: "w/a".to_owned() });
    RunJob { id: JobId::next(&*IDS), target, due, is_paused: false }
}

/// An event, and a run of it that is stored.
async fn begun(store: &dyn Store) -> Run {
    store.upsert_lanes(&[LaneSpec::new(LaneId("step:w/a".to_owned()), "w")]).await.unwrap();
    let new = new_event(&[]);
    let event = new.id;
    accept(store, new).await;
    let run = run_of(event, "w");
    store.change(&[change_of(&run, true)]).await.unwrap().pop().unwrap().unwrap();
    store.run(run.id).await.unwrap().unwrap()
}

async fn one(store: &dyn Store, change: Change) -> Result<(), Error> {
    store.change(&[change]).await.unwrap().pop().unwrap()
}

async fn a_definition_is_kept_once_and_found_by_its_hash(Fresh { store, .. }: Fresh) {
    let definition = |hash: &str, body: &str| Definition {
        hash: hash.repeat(64),
        name: "w".to_owned(),
        body: body.to_owned(),
    };
    store.define(&[]).await.unwrap();
    store
        .define(&[definition("a", "[1]"), definition("b", "[2]"), definition("a", "[1]")])
        .await
        .unwrap();
    store.define(&[definition("a", "[1]")]).await.unwrap();
    assert_eq!(store.definition(&"a".repeat(64)).await.unwrap(), Some(definition("a", "[1]")));
    assert_eq!(store.definition(&"b".repeat(64)).await.unwrap().unwrap().body, "[2]");
    assert_eq!(store.definition(&"c".repeat(64)).await.unwrap(), None);
    assert_eq!(store.definition("").await.unwrap(), None);
}

async fn a_run_is_as_it_was_stored(Fresh { store, clock, .. }: Fresh) {
    let run = begun(&*store).await;
    assert_eq!((run.version, run.status, run.workflow.as_str()), (1, RunStatus::Running, "w"));
    assert!(run.created_at > Timestamp(0) && run.finished_at.is_none());
    clock.advance(Duration::from_secs(5));
    let why = RunError {
        class: "4xx".to_owned(),
        message: "HTTP 404 \u{1f30a} \"quoted\"".to_owned(),
        step: Some("a".to_owned()),
        status: Some(404),
        job: None,
        attempts: 3,
        app: Some("no_stock".to_owned()),
    };
    let failed = Run { status: RunStatus::Failed, error: Some(why.clone()), ..run.clone() };
    one(&*store, Change { ends: true, ..change_of(&failed, false) }).await.unwrap();
    let found = store.run(run.id).await.unwrap().unwrap();
    assert_eq!((found.version, found.status, found.error), (2, RunStatus::Failed, Some(why)));
    assert_eq!(found.created_at, run.created_at);
    assert!(
        found.finished_at.is_some_and(|at| at >= run.created_at.plus(Duration::from_secs(5))),
        "{:?}",
        found.finished_at
    );
    assert_eq!(found.state, failed.state);
    let nobody = RunId::next(&*IDS);
    assert_eq!(store.run(nobody).await.unwrap(), None);
    let both = store.runs_by_id(&[nobody, run.id, run.id]).await.unwrap();
    assert_eq!(both.keys().collect::<Vec<_>>(), [&run.id]);
    assert!(store.runs_by_id(&[]).await.unwrap().is_empty());
}

async fn a_change_needs_the_run_that_it_was_decided_on(Fresh { store, .. }: Fresh) {
    let run = begun(&*store).await;
    let noted =
        Change { notes: vec![note(NoteKind::RunStarted, json!(1))], ..change_of(&run, false) };
    one(&*store, noted.clone()).await.unwrap();
    // The same once more was decided on what is no more.
    assert_eq!(one(&*store, noted).await, Err(Error::MovedOn));
    assert_eq!(store.history(run.id).await.unwrap().len(), 1);
    // One that is new must be; one that is not must be there.
    assert!(one(&*store, change_of(&run, true)).await.is_err());
    let nobody = Run { id: RunId::next(&*IDS), ..run.clone() };
    assert_eq!(one(&*store, change_of(&nobody, false)).await, Err(Error::MovedOn));
    assert_eq!(store.run(nobody.id).await.unwrap(), None);
    assert_eq!(store.run(run.id).await.unwrap().unwrap().version, 2);
}

async fn changes_of_one_call_stand_alone(Fresh { store, .. }: Fresh) {
    let run = begun(&*store).await;
    let other = run_of(run.event, "other");
    let stale = Run { version: 0, ..run.clone() };
    let answers = store
        .change(&[change_of(&stale, false), change_of(&other, true), change_of(&run, false)])
        .await
        .unwrap();
    assert_eq!(answers, [Err(Error::MovedOn), Ok(()), Ok(())]);
    assert_eq!(store.run(other.id).await.unwrap().unwrap().version, 1);
    assert_eq!(store.run(run.id).await.unwrap().unwrap().version, 2);
    assert!(store.change(&[]).await.unwrap().is_empty());
}

async fn a_change_is_made_whole_or_not_at_all(Fresh { store, .. }: Fresh) {
    let run = begun(&*store).await;
    let stale = Run { version: 7, ..run.clone() };
    let all = Change {
        jobs: vec![job(&run, Due::After(Duration::ZERO))],
        notes: vec![note(NoteKind::Killed, json!(1))],
        tokens: vec![Token { hash: "never".to_owned(), run: run.id, visit: 1, answer: None }],
        gate: Some(GateChange {
            id: "never".to_owned(),
            version: 0,
            gate: Gate { inside: vec![run.id], waiting: Vec::new() },
        }),
        children: vec![change_of(&run_of(run.event, "child"), true)],
        ..change_of(&stale, false)
    };
    assert_eq!(one(&*store, all).await, Err(Error::MovedOn));
    assert!(store.history(run.id).await.unwrap().is_empty());
    assert_eq!(store.token("never").await.unwrap(), None);
    assert_eq!(store.gate("never").await.unwrap(), (0, Gate::default()));
    assert_eq!(store.runs(&RunFilter::default(), PAGE).await.unwrap().len(), 1);
    assert!(store.claim(&claim_request(10)).await.unwrap().is_empty());
    assert_eq!(store.totals().await.unwrap().open, 0);
}

async fn jobs_of_a_run_are_held_freed_and_called_off(Fresh { store, clock, .. }: Fresh) {
    let run = begun(&*store).await;
    let (now, later) =
        (job(&run, Due::After(Duration::ZERO)), job(&run, Due::After(Duration::from_secs(60))));
    let held = RunJob { is_paused: true, ..job(&run, Due::At(Timestamp(0))) };
    let jobs = vec![now.clone(), later.clone(), held.clone()];
    one(&*store, Change { jobs, ..change_of(&run, false) }).await.unwrap();
    assert_eq!(store.totals().await.unwrap().open, 3);
    let ids = |claimed: Vec<tidehook::store::Claimed>| {
        claimed.into_iter().map(|claimed| claimed.job.id).collect::<Vec<_>>()
    };
    assert_eq!(
        ids(store.claim(&claim_request(10)).await.unwrap()),
        [now.id],
        "one is later, and one is held"
    );
    let run = store.run(run.id).await.unwrap().unwrap();
    let change =
        Change { resume_jobs: vec![held.id], pause_jobs: vec![later.id], ..change_of(&run, false) };
    one(&*store, change).await.unwrap();
    clock.advance(Duration::from_secs(20));
    assert_eq!(ids(store.claim(&claim_request(10)).await.unwrap()), [held.id]);
    let run = store.run(run.id).await.unwrap().unwrap();
    one(&*store, Change { cancel_jobs: vec![later.id, now.id], ..change_of(&run, false) })
        .await
        .unwrap();
    for (id, state) in [(later.id, JobState::Cancelled), (now.id, JobState::Cancelled)] {
        let found = store.job(id).await.unwrap().unwrap();
        assert!(found.state == state && found.finished_at.is_some(), "{found:?}");
    }
    assert_eq!(store.totals().await.unwrap().open, 1);
    // What has ended stays as it ended.
    let run = store.run(run.id).await.unwrap().unwrap();
    one(
        &*store,
        Change { cancel_jobs: vec![now.id], resume_jobs: vec![later.id], ..change_of(&run, false) },
    )
    .await
    .unwrap();
    assert_eq!(store.totals().await.unwrap().open, 1);
    let filter = JobFilter { event: Some(run.event), ..JobFilter::default() };
    assert_eq!(store.jobs(&filter, PAGE).await.unwrap().len(), 3);
}

async fn history_is_in_order_and_grows(Fresh { store, clock, .. }: Fresh) {
    let run = begun(&*store).await;
    let first = vec![
        note(NoteKind::StepEntered, json!({ "n": 1 })),
        note(NoteKind::StepCompleted, json!(null)),
    ];
    one(&*store, Change { notes: first, ..change_of(&run, false) }).await.unwrap();
    clock.advance(Duration::from_secs(1));
    let run = store.run(run.id).await.unwrap().unwrap();
    let third = Note {
        kind: NoteKind::RunCompleted,
        step: None,
        visit: None,
        data: json!([1, "\u{1f30a}"]),
    };
    one(&*store, Change { notes: vec![third], ..change_of(&run, false) }).await.unwrap();
    let history = store.history(run.id).await.unwrap();
    let shown: Vec<_> = history
        .iter()
        .map(|entry| (entry.seq, entry.kind.as_str(), entry.step.as_deref(), entry.visit))
        .collect();
    assert_eq!(
        shown,
        [
            (1, "StepEntered", Some("a"), Some(1)),
            (2, "StepCompleted", Some("a"), Some(1)),
            (3, "RunCompleted", None, None)
        ]
    );
    assert_eq!(
        (&history[0].data, &history[2].data),
        (&json!({ "n": 1 }), &json!([1, "\u{1f30a}"]))
    );
    assert!(history[2].at > history[0].at);
    assert!(store.history(RunId::next(&*IDS)).await.unwrap().is_empty());
}

async fn gates_are_fenced_by_their_own_version(Fresh { store, .. }: Fresh) {
    let run = begun(&*store).await;
    let through = |version: i64, inside: Vec<RunId>| {
        Some(GateChange {
            id: "w\u{1f}key".to_owned(),
            version,
            gate: Gate { inside, waiting: vec![run.id] },
        })
    };
    assert_eq!(store.gate("w\u{1f}key").await.unwrap(), (0, Gate::default()));
    let (a, b) = (run_of(run.event, "w"), run_of(run.event, "w"));
    let change = |run: &Run, version: i64| Change {
        gate: through(version, vec![run.id]),
        ..change_of(run, true)
    };
    one(&*store, change(&a, 0)).await.unwrap();
    assert_eq!(one(&*store, change(&b, 0)).await, Err(Error::MovedOn), "somebody was faster");
    assert_eq!(store.run(b.id).await.unwrap(), None);
    let (version, gate) = store.gate("w\u{1f}key").await.unwrap();
    assert_eq!((version, gate.inside), (1, vec![a.id]));
    one(&*store, change(&b, 1)).await.unwrap();
    assert_eq!(store.gate("w\u{1f}key").await.unwrap().0, 2);
}

async fn tokens_are_found_by_their_hash_and_used_up(Fresh { store, .. }: Fresh) {
    let run = begun(&*store).await;
    let token = Token { hash: "h".repeat(64), run: run.id, visit: 3, answer: None };
    one(&*store, Change { tokens: vec![token.clone()], ..change_of(&run, false) }).await.unwrap();
    assert_eq!(store.token(&token.hash).await.unwrap(), Some(token.clone()));
    assert_eq!(store.token("other").await.unwrap(), None);
    let run = store.run(run.id).await.unwrap().unwrap();
    let spent = Token { answer: Some("a".repeat(64)), ..token.clone() };
    one(&*store, Change { spent: Some(spent.clone()), ..change_of(&run, false) }).await.unwrap();
    assert_eq!(store.token(&token.hash).await.unwrap(), Some(spent));
}

async fn lists_of_runs_are_filtered_and_paged(Fresh { store, .. }: Fresh) {
    let first = begun(&*store).await;
    let mut all = vec![first.id];
    for n in 0..6 {
        let run = run_of(first.event, if n % 2 == 0 { "w" } else { "x" });
        let run =
            Run { status: if n < 2 { RunStatus::Completed } else { RunStatus::Running }, ..run };
        one(&*store, Change { ends: n < 2, ..change_of(&run, true) }).await.unwrap();
        all.push(run.id);
    }
    let list = async |filter: RunFilter, limit: u32, newest_first: bool| -> Vec<RunId> {
        store
            .runs(&filter, Page { limit, newest_first })
            .await
            .unwrap()
            .iter()
            .map(|run| run.id)
            .collect()
    };
    assert_eq!(list(RunFilter::default(), 100, false).await, all);
    let reversed: Vec<RunId> = all.iter().rev().copied().collect();
    assert_eq!(list(RunFilter::default(), 3, true).await, reversed[..3]);
    assert_eq!(
        list(RunFilter { after: Some(reversed[2]), ..RunFilter::default() }, 100, true).await,
        reversed[3..]
    );
    assert_eq!(
        list(RunFilter { after: Some(all[4]), ..RunFilter::default() }, 100, false).await,
        all[5..]
    );
    let of_x = RunFilter { workflow: Some("x".to_owned()), ..RunFilter::default() };
    assert_eq!(list(of_x.clone(), 100, false).await.len(), 3);
    assert_eq!(
        list(RunFilter { status: Some(RunStatus::Completed), ..of_x }, 100, false).await.len(),
        1
    );
    assert_eq!(
        list(RunFilter { event: Some(first.event), ..RunFilter::default() }, 100, false).await,
        all
    );
    let nobody = RunFilter { event: Some(EventId::next(&*IDS)), ..RunFilter::default() };
    assert!(list(nobody, 100, false).await.is_empty());
}

async fn children_are_stored_with_their_parent(Fresh { store, .. }: Fresh) {
    let run = begun(&*store).await;
    let child = Run { parent: Some((run.id, 1)), ..run_of(run.event, "child") };
    let start = Start {
        run: child.id,
        visit: 1,
        workflow: "child".to_owned(),
        input: Payload::Json(json!({})),
    };
    let change = Change {
        starts: vec![start],
        children: vec![change_of(&child, true)],
        ..change_of(&run, false)
    };
    one(&*store, change).await.unwrap();
    let found = store.run(child.id).await.unwrap().unwrap();
    assert_eq!((found.parent, found.version), (Some((run.id, 1)), 1));
    assert_eq!(store.run(run.id).await.unwrap().unwrap().version, 2);
}
