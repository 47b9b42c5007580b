//! Properties of the machine: random definitions, random facts in any order, with repeats and
//! strangers.
//!
//! What must hold after every fact: the run is as it must be ([`faults`]); the same fact again
//! changes nothing; a stranger changes nothing; the same fact on the same run gives the same
//! change. And every run ends when every job ends.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;
use tidehook::decide::workflow::catch::error;
use tidehook::decide::workflow::check::faults;
use tidehook::decide::workflow::machine::NewRun;
use tidehook::decide::workflow::redrive::{Redrive, redrive};
use tidehook::decide::workflow::{Context, Draw, Fact, Flow, advance, start};
use tidehook::model::history::NoteKind;
use tidehook::model::run::{Change, VisitPhase};
use tidehook::model::{
    EventId, JobId, Payload, Run, RunError, RunId, RunStatus, Target, Timestamp,
};
use ulid::Ulid;

use crate::support::world::config;

/// Ids that count up.
#[derive(Clone)]
struct Counted(Cell<u128>);

impl Draw for Counted {
    fn id(&self) -> Ulid {
        self.0.set(self.0.get() + 1);
        Ulid(self.0.get())
    }

    fn token(&self) -> String {
        format!("{:0>52}", self.id().to_string())
    }

    fn chance(&self) -> f64 {
        0.5
    }
}

/// A definition as text: what each step is, and where its jumps go.
fn definition() -> impl Strategy<Value = String> {
    let step = (0..11_u8, any::<bool>(), 0..4_u8, 0..8_usize, 0..8_usize);
    let ending = (any::<bool>(), any::<bool>(), any::<bool>());
    (
        prop::collection::vec(step, 1..8), any::<bool>(), 5..80_u32, ending,
    ).prop_map(|(steps, has_timeout, max_steps, ending)| {
        let (undoes, has_finally, catches_all) = ending;
        let count = steps.len();
        let mut text = String::from("sources: { app: { type: event } }\nserver: \
            { allow_private_urls: true }\nworkflows:\n  w:\n    source: app\n");
        text += &format!("    max_steps: {max_steps}\n");
        if has_timeout {
            text += "    timeout: 1000\n";
        }
        if undoes {
            text += "    on_failure: compensate\n";
        }
        if has_finally {
            text += "    finally: [{ name: f, url: http://f/ }, \
                { name: g, type: wait, seconds: 1 }]\n";
        }
        if catches_all {
            text += &format!("    catch: [{{ errors: [all], goto: s{} }}]\n", count - 1);
        }
        text += "    steps:\n";
        for (at, (kind, catches, after, to, other)) in steps.iter().enumerate() {
            // What takes no time only leads forward, or the definition would be refused as endless.
            let forward = (at + 1 + to % count).min(count - 1).max(at.min(count - 1));
            let mut keys = vec![format!("name: s{at}")];
            let mut takes_time = true;
            keys.push(match kind {
                0 => "url: http://a/, result_path: $.r".to_owned(),
                1 => "url: http://a/, result_path: $.r, compensate: \
                    { url: http://undo/ }".to_owned(),
                9 => "url: http://a/, result_path: $.r, on_exhausted: pause, compensate: \
                    { url: http://undo/ }".to_owned(),
                10 => "url: http://a/, poll: { until: $.skip == true, every: 1s, max: 3 }, assign: \
                    { a: \"{{ $$.response.status }}\" }".to_owned(),
                2 => "url: http://a/, if: $.skip != true".to_owned(),
                3 => "type: parallel, branches: [{ name: a, url: http://a/, compensate: \
                    { url: http://undo/ } }, { name: b, url: http://b/ }]".to_owned(),
                4 => format!(
                    "type: map, items_path: $.items, max_concurrency: {}, on_item_failure: {}, \
                     result_path: $.m, steps: \
                     [{{ name: i, url: http://i/, compensate: {{ url: http://undo/ }}{} }}, \
                     {{ name: j, type: wait, seconds: 1 }}]",
                    1 + other % 3,
                    if *catches { "collect" } else { "fail" },
                    if other % 2 == 0 { "" } else { ", catch: [{ errors: [5xx], compensate: true }]" }
                ),
                5 => "type: wait, seconds: 5".to_owned(),
                6 => "type: callback, url: http://c/, callback_timeout: 60, result_path: \
                    $.c".to_owned(),
                7 if at + 1 < count => {
                    takes_time = false;
                    format!("type: choice, choices: [{{ when: $.r exists, goto: s{} }}], default: \
                        s{forward}", at + 1)
                }
                _ => {
                    takes_time = false;
                    "type: set, body: { items: [1, 2, 3], r: 1 }".to_owned()
                }
            });
            if *catches && *kind != 7 && (takes_time || at + 1 < count) {
                keys.push(format!("catch: [{{ errors: [4xx, timeout, bad_items], goto: s{} \
                    }}]", if takes_time { other % count } else { forward }));
            }
            match after {
                0 => keys.push("end: true".to_owned()),
                1 if takes_time => keys.push(format!("goto: s{}", to % count)),
                2 => keys.push("on_failure: continue".to_owned()),
                _ => {}
            }
            text += &format!("      - {{ {} }}\n", keys.join(", "));
        }
        text
    })
}

