//! `tidehook test`: plays scenarios against the real engine in memory. A wait of three days takes
//! milliseconds.
//!
//! - `scenario`: the format of a scenario file
//! - `stage`: the engine, the receivers and the clock that a scenario plays on

pub mod scenario;
mod stage;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, anyhow};
use clap::Args;
use serde_json::json;

use super::{Done, Global, print};
use scenario::Scenario;
use stage::Stage;

/// Run scenario tests: events, mock responses, simulated time, and expected results
///
/// docs/workflows.md describes the scenario files.
#[derive(Debug, Args)]
pub(super) struct Test {
    /// The scenario files to play, in this order
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

pub(super) async fn run(test: &Test, global: &Global) -> Done {
    let mut results = Vec::new();
    for file in &test.files {
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("{} cannot be read", file.display()))?;
        let start = Instant::now();
        let (name, result) = match serde_yaml::from_str::<Scenario>(&text) {
            Ok(scenario) => (scenario.name.clone(), on_stage(scenario, file.clone()).await),
            Err(why) => (String::new(), Err(format!("this is not a valid scenario file: {why}"))),
        };
        let took = start.elapsed();
        if !global.json {
            let mark = if result.is_ok() { "ok    " } else { "FAILED" };
            let name = print::one_line(&name);
            print::line(&format!("{mark}  {}  {name}  ({} ms)", file.display(), took.as_millis()));
            if let Err(why) = &result {
                print::line(&format!("        {why}"));
            }
        }
        results.push((file, name, result));
    }
    let failed = results.iter().filter(|(.., result)| result.is_err()).count();
    if global.json {
        let one = |(file, name, result): &(&PathBuf, String, Result<(), String>)| {
            json!({
                "file": file.display().to_string(),
                "name": name,
                "passed": result.is_ok(),
                "why": result.clone().err(),
            })
        };
        print::json(&json!(results.iter().map(one).collect::<Vec<_>>()));
    }
    match failed {
        0 => Ok(()),
        n => Err(anyhow!("{n} of {} scenarios failed", results.len()).into()),
    }
}

/// Plays a scenario on a runtime with one thread, so that things happen in the same order each
/// time.
async fn on_stage(scenario: Scenario, file: PathBuf) -> Result<(), String> {
    let playing = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|why| why.to_string())?;
        runtime.block_on(play(&scenario, &file))
    });
    playing.await.map_err(|died| died.to_string())?
}

async fn play(scenario: &Scenario, file: &Path) -> Result<(), String> {
    let mut stage = Stage::new(scenario, file).await?;
    for (at, step) in scenario.steps.iter().enumerate() {
        stage.play(step).await.map_err(|why| format!("step {}: {why}", at + 1))?;
    }
    Ok(())
}
