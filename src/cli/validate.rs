//! `tidehook validate`: reports every problem of a configuration at once.

use serde_json::{Value, json};

use super::{Done, Failed, Global, context, print};
use crate::config::problem::Severity;
use crate::config::{Config, Loaded, Problems, SourceKind};

pub(super) fn run(global: &Global) -> Done {
    let loaded = context::load(global);
    if global.json {
        print::json(&report(&loaded));
    } else {
        print::problems(&loaded.problems);
        match &loaded.config {
            Some(config) => summary(&loaded, config),
            None => {
                let errors = count(&loaded, Severity::Error);
                print::error(&format!(
                    "{} has {errors} error{}",
                    loaded.path.display(),
                    if errors == 1 { "" } else { "s" }
                ));
            }
        }
    }
    let problems = listed(&loaded.problems);
    loaded.config.map(|_| ()).ok_or(Failed::Config(problems))
}

fn count(loaded: &Loaded, severity: Severity) -> usize {
    loaded.problems.sorted().iter().filter(|p| p.severity == severity).count()
}

/// The problems of a configuration as a JSON list, in the order of the file, for `--json`.
pub(super) fn listed(problems: &Problems) -> Value {
    let problem = |p: &crate::config::Problem| {
        let severity = if p.severity == Severity::Error { "error" } else { "warning" };
        json!({
            "severity": severity,
            "code": p.code,
            "place": problems.place_of(p),
            "key": p.key,
            "message": p.message,
            "help": p.help,
        })
    };
    problems.sorted().iter().map(problem).collect()
}

fn report(loaded: &Loaded) -> Value {
    json!({
        "file": loaded.path.display().to_string(), "valid": loaded.config.is_some(),
        "problems": listed(&loaded.problems),
        "cannot_run": loaded.config.as_ref().map_or(Vec::new(), Config::cannot_run),
    })
}

fn summary(loaded: &Loaded, config: &Config) {
    let counted = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let parts = [
        counted(config.sources.len(), "source"),
        counted(config.handlers.len(), "handler"),
        counted(config.workflows.len(), "workflow"),
        counted(config.queues.len(), "queue"),
    ];
    print::line(&format!("{} is valid: {}", loaded.path.display(), parts.join(", ")));
    for source in &config.sources {
        let kind = match source.kind {
            SourceKind::Webhook => "webhook",
            SourceKind::Event => "event",
            SourceKind::Sns => "sns",
            SourceKind::Cron => "cron",
            SourceKind::Outbound => "outbound",
        };
        let verified = source.verify.as_ref().map_or(String::new(), |v| format!(", verified: {v}"));
        print::line(&format!("  source    {}: {kind}{verified}", source.name));
    }
    for handler in &config.handlers {
        let events: Vec<&str> =
            handler.events.iter().map(crate::decide::pattern::Pattern::text).collect();
        let events = if events.is_empty() { "*".to_owned() } else { events.join(", ") };
        let filter = handler.filter.as_ref().map_or(String::new(), |f| format!(" if {}", f.text()));
        print::line(&format!(
            "  handler   {}: {} {events}{filter} → {} {}",
            handler.name, handler.source, handler.method, handler.shown_url
        ));
    }
    for workflow in &config.workflows {
        print::line(&format!(
            "  workflow  {}: {}",
            workflow.name,
            counted(workflow.steps(), "step")
        ));
    }
    for queue in &config.queues {
        print::line(&format!("  queue     {}: {}", queue.name, queue.source));
    }
    let cannot = config.cannot_run();
    if !cannot.is_empty() {
        print::note(&format!(
            "note: `tidehook start` refuses this file, because this version cannot run: {}",
            cannot.join(", ")
        ));
    }
}
