//! `tidehook doctor`: looks for problems of an installation without changing anything. The exit
//! code is 1 when it finds one.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::anyhow;
use clap::Args;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::client::Client;
use super::{Done, Failed, Global, context, print};
use crate::config::problem::Severity;
use crate::config::{Config, Handler};
use crate::decide::address::Author;
use crate::deliver::resolve;
use crate::engine::directory::Directory;
use crate::engine::parked::parked;
use crate::model::{Clock, SystemClock};
use crate::server;
use crate::store::{self, Store};

/// The time limit of a connection to a receiver.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// The time limit of one request to a running server.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// The difference between the clocks of this machine and the database that is tolerated.
const SKEW_MAX: Duration = Duration::from_secs(5);

/// Check for problems: configuration, database, clocks, receivers
///
/// The command changes nothing. Exit codes: 0 no problems, 1 problems found, 2 the configuration
/// has errors. With --remote, doctor checks that server instead of the database in the
/// configuration.
#[derive(Debug, Args)]
pub(super) struct Doctor {
    /// Check a deployed stack of functions instead, using the AWS CLI: schedule, queue, timeouts,
    /// connections, permissions
    #[arg(long, value_name = "STACK")]
    lambda: Option<String>,
}

/// The findings of a check-up, in the order in which they are printed.
#[derive(Default)]
pub(super) struct Report(Vec<Finding>);

struct Finding {
    what: String,
    verdict: Verdict,
}

enum Verdict {
    Well,
    /// Fine in some installations: it is printed, and does not count as an issue.
    Note(String),
    Wrong(String),
}

impl Report {
    pub(super) fn well(&mut self, what: impl Into<String>) {
        self.0.push(Finding { what: what.into(), verdict: Verdict::Well });
    }

    pub(super) fn note(&mut self, what: impl Into<String>, why: impl Into<String>) {
        self.0.push(Finding { what: what.into(), verdict: Verdict::Note(why.into()) });
    }

    pub(super) fn wrong(&mut self, what: impl Into<String>, why: impl Into<String>) {
        self.0.push(Finding { what: what.into(), verdict: Verdict::Wrong(why.into()) });
    }
}

pub(super) async fn run(doctor: &Doctor, global: &Global) -> Done {
    if let Some(stack) = &doctor.lambda {
        let mut report = Report::default();
        super::stack::look(stack, &mut report)?;
        return show(&report, global);
    }
    let loaded = context::load(global);
    print::problems(&loaded.problems);
    let mut report = Report::default();
    let Some(config) = loaded.config else {
        for problem in loaded.problems.sorted() {
            report.wrong(format!("configuration: {}", problem.key), &problem.message);
        }
        if global.json {
            report.json();
        }
        return Err(Failed::Config(Value::Null));
    };
    let warnings =
        loaded.problems.sorted().iter().filter(|p| p.severity == Severity::Warning).count();
    match warnings {
        0 => report.well(format!("configuration {}", loaded.path.display())),
        n => report.wrong(
            format!("configuration {}", loaded.path.display()),
            format!("{n} warning(s), see above"),
        ),
    }
    readable(&loaded.path, global.env.as_deref(), &mut report);
    security(&config, &mut report);
    match context::remote(global) {
        Some(url) => of_server(url, context::token(global), &mut report).await,
        None => database(&config, &mut report).await,
    }
    receivers(&config, &mut report).await;
    show(&report, global)
}

/// Notes a configuration or `.env` file that every user of this machine can read: it may hold
/// secrets.
fn readable(path: &std::path::Path, env: Option<&str>, report: &mut Report) {
    use std::os::unix::fs::PermissionsExt;
    let env = env.map(str::to_owned).or_else(|| context::variable("ENV"));
    let of_env = env.iter().flat_map(|env| {
        [
            std::path::PathBuf::from(format!(".env.{env}")),
            path.with_file_name(format!(".env.{env}")),
        ]
    });
    for path in std::iter::once(path.to_owned()).chain(of_env) {
        let mode = std::fs::metadata(&path).map(|about| about.permissions().mode());
        if mode.is_ok_and(|mode| mode & 0o004 != 0) {
            report.note(
                path.display().to_string(),
                "other users of this machine can read this file: run `chmod 600` on it if it \
                 contains secrets",
            );
        }
    }
}

