//! Hostile texts, for each verb that takes one: what a store cannot keep costs the one item it came
//! with, and nothing else. Its neighbours are stored, and the next call is answered.

use serde_json::json;
use tidehook::decide::settle::NextState;
use tidehook::model::history::NoteKind;
use tidehook::model::run::{Gate, GateChange, RunError, Token};
use tidehook::model::{LaneId, LaneSpec, Run, RunStatus, Timestamp};
use tidehook::store::{
    Accepted, Definition, EventFilter, JobFilter, Page, Rejection, Retry, RunFilter, Store,
};

use super::build::{accept, claim_one, claim_request, new_event, outcome, seed};
use super::on_every_store;
use super::runs::{change_of, note, run_of};
use crate::support::stores::Fresh;

on_every_store!(
    events_with_hostile_texts_harm_no_other,
    outcomes_with_hostile_texts_harm_no_other,
    lanes_with_hostile_names_harm_no_other,
    runs_with_hostile_texts_harm_no_other,
    questions_with_hostile_texts_are_answered,
);

const PAGE: Page = Page { limit: 10, newest_first: true };

/// NUL, every control character, quotes of all languages, wildcards, what ends statements, what
/// turns direction, what no index holds.
fn texts() -> Vec<String> {
    vec![
        "a\0b".to_owned(),
        "\0".to_owned(),
        (1..32).map(|byte| char::from(byte as u8)).collect(),
        "'; DROP TABLE jobs; --".to_owned(),
        "\"\\\"`$$ %s {0} ${X} {{ $.a }}".to_owned(),
        "%_*?[]\\".to_owned(),
        "\u{202e}\u{200b}\u{feff}\u{fffd}\u{ffff}\u{10ffff}".to_owned(),
        "\u{1f30a}".repeat(300),
        "x".repeat(20_000),
        // No two of it compress.
        (0..40_000u32).map(|n| char::from_u32(0x4e00 + n * 7919 % 20_000).unwrap()).collect(),
    ]
}

/// The store still takes an event and gives its job, which is done.
async fn is_well(store: &dyn Store, after: &str) {
    let shown: String = after.chars().take(20).collect();
    assert!(matches!(accept(store, new_event(&["h"])).await, Accepted::New { .. }), "{shown:?}");
    let claimed = claim_one(store).await;
    let done =
        store.record(&[outcome(&claimed.job, NextState::Done)]).await.unwrap().pop().unwrap();
    assert_eq!(done, Ok(()), "{shown:?}");
}

async fn events_with_hostile_texts_harm_no_other(Fresh { store, .. }: Fresh) {
    seed(&*store, &["h"], 0).await;
    for text in texts() {
        let (before, mut source, mut kind) = (new_event(&[]), new_event(&[]), new_event(&[]));
        let (mut name, mut value, mut dedupe, mut key, mut body, after) = (
            new_event(&[]),
            new_event(&[]),
            new_event(&[]),
            new_event(&[]),
            new_event(&[]),
            new_event(&[]),
        );
        source.inbound.source.clone_from(&text);
        kind.inbound.kind.clone_from(&text);
        name.inbound.headers.push((text.clone(), "x".to_owned()));
        value.inbound.headers.push(("x".to_owned(), text.clone()));
        dedupe.inbound.dedupe_key = Some(text.clone());
        key.inbound.idempotency_key = Some(text.clone());
        body.inbound.body = tidehook::model::Body::new(text.clone());
        let new_events = [before, source, kind, name, value, dedupe, key, body, after];
        let answers = store.accept(&new_events).await.unwrap();
        for at in [0, new_events.len() - 2, new_events.len() - 1] {
            assert!(matches!(answers[at], Ok(Accepted::New { .. })), "{at}: {:?}", answers[at]);
        }
        for (new_event, answer) in new_events.iter().zip(&answers) {
            if let Ok(Accepted::New { event, .. }) = answer {
                let found = store.events_by_id(&[*event]).await.unwrap().remove(event).unwrap();
                // NUL has a stand-in: one database takes none in its texts.
                let kept = |text: &str| text.replace('\0', "\u{fffd}");
                assert_eq!(
                    (kept(&found.source), kept(&found.kind)),
                    (kept(&new_event.inbound.source), kept(&new_event.inbound.kind))
                );
                assert_eq!(found.body.bytes(), new_event.inbound.body.bytes());
            }
        }
        is_well(&*store, &text).await;
    }
}

async fn outcomes_with_hostile_texts_harm_no_other(Fresh { store, .. }: Fresh) {
    for text in texts() {
        seed(&*store, &["h"], 3).await;
        let claimed = store.claim(&claim_request(3)).await.unwrap();
        assert_eq!(claimed.len(), 3);
        let mut hostile = outcome(&claimed[1].job, NextState::Dead { error: text.clone() });
        if let Some(attempt) = &mut hostile.attempt {
            attempt.error = Some(text.clone());
            attempt.response = text.clone().into_bytes();
        }
        let outcomes = [
            outcome(&claimed[0].job, NextState::Done),
            hostile,
            outcome(&claimed[2].job, NextState::Done),
        ];
        let answers = store.record(&outcomes).await.unwrap();
        assert!(answers[0].is_ok() && answers[2].is_ok(), "{answers:?}");
        match &answers[1] {
            Ok(()) => assert_eq!(store.attempts(claimed[1].job.id).await.unwrap().len(), 1),
            // Whoever is told that it cannot be stored ends the job with a text that can.
            Err(_) => {
                let plain = outcome(
                    &claimed[1].job,
                    NextState::Dead { error: "cannot be stored".to_owned() },
                );
                assert_eq!(store.record(&[plain]).await.unwrap(), [Ok(())]);
            }
        }
        is_well(&*store, &text).await;
    }
}

