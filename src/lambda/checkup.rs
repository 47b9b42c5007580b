//! Finds problems of an installation from inside its functions: with their permissions, from where
//! they run.

use std::time::Duration;

use aws_sdk_sqs::types::QueueAttributeName;
use serde_json::{Value, json};

use super::{Function, time};
use crate::environment::variable;
use crate::model::{Clock, SystemClock};
use crate::wake::sqs::Hint;
use crate::wake::sqs::queue::sentence;

/// The difference between the clocks of the function and the database that is tolerated.
const SKEW_MAX: Duration = Duration::from_secs(2);
/// The queue's visibility timeout must be at least this many times the worker's timeout, as AWS
/// recommends.
const VISIBILITY_TIMES: u64 = 6;

/// The findings as JSON: `why` says what is wrong, `note` is worth knowing and no fault, and a
/// finding with neither is fine.
struct Findings(Vec<Value>);

impl Findings {
    fn add(&mut self, what: impl Into<String>, why: Option<String>) {
        self.0.push(json!({ "what": what.into(), "why": why }));
    }

    fn note(&mut self, what: impl Into<String>, why: impl Into<String>) {
        self.0.push(json!({ "what": what.into(), "note": why.into() }));
    }
}

/// Checks the database, the clocks, the queue, and settings that must fit each other. `tidehook
/// doctor --lambda` shows the result.
pub(super) async fn look(function: &Function) -> Value {
    let mut findings = Findings(Vec::new());
    of_database(function, &mut findings).await;
    let worker = seconds("WORKER_TIMEOUT_SECONDS");
    of_queue(function, worker, &mut findings).await;
    if let Some(worker) = worker {
        let call = time::longest_call(function.engine.config());
        let needed = call + time::AROUND_CALL;
        let why = (Duration::from_secs(worker) < needed).then(|| {
            format!(
                "a call may take {} s; set the timeout of the worker to at least {} s",
                call.as_secs(),
                needed.as_secs()
            )
        });
        findings.add(format!("worker: {worker} s"), why);
    }
    of_connections(function, &mut findings).await;
    let open = function.engine.config().api.auth_token.is_none();
    findings.add(
        "api.auth_token",
        open.then(|| {
            "not set: everyone who can reach /events may send events, and /api refuses \
            every request; set it"
                .to_owned()
        }),
    );
    json!({ "checks": findings.0 })
}

/// Compares the connections that all functions may hold at once with what the database allows. Idle
/// environments keep theirs.
async fn of_connections(function: &Function, findings: &mut Findings) {
    let about = match function.engine.store().about().await {
        Ok(about) => about,
        Err(error) => return findings.add("connections", Some(error.to_string())),
    };
    let most = about.iter().find_map(|line| {
        line.strip_prefix("at most ")?.strip_suffix(" connections")?.parse::<u64>().ok()
    });
    let (Some(most), Some(workers)) = (most, seconds("WORKER_CONCURRENCY")) else { return };
    let what = format!("connections: the database has {most}");
    if function.engine.config().database.pooler.is_there() {
        return findings.add(format!("{what}, behind a pooler"), None);
    }
    let taken = workers * u64::from(super::Role::Worker.connections(function.engine.config())) + 1;
    match seconds("INGRESS_CONCURRENCY") {
        Some(ingress) if taken + ingress < most => findings.add(what, None),
        Some(ingress) => findings.add(
            what,
            Some(format!(
                "the functions may open {} connections; lower the concurrency, or use a pooler",
                taken + ingress
            )),
        ),
        None if taken >= most => findings.add(
            what,
            Some(format!(
                "workers and the ticker alone may \
            open {taken} connections; lower the concurrency, or use a pooler"
            )),
        ),
        None => findings.note(
            what,
            format!(
                "workers and the ticker may open {taken} connections, and only the concurrency \
                of the account limits ingress: set IngressReservedConcurrency, or use a pooler"
            ),
        ),
    }
}

async fn of_database(function: &Function, findings: &mut Findings) {
    let (store, began) = (function.engine.store(), SystemClock.now());
    let now = match store.now().await {
        Ok(now) => now,
        Err(error) => return findings.add("database", Some(error.to_string())),
    };
    if let Some(url) = function
        .engine
        .config()
        .database
        .url
        .as_ref()
        .and_then(|url| url::Url::parse(url.expose()).ok())
    {
        let (host, port) = (url.host_str().unwrap_or("-"), url.port().unwrap_or(5432));
        findings.add(
            format!("database: {} at {host}:{port}", url.path().trim_start_matches('/')),
            None,
        );
    }
    findings.add(
        format!("database: responds in {} ms", SystemClock.now().since(began).as_millis()),
        None,
    );
    let skew = SystemClock.now().since(now).max(now.since(began));
    let why = (skew > SKEW_MAX).then(|| {
        format!("the clocks of the function and the database differ by {} ms", skew.as_millis())
    });
    findings.add("clocks", why);
    let why = match store.missing_migrations().await {
        Ok(0) => None,
        Ok(lacks) => {
            Some(format!("{lacks} migration(s) are missing; run `tidehook migrate --lambda STACK`"))
        }
        Err(error) => Some(error.to_string()),
    };
    let is_up_to_date = why.is_none();
    findings.add("database schema", why);
    if !is_up_to_date {
        return;
    }
    match store.weaknesses().await {
        Ok(weak) => weak.into_iter().for_each(|why| findings.note("database settings", why)),
        Err(error) => findings.add("database settings", Some(error.to_string())),
    }
    let parked = async { function.engine.parked(&store.lanes().await?).await };
    match parked.await {
        Ok(parked) => parked.iter().for_each(|lane| {
            findings.add(
                format!("{} open jobs of lane {}", lane.jobs, lane.lane),
                Some(lane.why.clone()),
            )
        }),
        Err(error) => findings.add("parked deliveries", Some(error.to_string())),
    }
}

async fn of_queue(function: &Function, worker: Option<u64>, findings: &mut Findings) {
    let Some(queue) = &function.queue else {
        return findings.add("queue: none (ticks run the due work)", None);
    };
    let (client, url) = (queue.client(), queue.url());
    let names = [QueueAttributeName::VisibilityTimeout, QueueAttributeName::RedrivePolicy];
    match client
        .get_queue_attributes()
        .queue_url(url)
        .set_attribute_names(Some(names.to_vec()))
        .send()
        .await
    {
        Ok(answer) => {
            let attribute =
                |name: &QueueAttributeName| answer.attributes().and_then(|all| all.get(name));
            let visibility =
                attribute(&names[0]).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
            let short = worker.filter(|worker| visibility < VISIBILITY_TIMES * worker);
            let why = short.map(|worker| {
                format!(
                    "raise it to {} s, six times the timeout of the worker; otherwise a message \
                     may arrive again while it is still processed",
                    VISIBILITY_TIMES * worker
                )
            });
            findings.add(format!("queue: visibility timeout {visibility} s"), why);
            let none = attribute(&names[1]).is_none();
            findings.add(
                "queue: dead letters",
                none.then(|| {
                    "no dead-letter queue is configured for \
                    messages that fail repeatedly; add a redrive policy"
                        .to_owned()
                }),
            );
        }
        Err(error) => findings.add("queue: attributes", Some(sentence(&error))),
    }
    let sent =
        client.send_message().queue_url(url).message_body(Hint::default().write()).send().await;
    findings.add("queue: a hint can be sent", sent.err().map(|error| sentence(&error)));
}

fn seconds(name: &str) -> Option<u64> {
    variable(name)?.parse().ok()
}
