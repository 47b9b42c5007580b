//! The scenarios of `examples/`, against real servers: what comes in comes by HTTP, what goes out
//! is answered as the scenario says, and time passes by the time machine.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tidehook::cli::test::scenario::{
    Answer, Callback, Expect, ExpectedRun, Scenario, Step, matches, stands_for,
};
use tidehook::model::time::parse_duration;

use super::machine::Machine;
use super::{shown, token};
use crate::support::endpoint::{PATIENCE, ReceivedRequest, UnansweredRequest};
use crate::support::world::World;

const TOKEN: (&str, &str) = ("authorization", "Bearer plainly-fictional");
/// Stands for the receiver's address where braces have a meaning.
const PLACE: &str = "receiver.invalid";
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// All scenarios of the examples, in order.
pub fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/scenarios");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

/// A configuration with what others have of sources and workflows, their receivers held by the
/// test's.
pub fn with_examples(text: &str) -> String {
    let mut all: serde_yaml::Value =
        serde_yaml::from_str(&text.replace("{receiver}", PLACE)).unwrap();
    let mut configs: Vec<PathBuf> =
        files().iter().map(|file| file.parent().unwrap().join(read(file).config)).collect();
    configs.dedup();
    for config in configs {
        let text = std::fs::read_to_string(&config)
            .unwrap()
            .replace("https://", &format!("http://{PLACE}/held/"));
        let example: serde_yaml::Value = serde_yaml::from_str(&text).unwrap();
        for section in ["sources", "workflows"] {
            for (name, value) in example[section].as_mapping().unwrap() {
                let taken =
                    all[section].as_mapping_mut().unwrap().insert(name.clone(), value.clone());
                // Two scenarios of one example have the same to say.
                assert!(taken.is_none_or(|before| before == *value), "two examples have {name:?}");
            }
        }
    }
    serde_yaml::to_string(&all).unwrap().replace(PLACE, "{receiver}")
}

fn read(file: &Path) -> Scenario {
    serde_yaml::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

/// A scenario under way.
struct Played<'a> {
    world: &'a World,
    machine: &'a Machine,
    scenario: Scenario,
    /// What receivers had got before it began.
    before: usize,
}

/// Plays a scenario, and answers what receivers have got of it.
pub async fn play(world: &World, machine: &Machine, file: &Path) -> Vec<Value> {
    let played =
        Played { world, machine, scenario: read(file), before: world.receiver.got().len() };
    for (at, step) in played.scenario.steps.iter().enumerate() {
        let what = format!("{}, step {}", file.file_name().unwrap().display(), at + 1);
        played.step(step, &what).await;
    }
    played.rest("the end").await;
    shown(&played.got())
}