async fn lanes_with_hostile_names_harm_no_other(Fresh { store, .. }: Fresh) {
    seed(&*store, &["h"], 0).await;
    for text in texts() {
        // A name of a configuration holds no NUL; whoever writes one is refused as a whole.
        let _ = store.upsert_lanes(&[LaneSpec::new(LaneId(text.clone()), &text)]).await;
        let _ = store.pause(&LaneId(text.clone()), true).await;
        let _ = store.pause(&LaneId(text.clone()), false).await;
        assert!(
            store
                .lanes()
                .await
                .unwrap()
                .iter()
                .any(|lane| lane.id == LaneId::handler("h") && !lane.paused)
        );
        let _ = store
            .reject(&[Rejection {
                source: text.clone(),
                reason: text.clone(),
                count: 1,
                last_at: Timestamp(0),
            }])
            .await;
        store.rejections().await.unwrap();
        is_well(&*store, &text).await;
    }
}

async fn runs_with_hostile_texts_harm_no_other(Fresh { store, .. }: Fresh) {
    seed(&*store, &["h"], 0).await;
    let new = new_event(&[]);
    let event = new.id;
    accept(&*store, new).await;
    for text in texts() {
        let _ = store
            .define(&[Definition {
                hash: text.clone(),
                name: text.clone(),
                body: json!([text]).to_string(),
            }])
            .await;
        let why = RunError {
            class: text.clone(),
            message: text.clone(),
            step: Some(text.clone()),
            status: None,
            job: None,
            attempts: 0,
            app: Some(text.clone()),
        };
        let plain = run_of(event, "w");
        let hostile = [
            change_of(&run_of(event, &text), true),
            change_of(
                &Run { status: RunStatus::Failed, error: Some(why), ..run_of(event, "w") },
                true,
            ),
            {
                let run = run_of(event, "w");
                let mut state = super::runs::state(&json!({ text.clone(): text }));
                state.vars.insert(text.clone(), json!(text));
                change_of(&Run { state, ..run }, true)
            },
            {
                let mut change = change_of(&run_of(event, "w"), true);
                change.notes = vec![note(NoteKind::StepEntered, json!({ text.clone(): text }))];
                change.notes[0].step = Some(text.clone());
                change
            },
            {
                let mut change = change_of(&run_of(event, "w"), true);
                change.tokens = vec![Token {
                    hash: text.clone(),
                    run: change.run.id,
                    visit: 1,
                    answer: Some(text.clone()),
                }];
                change
            },
            {
                let mut change = change_of(&run_of(event, "w"), true);
                let (version, _) = store.gate(&text).await.unwrap_or_default();
                change.gate = Some(GateChange { id: text.clone(), version, gate: Gate::default() });
                change
            },
        ];
        for change in hostile {
            // Each beside one that has nothing the matter.
            let neighbour =
                Run { id: tidehook::model::RunId::next(&*super::build::IDS), ..plain.clone() };
            let answers =
                store.change(&[change.clone(), change_of(&neighbour, true)]).await.unwrap();
            assert_eq!(answers[1], Ok(()), "{:?}", text.chars().take(20).collect::<String>());
            match &answers[0] {
                Ok(()) => assert_eq!(
                    store.run(change.run.id).await.unwrap().unwrap().state,
                    change.run.state
                ),
                Err(_) => assert_eq!(store.run(change.run.id).await.unwrap(), None),
            }
        }
        assert!(!store.runs(&RunFilter::default(), PAGE).await.unwrap().is_empty());
        is_well(&*store, &text).await;
    }
}

async fn questions_with_hostile_texts_are_answered(Fresh { store, .. }: Fresh) {
    seed(&*store, &["h"], 1).await;
    for text in texts() {
        let of = |source: Option<&String>, kind: Option<&String>| EventFilter {
            source: source.cloned(),
            kind: kind.cloned(),
            ..EventFilter::default()
        };
        assert!(store.events(&of(Some(&text), None), PAGE).await.unwrap().is_empty());
        assert!(store.events(&of(None, Some(&text)), PAGE).await.unwrap().is_empty());
        let jobs = JobFilter { handler: Some(text.clone()), ..JobFilter::default() };
        assert!(store.jobs(&jobs, PAGE).await.unwrap().is_empty());
        let runs = RunFilter { workflow: Some(text.clone()), ..RunFilter::default() };
        assert!(store.runs(&runs, PAGE).await.unwrap().is_empty());
        assert_eq!(store.definition(&text).await.unwrap(), None);
        assert_eq!(store.gate(&text).await.unwrap().0, 0);
        assert_eq!(store.token(&text).await.unwrap(), None);
        assert!(!store.pause(&LaneId(text.clone()), true).await.unwrap());
        let retry =
            Retry::All { state: tidehook::model::JobState::Dead, handler: Some(text.clone()) };
        assert_eq!(store.retry(&retry).await.unwrap(), 0);
        let claim =
            tidehook::store::ClaimRequest { skip: vec![LaneId(text.clone())], ..claim_request(1) };
        let claimed = store.claim(&claim).await.unwrap();
        assert_eq!(claimed.len(), 1);
        let back = outcome(&claimed[0].job, NextState::Released);
        assert_eq!(store.record(&[back]).await.unwrap(), [Ok(())]);
    }
}
