//! A deployed stack of functions, checked and migrated through the AWS CLI: `tidehook doctor
//! --lambda` and `tidehook migrate --lambda`.

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
            let found =
                outputs.as_array().into_iter().flatten().find(|output| output["OutputKey"] == name);
            let value = found.and_then(|output| output["OutputValue"].as_str()).map(str::to_owned);
            value.with_context(|| {
                format!(
                    "the stack has no output {name}; deploy it from template.yaml of this version"
                )
            })
        };
        Ok(Self {
            ticker: output("TickerName")?,
            worker: output("WorkerName")?,
            ingress: output("IngressName")?,
        })
    }
}

/// Checks a stack that was deployed from `template.yaml`, and adds the findings to a report.
///
/// # Errors
/// The AWS CLI cannot be run, or it refuses a question.
pub(super) fn look(stack: &str, report: &mut Report) -> anyhow::Result<()> {
    let names = Stack::find(stack)?;
    let ticker = aws(&["lambda", "get-function-configuration", "--function-name", &names.ticker])?;
    let told =
        |name: &str| ticker["Environment"]["Variables"][name].as_str().unwrap_or("-").to_owned();
    schedule(stack, &told("TIDEHOOK_TICK_RATE"), report)?;
    mapping(&names.worker, report)?;
    times(&names.worker, &told("TIDEHOOK_WORKER_TIMEOUT_SECONDS"), report)?;
    for name in [&names.ingress, &names.ticker, &names.worker] {
        let reserved = aws(&["lambda", "get-function-concurrency", "--function-name", name])?;
        if reserved["ReservedConcurrentExecutions"] == 0 {
            report.wrong(
                format!("function {name}"),
                "its reserved concurrency is 0, so it never runs; raise it",
            );
        }
    }
    if let Err(why) = from_inside(&names.ticker, report) {
        report.wrong("ticker", super::print::chain(&why));
    }
    Ok(())
}

/// Invokes a stack's ticker to migrate the database.
///
/// # Errors
/// The ticker cannot be invoked, or it fails. The message is the function's own, also when its
/// configuration is wrong.
pub(super) fn migrate(stack: &str) -> anyhow::Result<()> {
    invoke(&Stack::find(stack)?.ticker, &json!({ "tidehook": "migrate" })).map(drop)
}

fn schedule(stack: &str, told: &str, report: &mut Report) -> anyhow::Result<()> {
    let schedule = aws(&["scheduler", "get-schedule", "--name", &format!("{stack}-tick")])?;
    let (state, rate) = (
        schedule["State"].as_str().unwrap_or("-"),
        schedule["ScheduleExpression"].as_str().unwrap_or("-"),
    );
    let what = format!("schedule: {rate}");
    if state != "ENABLED" {
        report.wrong(
            what,
            format!(
                "the schedule is {state}: retries, timers and lost hints are \
            not picked up; enable it"
            ),
        );
    } else if !(rate.starts_with("rate(") && rate.ends_with(')')) {
        report.wrong(
            what,
            "this is not a rate; on a command line, quote the value twice: \
            TickRate='\"rate(10 minutes)\"'",
        );
    } else if rate != told {
        report.wrong(
            what,
            format!(
                "the functions are configured for {told} and look ahead by that \
            time; deploy the stack again with the rate you want"
            ),
        );
    } else {
        report.well(what);
    }
    Ok(())
}