fn security(config: &Config, report: &mut Report) {
    let mut token = |what: &str, set: bool, open: &str| match set {
        true => report.well(what),
        false => report.wrong(what, format!("not set: requests to {open} need no token; set one")),
    };
    token("api.auth_token", config.api.auth_token.is_some(), "/events and /api");
    token("api.metrics_auth_token", config.api.metrics_auth_token.is_some(), "/metrics");
    if config.server.policy.allow_private {
        let why =
            "deliveries may reach private and loopback addresses; use this for development only";
        match config.server.bind.is_loopback() {
            true => report.note("server.allow_private_urls", why),
            false => report.wrong("server.allow_private_urls", why),
        }
    }
    match config.server.trust.weakness() {
        None => {}
        Some(why) if config.server.bind.is_loopback() => report.note("server.trust_proxy", why),
        Some(why) => report.wrong("server.trust_proxy", why),
    }
    let cannot = config.cannot_run();
    if !cannot.is_empty() {
        report.wrong(
            "what this version runs",
            format!(
                "this version does not start with {}; remove it from the configuration",
                cannot.join(", ")
            ),
        );
    }
}

async fn database(config: &Config, report: &mut Report) {
    if server::is_embedded(config) && !context::has_database(config) {
        return report.wrong(
            "database",
            "it does not exist yet; create it with `tidehook start` or `tidehook migrate`",
        );
    }
    match server::open_store(config).await {
        Ok(store) => {
            of_store(&*store, config, report).await;
            store.close().await;
        }
        // A running server has it, so it is well: that server is asked how it is.
        Err(store::Error::InUse(_)) => {
            report.well("database: in use by a running server");
            let token = config.api.auth_token.as_ref().map(|token| token.expose().to_owned());
            of_server(context::local_url(config), token, report).await;
        }
        Err(error) => report.wrong("database", error.to_string()),
    }
}

async fn of_store(store: &dyn Store, config: &Config, report: &mut Report) {
    let now = match store.now().await {
        Ok(now) => now,
        Err(error) => return report.wrong("database", error.to_string()),
    };
    match store.about().await {
        Ok(about) => about.into_iter().for_each(|line| report.well(format!("database: {line}"))),
        Err(error) => report.wrong("database", error.to_string()),
    }
    let local = SystemClock.now();
    let skew = local.since(now).max(now.since(local));
    match skew > SKEW_MAX {
        true => report.wrong(
            "clocks",
            format!(
                "the clocks of this machine and the database differ by {} s; check NTP on both",
                skew.as_secs()
            ),
        ),
        false => report.well("clocks agree with the database"),
    }
    match store.weaknesses().await {
        Ok(weak) if weak.is_empty() => {
            report.well("database: durable settings, no long transactions")
        }
        Ok(weak) => weak.into_iter().for_each(|why| report.wrong("database", why)),
        Err(error) => report.wrong("database", error.to_string()),
    }
    match store.missing_migrations().await {
        Ok(0) => report.well("database schema"),
        Ok(lacks) => {
            return report.wrong(
                "database schema",
                format!("{lacks} migration(s) are missing; run `tidehook migrate`"),
            );
        }
        Err(error) => return report.wrong("database schema", error.to_string()),
    }
    match store.totals().await {
        Ok(totals) if totals.dead > 0 => report.wrong(
            "deliveries",
            format!("{} are dead; list them with `tidehook jobs list -s dead`", totals.dead),
        ),
        Ok(_) => report.well("deliveries: none are dead"),
        Err(error) => report.wrong("deliveries", error.to_string()),
    }
    let lanes = match store.lanes().await {
        Ok(lanes) => lanes,
        Err(error) => return report.wrong("lanes", error.to_string()),
    };
    for (lane, waits) in lanes.iter().filter_map(|lane| Some((lane, lane.waits(now)?))) {
        of_held(&lane.id.0, waits.as_str(), &waits.to_string(), report);
    }
    match parked(store, &Directory::of(config), &lanes).await {
        Ok(parked) if parked.is_empty() => report.well("deliveries: none are parked"),
        Ok(parked) => parked.iter().for_each(|lane| of_parked(lane.jobs, &lane.why, report)),
        Err(error) => report.wrong("deliveries", error.to_string()),
    }
}

/// Reports a lane that holds its deliveries back. A rate limit that is used up is normal and not
/// reported.
fn of_held(lane: &str, word: &str, why: &str, report: &mut Report) {
    match word {
        "tripped" | "probing" => report.wrong(format!("lane {lane}"), why),
        "paused" | "retry_after" | "ramp" => report.note(format!("lane {lane}"), why),
        _ => {}
    }
}

/// Reports the parked deliveries of a lane, with the two ways to resolve them.
fn of_parked(jobs: u64, why: &str, report: &mut Report) {
    report.wrong(
        "deliveries",
        format!(
            "open jobs: {jobs}, {why}. If the handler was renamed, list its old name in `was`; to \
             cancel the jobs, run `tidehook jobs cancel --handler`"
        ),
    );
}