/// The run and its open jobs, as a store would keep them.
struct World {
    run: Run,
    open: BTreeMap<JobId, Target>,
    /// Open jobs that wait until the run is resumed.
    held: BTreeSet<JobId>,
    entered: usize,
}

impl World {
    fn apply(&mut self, change: Change, by: Option<JobId>) {
        by.and_then(|job| self.open.remove(&job));
        change
            .cancel_jobs
            .iter()
            .for_each(|job| assert!(self.open.remove(job).is_some(), "{job} was not open"));
        self.held.retain(|job| !change.cancel_jobs.contains(job));
        self.held.extend(change.jobs.iter().filter(|job| job.is_paused).map(|job| job.id));
        self.held.extend(&change.pause_jobs);
        change
            .resume_jobs
            .iter()
            .for_each(|job| assert!(self.held.remove(job), "{job} was not held"));
        assert!(
            self.held
                .iter()
                .all(|job| self.open.contains_key(job)
                    || change.jobs.iter().any(|new| new.id == *job))
        );
        self.open.extend(change.jobs.iter().map(|job| (job.id, job.target.clone())));
        self.entered +=
            change.notes.iter().filter(|note| note.kind == NoteKind::StepEntered).count();
        self.run = Run { version: self.run.version + 1, ..change.run };
    }

    fn check(&self) {
        let jobs: BTreeSet<JobId> = self.open.keys().copied().collect();
        assert_eq!(faults(&self.run, &jobs), Vec::<String>::new(), "{:#?}", self.run.state);
        if self.run.status.is_closed() {
            assert!(self.open.is_empty(), "a closed run has open jobs: {:?}", self.open);
            assert!(self.run.state.ending.is_none());
        }
        match self.run.status {
            RunStatus::Paused => assert_eq!(self.held, jobs, "what a paused run waits for is held"),
            _ => assert!(self.held.is_empty(), "{:?} is held", self.held),
        }
    }
}

/// What may happen next: the end of an open job, or an answer from outside.
fn possible(world: &World, dice: u64) -> Option<(Fact, Option<JobId>)> {
    let waiting = world.run.state.visits.iter().filter(|(_, v)| {
        matches!(v.phase, VisitPhase::Answer { .. } | VisitPhase::Call { token: Some(_), .. })
    });
    let waiting: Vec<u32> = waiting.map(|(seq, _)| *seq).collect();
    if world.run.status == RunStatus::Paused && dice & 3 != 0 {
        return Some((Fact::Resumed, None));
    }
    let open: Vec<(&JobId, &Target)> =
        world.open.iter().filter(|(job, _)| !world.held.contains(job)).collect();
    let count = open.len() + waiting.len();
    if count == 0 || dice & 0x1f00_0000 == 0 {
        return match dice & 3 {
            0 if !world.run.status.is_closed() && world.run.state.ending.is_none() => {
                Some((Fact::Cancelled, None))
            }
            1 if !matches!(world.run.status, RunStatus::Paused)
                && !world.run.status.is_closed() =>
            {
                Some((Fact::Paused, None))
            }
            _ if count == 0 => None,
            _ => possible(world, dice | 0x0100_0000),
        };
    }
    let at = usize::try_from(dice % count as u64).unwrap();
    if let Some(visit) = at.checked_sub(open.len()).and_then(|at| waiting.get(at)) {
        let answer = if dice & 64 == 0 {
            Ok(Payload::Json(json!({ "dice": dice })))
        } else {
            Err("no".to_owned())
        };
        return Some((Fact::CalledBack { visit: *visit, answer }, None));
    }
    let (job, target) = *open.get(at)?;
    let visiting = target.visit_ref()?;
    let visit = visiting.visit;
    let fact = match (target, dice >> 8 & 3) {
        (Target::Timer(_), _) => Fact::Elapsed { visit, job: *job },
        (_, 0) => {
            let class =
                ["4xx", "5xx", "timeout"][usize::try_from(dice >> 16 & 0xffff).unwrap() % 3];
            let error = RunError { status: Some(400), ..error(class, "failed") };
            Fact::Failed { visit, job: *job, error }
        }
        (_, n) => {
            let body = if n == 1 {
                Payload::Text("text".to_owned())
            } else {
                Payload::Json(json!({ "items": [n, n], "skip": n == 2 }))
            };
            Fact::Answered { visit, job: *job, status: 200, body }
        }
    };
    Some((fact, Some(*job)))
}