impl Played<'_> {
    fn got(&self) -> Vec<ReceivedRequest> {
        self.world.receiver.got().split_off(self.before)
    }

    async fn step(&self, step: &Step, what: &str) {
        if let Some(send) = &step.send {
            let path = format!("/events/{}/{}", send.source, send.kind);
            let said = self.world.post(&path, &[TOKEN], send.body.to_string()).await;
            assert_eq!(said.status, 202, "{what}: {}", said.text);
        }
        self.settle(what).await;
        if let Some(text) = &step.advance {
            self.rest(what).await;
            self.machine.advance(parse_duration(text).unwrap()).await;
            self.world.look().await;
        }
        if let Some(expect) = &step.expect {
            let held = self.until(what, async || self.take(expect)).await;
            answer(held, step.answer.as_ref());
            self.settle(what).await;
        }
        if let Some(said) = &step.callback {
            self.rest(what).await;
            self.callback(said, what).await;
            self.settle(what).await;
        }
        if step.quiet == Some(true) {
            let held: Vec<String> =
                self.world.receiver.held().iter().map(|held| place(&held.got)).collect();
            assert!(held.is_empty(), "{what}: calls wait: {held:?}");
        }
        if let Some(run) = &step.run {
            let found = self.until(what, async || self.run(run).await).await;
            let output = run.output.as_ref().unwrap_or(&Value::Null);
            assert!(
                output.is_null() || matches(output, &found["output"]),
                "{what}: it came to {}",
                found["output"]
            );
            assert!(
                run.error.is_none() || found["error"]["class"] == json!(run.error),
                "{what}: {}",
                found["error"]
            );
        }
    }

    /// Waits for something, answering meanwhile what nothing in the scenario waits for.
    async fn until<T>(&self, what: &str, look: impl AsyncFn() -> Option<T>) -> T {
        let waiting = async {
            loop {
                self.answer_by_itself();
                match look().await {
                    Some(found) => return found,
                    None => tokio::time::sleep(LOOK_EVERY).await,
                }
            }
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(found) => found,
            Err(_) => {
                let held: Vec<String> =
                    self.world.receiver.held().iter().map(|held| place(&held.got)).collect();
                panic!("{what}: it never came; held: {held:?}; got: {:#?}", shown(&self.got()));
            }
        }
    }

    /// Until nothing moves without an answer: what is under way waits here for one.
    async fn settle(&self, what: &str) {
        let settled = async || {
            let held = self.world.receiver.held().len();
            (self.machine.open().await == i64::try_from(held).unwrap()).then_some(())
        };
        self.until(&format!("{what}, settled"), settled).await;
    }

    /// Until nothing is due and nothing under way.
    async fn rest(&self, what: &str) {
        self.until(&format!("{what}, at rest"), async || {
            (self.machine.open().await == 0).then_some(())
        })
        .await;
    }

    fn answer_by_itself(&self) {
        let answer_of = |held: &UnansweredRequest| {
            self.scenario.answers.iter().find(|(at, _)| stands_for(at, &place(&held.got)))
        };
        let mut all = self.world.receiver.held();
        for at in (0..all.len()).rev() {
            if let Some((_, given)) = answer_of(&all[at]) {
                answer(all.remove(at), Some(given));
            }
        }
    }

    fn take(&self, expect: &Expect) -> Option<UnansweredRequest> {
        let fits = |held: &UnansweredRequest| {
            let body = serde_json::from_slice(&held.got.body).unwrap_or(Value::Null);
            stands_for(&expect.at, &place(&held.got))
                && expect.body.as_ref().is_none_or(|expected| matches(expected, &body))
                && expect
                    .attempt
                    .is_none_or(|n| held.got.header("x-tidehook-attempt") == Some(&n.to_string()))
                && expect.headers.iter().all(|(name, value)| held.got.header(name) == Some(value))
        };
        let mut all = self.world.receiver.held();
        all.iter().position(fits).map(|at| all.remove(at))
    }

    async fn callback(&self, said: &Callback, what: &str) {
        let token = token(&self.got());
        let (path, body) = match &said.fail {
            Some(why) => (format!("/callback/{token}/fail"), json!({ "message": why })),
            None if said.heartbeat => (format!("/callback/{token}/heartbeat"), Value::Null),
            None => (format!("/callback/{token}"), said.body.clone()),
        };
        let taken =
            self.world.post(&path, &[("content-type", "application/json")], body.to_string()).await;
        assert_eq!(taken.status, 200, "{what}: {}", taken.text);
    }

    /// The latest run, if it stands so.
    async fn run(&self, expected: &ExpectedRun) -> Option<Value> {
        let get = async |path: &str| {
            let request = self.world.http.get(self.world.url(path)).header(TOKEN.0, TOKEN.1);
            self.world.send(request).await.json()
        };
        let runs =
            get(&format!("/api/runs?workflow={}&order=desc&limit=1", expected.workflow)).await;
        let id = runs["runs"][0]["id"].as_str()?;
        let run = get(&format!("/api/runs/{id}")).await;
        (run["status"] == expected.is.as_str()).then_some(run)
    }
}

fn place(got: &ReceivedRequest) -> String {
    got.header("x-tidehook-handler").unwrap_or_default().to_owned()
}

/// An answer that does not come in time is a connection that closes without one: real time does not
/// pass by the machine.
fn answer(held: UnansweredRequest, given: Option<&Answer>) {
    let given = given.cloned().unwrap_or_default();
    if !given.timeout {
        held.answer(given.status, given.bytes());
    }
}