async fn of_server(url: String, token: Option<String>, report: &mut Report) {
    let client = match Client::http(url.clone(), token) {
        Ok(client) => client,
        Err(error) => return report.wrong(format!("server {url}"), print::chain(&error)),
    };
    match ask(&client, "/health").await {
        Ok(health) if health["status"] == "ok" => report.well(format!("server {url}")),
        Ok(health) => report.wrong(
            format!("server {url}"),
            format!("/health reports {}", print::text(&health["status"])),
        ),
        Err(error) => return report.wrong(format!("server {url}"), print::chain(&error)),
    }
    match ask(&client, "/api/lanes").await {
        Ok(answer) => {
            let lanes = answer["lanes"].as_array().map_or(&[][..], Vec::as_slice);
            let parked = || {
                lanes
                    .iter()
                    .filter_map(|lane| Some((lane["parked_jobs"].as_u64()?, lane["why"].as_str()?)))
            };
            parked().for_each(|(jobs, why)| of_parked(jobs, why, report));
            for lane in lanes.iter().filter(|lane| lane["parked_jobs"].is_null()) {
                let text = |key: &str| lane[key].as_str().unwrap_or("");
                of_held(text("id"), text("waits"), text("why"), report);
            }
            if parked().next().is_none() {
                report.well("deliveries: none are parked");
            }
        }
        Err(error) => report.note(
            format!("server {url}"),
            format!("its lanes cannot be read: {}", print::chain(&error)),
        ),
    }
}

async fn ask(client: &Client, path: &str) -> anyhow::Result<Value> {
    let answer = tokio::time::timeout(ANSWER_MAX, client.get(path)).await;
    answer.unwrap_or_else(|_| Err(anyhow!("no response within {} s", ANSWER_MAX.as_secs())))
}

/// Connects to every receiver and hangs up: no request is sent.
async fn receivers(config: &Config, report: &mut Report) {
    let resolver = match resolve::system() {
        Ok(resolver) => resolver,
        Err(why) => return report.wrong("DNS resolver", why),
    };
    let mut seen = BTreeSet::new();
    for handler in &config.handlers {
        let host = handler.url.host_str().unwrap_or("").trim_matches(['[', ']']).to_owned();
        let port = handler.url.port_or_known_default().unwrap_or(0);
        if !seen.insert((host.clone(), port)) {
            continue;
        }
        let what = format!("receiver {host}:{port} ({})", handler.name);
        match reach(handler, &host, port, &resolver).await {
            Ok(()) => report.well(what),
            Err(why) => report.wrong(what, why),
        }
    }
}

async fn reach(
    handler: &Handler,
    host: &str,
    port: u16,
    resolver: &hickory_resolver::TokioResolver,
) -> Result<(), String> {
    let addresses: Vec<IpAddr> = match host.parse::<IpAddr>() {
        Ok(address) => vec![address],
        Err(_) => resolver
            .lookup_ip(host)
            .await
            .map_err(|e| format!("the DNS lookup failed: {e}"))?
            .iter()
            .collect(),
    };
    for address in &addresses {
        handler.policy.judge(Author::Operator, host, *address)?;
    }
    let mut why = "the name has no IP address".to_owned();
    for address in addresses {
        match tokio::time::timeout(CONNECT_MAX, TcpStream::connect(SocketAddr::new(address, port)))
            .await
        {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => why = format!("the connection failed: {error}"),
            Err(_) => why = format!("the connection timed out after {} s", CONNECT_MAX.as_secs()),
        }
    }
    Err(why)
}

impl Report {
    fn issues(&self) -> usize {
        self.0.iter().filter(|f| matches!(f.verdict, Verdict::Wrong(_))).count()
    }

    fn json(&self) {
        let finding = |f: &Finding| {
            let (ok, why) = match &f.verdict {
                Verdict::Well => (true, None),
                Verdict::Note(why) => (true, Some(why)),
                Verdict::Wrong(why) => (false, Some(why)),
            };
            json!({ "what": f.what, "ok": ok, "why": why })
        };
        print::json(&json!({
            "issues": self.issues(),
            "findings": self.0.iter().map(finding).collect::<Vec<_>>(),
        }));
    }
}

fn show(report: &Report, global: &Global) -> Done {
    let issues = report.issues();
    if global.json {
        report.json();
    } else {
        for Finding { what, verdict } in &report.0 {
            let what = print::one_line(what);
            print::line(&match verdict {
                Verdict::Well => format!("  ok     {what}"),
                Verdict::Note(why) => format!("  note   {what}: {}", print::one_line(why)),
                Verdict::Wrong(why) => format!("  issue  {what}: {}", print::one_line(why)),
            });
        }
        let summary = if issues == 0 {
            "All checks passed.".to_owned()
        } else {
            format!("{issues} issue(s) found.")
        };
        print::line(&summary);
    }
    match issues {
        0 => Ok(()),
        _ => Err(anyhow!("doctor found {issues} issue(s)").into()),
    }
}