fn mapping(worker: &str, report: &mut Report) -> anyhow::Result<()> {
    let all = aws(&["lambda", "list-event-source-mappings", "--function-name", worker])?;
    let Some(mapping) = all["EventSourceMappings"].as_array().and_then(|all| all.first()) else {
        report.wrong(
            "worker: queue",
            "the worker has no event source mapping; deploy the stack again",
        );
        return Ok(());
    };
    match mapping["State"].as_str().unwrap_or("-") {
        "Enabled" => report.well("worker: queue"),
        state => {
            report.wrong("worker: queue", format!("the event source mapping is {state}; enable it"))
        }
    }
    match mapping["FunctionResponseTypes"].to_string().contains("ReportBatchItemFailures") {
        true => report.well("worker: reports failed messages one by one"),
        false => report.wrong(
            "worker: reports failed messages one by one",
            "add ReportBatchItemFailures to FunctionResponseTypes: without it, one failure repeats \
             the whole batch",
        ),
    }
    match mapping["ScalingConfig"]["MaximumConcurrency"].as_u64() {
        Some(most) => report.well(format!("worker: at most {most} concurrent executions")),
        None => report.wrong(
            "worker: unlimited concurrent executions",
            "set ScalingConfig.MaximumConcurrency: the number of database connections is limited",
        ),
    }
    Ok(())
}

/// Compares the timeout of the worker with the one that the functions are configured with: other
/// findings are computed from the latter.
fn times(worker: &str, told: &str, report: &mut Report) -> anyhow::Result<()> {
    let about = aws(&["lambda", "get-function-configuration", "--function-name", worker])?;
    let timeout = about["Timeout"].to_string();
    match timeout == told {
        true => report.well(format!("worker: times out after {timeout} s")),
        false => report.wrong(
            format!("worker: times out after {timeout} s"),
            format!(
                "the functions are configured for {told} s; deploy the stack again with the \
                WorkerTimeoutSeconds you want"
            ),
        ),
    }
    Ok(())
}

/// Adds the findings of the ticker, which sees the database and the queue from where the functions
/// run.
fn from_inside(ticker: &str, report: &mut Report) -> anyhow::Result<()> {
    let answer = invoke(ticker, &json!({ "tidehook": "doctor" }))?;
    for check in answer["checks"]
        .as_array()
        .context("the deployed ticker does not support `doctor`; deploy this version of tidehook")?
    {
        let what = check["what"]
            .as_str()
            .context("the response of the ticker has a check without a name")?;
        match (check["why"].as_str(), check["note"].as_str()) {
            (Some(why), _) => report.wrong(what, why),
            (None, Some(note)) => report.note(what, note),
            (None, None) => report.well(what),
        }
    }
    Ok(())
}

/// Invokes a function and returns its answer.
fn invoke(function: &str, payload: &Value) -> anyhow::Result<Value> {
    let dir = tempfile::tempdir()?;
    let (asked, answer) = (dir.path().join("asked.json"), dir.path().join("answer.json"));
    std::fs::write(&asked, payload.to_string())?;
    let payload = format!("fileb://{}", asked.display());
    let invoked = aws(&[
        "lambda",
        "invoke",
        "--function-name",
        function,
        "--payload",
        &payload,
        &answer.display().to_string(),
    ])?;
    let text = std::fs::read_to_string(&answer)?;
    let answer: Value = serde_json::from_str(&text)
        .with_context(|| format!("the response of the function {function} cannot be read"))?;
    if !invoked["FunctionError"].is_null() {
        bail!(
            "the function {function} failed: {}",
            answer["errorMessage"].as_str().unwrap_or("see its log")
        );
    }
    Ok(answer)
}

/// Runs the AWS CLI, which brings the operator's credentials, region and endpoints, and reads its
/// output as JSON.
fn aws(arguments: &[&str]) -> anyhow::Result<Value> {
    let ran = Command::new("aws").args(arguments).args(["--output", "json"]).output();
    let ran =
        ran.map_err(|why| anyhow!("the AWS CLI cannot be started ({why}); install it and log in"))?;
    if !ran.status.success() {
        bail!(
            "aws {} {}: {}",
            arguments[0],
            arguments[1],
            String::from_utf8_lossy(&ran.stderr).trim()
        );
    }
    let text = String::from_utf8_lossy(&ran.stdout);
    if text.trim().is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_str(&text)?) }
}
