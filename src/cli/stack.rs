//! A deployed stack, as the AWS CLI and the stack's own ticker see it: for `tidehook doctor --lambda` and `migrate --lambda`.

use std::process::Command;

use anyhow::{Context, anyhow, bail};
use serde_json::{Value, json};

use super::doctor::Report;

/// The names of a stack's functions.
struct Stack {
    ticker: String,
    worker: String,
    ingress: String,
}

impl Stack {
    fn find(stack: &str) -> anyhow::Result<Self> {
        let about = aws(&["cloudformation", "describe-stacks", "--stack-name", stack])?;
        let outputs = &about["Stacks"][0]["Outputs"];
        let output = |name: &str| {
            let found = outputs.as_array().into_iter().flatten().find(|output| output["OutputKey"] == name);
            let value = found.and_then(|output| output["OutputValue"].as_str()).map(str::to_owned);
            value.with_context(|| format!("the stack has no output {name}"))
        };
        Ok(Self { ticker: output("TickerName")?, worker: output("WorkerName")?, ingress: output("IngressName")? })
    }
}

/// Looks at a stack of `template.yaml`.
///
/// # Errors
/// It cannot be looked at.
pub(super) fn look(stack: &str, report: &mut Report) -> anyhow::Result<()> {
    let names = Stack::find(stack)?;
    let ticker = aws(&["lambda", "get-function-configuration", "--function-name", &names.ticker])?;
    let told = |name: &str| ticker["Environment"]["Variables"][name].as_str().unwrap_or("-").to_owned();
    schedule(stack, &told("TIDEHOOK_TICK_RATE"), report)?;
    mapping(&names.worker, report)?;
    times(&names.worker, &told("TIDEHOOK_WORKER_TIMEOUT_SECONDS"), report)?;
    for name in [&names.ingress, &names.ticker, &names.worker] {
        let reserved = aws(&["lambda", "get-function-concurrency", "--function-name", name])?;
        if reserved["ReservedConcurrentExecutions"] == 0 {
            report.wrong(format!("function {name}"), "its reserved concurrency is 0: it never runs");
        }
    }
    if let Err(why) = from_inside(&names.ticker, report) {
        report.wrong("ticker", format!("{why:#}"));
    }
    Ok(())
}

/// Has a stack's ticker migrate the database.
///
/// # Errors
/// It cannot be asked, or it fails; the message is the function's own, a configuration that is wrong included.
pub(super) fn migrate(stack: &str) -> anyhow::Result<()> {
    invoke(&Stack::find(stack)?.ticker, &json!({ "tidehook": "migrate" })).map(drop)
}

fn schedule(stack: &str, told: &str, report: &mut Report) -> anyhow::Result<()> {
    let schedule = aws(&["scheduler", "get-schedule", "--name", &format!("{stack}-tick")])?;
    let (state, rate) = (schedule["State"].as_str().unwrap_or("-"), schedule["ScheduleExpression"].as_str().unwrap_or("-"));
    let what = format!("schedule: {rate}");
    if state != "ENABLED" {
        report.wrong(what, format!("it is {state}: nothing that is due later, and no lost hint, is found"));
    } else if !(rate.starts_with("rate(") && rate.ends_with(')')) {
        report.wrong(what, "that is no rate; on a command line quote it twice: TickRate='\"rate(10 minutes)\"'");
    } else if rate != told {
        report.wrong(what, format!("functions are told {told}, and look ahead by that: deploy the stack with the rate you want"));
    } else {
        report.well(what);
    }
    Ok(())
}

fn mapping(worker: &str, report: &mut Report) -> anyhow::Result<()> {
    let all = aws(&["lambda", "list-event-source-mappings", "--function-name", worker])?;
    let Some(mapping) = all["EventSourceMappings"].as_array().and_then(|all| all.first()) else {
        report.wrong("worker: queue", "nothing gives it messages");
        return Ok(());
    };
    match mapping["State"].as_str().unwrap_or("-") {
        "Enabled" => report.well("worker: queue"),
        state => report.wrong("worker: queue", format!("its mapping is {state}")),
    }
    match mapping["FunctionResponseTypes"].to_string().contains("ReportBatchItemFailures") {
        true => report.well("worker: answers which messages are to come again"),
        false => report.wrong(
            "worker: answers which messages are to come again",
            "FunctionResponseTypes lacks ReportBatchItemFailures: one failure repeats a batch",
        ),
    }
    match mapping["ScalingConfig"]["MaximumConcurrency"].as_u64() {
        Some(most) => report.well(format!("worker: at most {most} at once")),
        None => report
            .wrong("worker: any number at once", "set ScalingConfig.MaximumConcurrency: the database's connections are no more"),
    }
    Ok(())
}

/// The timeout of the worker, and what the functions believe it to be: the other findings count with that.
fn times(worker: &str, told: &str, report: &mut Report) -> anyhow::Result<()> {
    let about = aws(&["lambda", "get-function-configuration", "--function-name", worker])?;
    let timeout = about["Timeout"].to_string();
    match timeout == told {
        true => report.well(format!("worker: times out after {timeout} s")),
        false => report.wrong(
            format!("worker: times out after {timeout} s"),
            format!("functions are told {told} s: deploy the stack with the WorkerTimeoutSeconds you want"),
        ),
    }
    Ok(())
}

/// What the ticker finds where it runs.
fn from_inside(ticker: &str, report: &mut Report) -> anyhow::Result<()> {
    let answer = invoke(ticker, &json!({ "tidehook": "doctor" }))?;
    for check in answer["checks"].as_array().context("the ticker knows no such question; deploy this version")? {
        let what = check["what"].as_str().context("the ticker's answer lacks a name")?;
        match (check["why"].as_str(), check["note"].as_str()) {
            (Some(why), _) => report.wrong(what, why),
            (None, Some(note)) => report.note(what, note),
            (None, None) => report.well(what),
        }
    }
    Ok(())
}

/// Invokes a function and answers what it answers.
fn invoke(function: &str, payload: &Value) -> anyhow::Result<Value> {
    let dir = tempfile::tempdir()?;
    let (asked, answer) = (dir.path().join("asked.json"), dir.path().join("answer.json"));
    std::fs::write(&asked, payload.to_string())?;
    let payload = format!("fileb://{}", asked.display());
    let invoked = aws(&["lambda", "invoke", "--function-name", function, "--payload", &payload, &answer.display().to_string()])?;
    let text = std::fs::read_to_string(&answer)?;
    let answer: Value = serde_json::from_str(&text).with_context(|| format!("the answer of {function} cannot be read"))?;
    if !invoked["FunctionError"].is_null() {
        bail!("{function} fails: {}", answer["errorMessage"].as_str().unwrap_or("its log says why"));
    }
    Ok(answer)
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
