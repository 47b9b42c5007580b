//! A deployed stack, as the AWS CLI and the stack's own ticker see it: for `tidehook doctor --lambda`.

use std::process::Command;

use anyhow::{Context, anyhow, bail};
use serde_json::{Value, json};

/// A finding: what, and why it is wrong if it is.
pub(super) type Found = (String, Option<String>);

/// Looks at a stack of `template.yaml`.
///
/// # Errors
/// It cannot be looked at.
pub(super) fn look(stack: &str) -> anyhow::Result<Vec<Found>> {
    let about = aws(&["cloudformation", "describe-stacks", "--stack-name", stack])?;
    let outputs = &about["Stacks"][0]["Outputs"];
    let output = |name: &str| {
        let found = outputs.as_array().into_iter().flatten().find(|output| output["OutputKey"] == name);
        found
            .and_then(|output| output["OutputValue"].as_str())
            .map(str::to_owned)
            .with_context(|| format!("the stack has no output {name}"))
    };
    let (ticker, worker) = (output("TickerName")?, output("WorkerName")?);
    let mut found = vec![schedule(stack)?];
    found.extend(mapping(&worker)?);
    match from_inside(&ticker) {
        Ok(inside) => found.extend(inside),
        Err(why) => found.push(("ticker".to_owned(), Some(format!("{why:#}")))),
    }
    Ok(found)
}

fn schedule(stack: &str) -> anyhow::Result<Found> {
    let schedule = aws(&["scheduler", "get-schedule", "--name", &format!("{stack}-tick")])?;
    let (state, rate) = (schedule["State"].as_str().unwrap_or("-"), schedule["ScheduleExpression"].as_str().unwrap_or("-"));
    let off = (state != "ENABLED").then(|| format!("it is {state}: nothing that is due later, and no lost hint, is found"));
    let whole = rate.starts_with("rate(") && rate.ends_with(')');
    let why =
        off.or((!whole).then(|| "that is no rate; on a command line quote it twice: TickRate='\"rate(10 minutes)\"'".to_owned()));
    Ok((format!("schedule: {rate}"), why))
}

fn mapping(worker: &str) -> anyhow::Result<Vec<Found>> {
    let all = aws(&["lambda", "list-event-source-mappings", "--function-name", worker])?;
    let Some(mapping) = all["EventSourceMappings"].as_array().and_then(|all| all.first()) else {
        return Ok(vec![("worker: queue".to_owned(), Some("nothing gives it messages".to_owned()))]);
    };
    let state = mapping["State"].as_str().unwrap_or("-");
    let partial = mapping["FunctionResponseTypes"].to_string().contains("ReportBatchItemFailures");
    let most = mapping["ScalingConfig"]["MaximumConcurrency"].as_u64();
    Ok(vec![
        ("worker: queue".to_owned(), (state != "Enabled").then(|| format!("its mapping is {state}"))),
        (
            "worker: answers which messages are to come again".to_owned(),
            (!partial).then(|| "FunctionResponseTypes lacks ReportBatchItemFailures: one failure repeats a batch".to_owned()),
        ),
        (
            format!("worker: at most {} at once", most.map_or("any number".to_owned(), |most| most.to_string())),
            most.is_none().then(|| "set ScalingConfig.MaximumConcurrency: the database's connections are no more".to_owned()),
        ),
    ])
}

/// What the ticker finds where it runs.
fn from_inside(ticker: &str) -> anyhow::Result<Vec<Found>> {
    let dir = tempfile::tempdir()?;
    let (asked, answer) = (dir.path().join("asked.json"), dir.path().join("answer.json"));
    std::fs::write(&asked, json!({ "tidehook": "doctor" }).to_string())?;
    let payload = format!("fileb://{}", asked.display());
    let invoked = aws(&["lambda", "invoke", "--function-name", ticker, "--payload", &payload, &answer.display().to_string()])?;
    let answer: Value = serde_json::from_str(&std::fs::read_to_string(&answer)?).context("the ticker's answer cannot be read")?;
    if !invoked["FunctionError"].is_null() {
        bail!("the ticker fails: {}", answer["errorMessage"].as_str().unwrap_or("its log says why"));
    }
    let checks = answer["checks"].as_array().context("the ticker knows no such question; deploy this version")?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let found = |check: &Value| Ok((text(&check["what"]).context("the ticker's answer lacks a name")?, text(&check["why"])));
    checks.iter().map(found).collect()
}

/// Runs the AWS CLI, which knows the keyboard's credentials, region and endpoints.
fn aws(arguments: &[&str]) -> anyhow::Result<Value> {
    let ran = Command::new("aws").args(arguments).args(["--output", "json"]).output();
    let ran = ran.map_err(|why| anyhow!("the AWS CLI cannot be run ({why}); install it and log in"))?;
    if !ran.status.success() {
        bail!("aws {} {}: {}", arguments[0], arguments[1], String::from_utf8_lossy(&ran.stderr).trim());
    }
    let text = String::from_utf8_lossy(&ran.stdout);
    if text.trim().is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_str(&text)?) }
}