fn play(flow: &Flow, dice: &[u64]) {
    let draw = Counted(Cell::new(1_000_000));
    let now = Timestamp(1_769_853_600_000);
    let birth = || NewRun {
        id: RunId(Ulid(1)),
        event: EventId(Ulid(2)),
        event_context: json!({ "source": "app" }),
        input: Payload::Json(json!({ "items": [1, 2, 3] })),
        parent: None,
        depth: 0,
    };
    let first = start(birth(), &Context { flow, now, draw: &draw });
    let mut world =
        World { run: first.run.clone(), open: BTreeMap::new(), held: BTreeSet::new(), entered: 0 };
    world.apply(first, None);
    world.check();
    let mut told: Vec<Fact> = Vec::new();
    let mut redriven = false;
    for (turn, dice) in dice.iter().cycle().take(600).enumerate() {
        let now = now.plus(Duration::from_secs(turn as u64));
        if world.run.status.is_closed() && !redriven && world.run.status != RunStatus::Completed {
            redriven = true;
            if let Ok(change) =
                redrive(&world.run, &Redrive::default(), &Context { flow, now, draw: &draw })
            {
                world.apply(change, None);
                world.check();
                continue;
            }
        }
        let context = |draw: &dyn Fn() -> Counted| draw();
        let Some((fact, job)) = possible(&world, dice.wrapping_add(turn as u64 * 0x9E37_79B9))
        else {
            break;
        };
        let twin = context(&|| draw.clone());
        let change = advance(&world.run, &fact, &Context { flow, now, draw: &draw });
        let again = advance(&world.run, &fact, &Context { flow, now, draw: &twin });
        assert_eq!(change, again, "the same fact on the same run gives the same change");
        let change = change.unwrap_or_else(|| panic!("{fact:?} is open and changed nothing"));
        world.apply(change, job);
        world.check();
        if !matches!(fact, Fact::Paused | Fact::Resumed | Fact::Cancelled) {
            told.push(fact);
        }
        for repeat in told.iter().rev().take(5) {
            // A callback that is answered again is the same visit only while it waits.
            let still_waits = matches!(
                repeat,
                Fact::CalledBack { visit, .. } if world.run.state.visits.contains_key(visit),
            );
            if !still_waits {
                assert_eq!(
                    advance(&world.run, repeat, &Context { flow, now, draw: &draw }),
                    None,
                    "{repeat:?} again"
                );
            }
        }
        let stranger = Fact::Elapsed { visit: 1, job: JobId(Ulid(7)) };
        assert_eq!(advance(&world.run, &stranger, &Context { flow, now, draw: &draw }), None);
        let stranger = Fact::Elapsed { visit: 0, job: JobId(Ulid(7)) };
        assert_eq!(advance(&world.run, &stranger, &Context { flow, now, draw: &draw }), None);
    }
    assert_eq!(world.entered, usize::try_from(world.run.state.visited).unwrap());
    if !world.run.status.is_closed() {
        let change =
            advance(&world.run, &Fact::Killed, &Context { flow, now, draw: &draw }).unwrap();
        world.apply(change, None);
        assert!(world.run.status.is_closed(), "a run that is killed has ended");
        world.check();
    }
    assert_eq!(
        advance(&world.run, &Fact::Cancelled, &Context { flow, now, draw: &draw }),
        None,
        "after an end nothing happens"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_happens_in_whatever_order_a_run_is_as_it_must_be(text in definition(), dice in prop::collection::vec(any::<u64>(), 8..60)) {
        let config = config(&text);
        play(&config.workflows[0].flow, &dice);
    }
}
