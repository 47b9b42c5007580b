//! Notices: what happens to deliveries, runs, lanes and sources, as events of the reserved source
//! `__tidehook`. Alerts, handlers and workflows may listen to them.
//!
//! A notice of an outcome is stored in the commit of that outcome. Nothing is stored that nobody
//! listens to, and what becomes of a notice is no news itself, so that an alert about an alert
//! cannot exist.

use serde_json::{Value, json};

use super::{Engine, Planned};
use crate::decide::alert::SOURCE;
use crate::decide::plan::{NewEvent, plan};
use crate::model::{Body, Event, EventId, Inbound, Job, JobId, Run, Target, Timestamp};

/// What the client of outgoing requests knows the channel of alerts by.
pub const DESTINATION: &str = "alerts to operators";
/// How many alerts of one kind and subject are sent a minute. The next one says how many were left
/// out.
pub(super) const ALERTS_A_MINUTE: u32 = 5;

/// What is limited together: the kind of alert, and the handler, workflow or source it is about.
pub(super) type Subject = (String, String);

/// Something that happened.
#[derive(Debug, Clone)]
pub(super) struct Notice {
    kind: &'static str,
    subject: String,
    /// Makes repeats one event, where several processes see the same.
    key: Option<String>,
    body: Value,
}

impl Notice {
    /// A delivery, or a message of a queue, is dead.
    pub(super) fn dead(job: &Job, event: EventId, attempts: u32, error: &str) -> Self {
        let is_message = matches!(job.target, Target::Queue(_));
        let (id, name) = (job.id, job.target.name());
        Self {
            kind: if is_message { "__message.dead" } else { "__delivery.dead" },
            subject: name.to_owned(),
            key: None,
            body: json!({
                "alert": "dlq", "job_id": id.to_string(), "handler": name, "attempts": attempts,
                "event_id": event.to_string(), "error": error,
                "message": format!(
                    "Job {id} moved to DLQ after {attempts} attempts (handler: {name})"
                ),
            }),
        }
    }

    /// A run has failed, whatever else becomes of it.
    pub(super) fn run_failed(run: &Run) -> Self {
        let (id, workflow) = (run.id, &run.workflow);
        Self {
            kind: "__run.failed",
            subject: workflow.clone(),
            key: Some(id.to_string()),
            body: json!({
                "alert": "workflow_failed", "workflow": workflow, "run_id": id.to_string(),
                "event_id": run.event.to_string(),
                "error": run.error.as_ref().map(|error| error.message.clone()),
                "message": format!("Workflow '{workflow}' failed (run: {id})"),
            }),
        }
    }

    /// A step of a run could not be undone: the run is paused until somebody acts.
    pub(super) fn compensation_failed(run: &Run) -> Self {
        let (id, workflow) = (run.id, &run.workflow);
        Self {
            kind: "__compensation.failed",
            subject: workflow.clone(),
            key: None,
            body: json!({
                "alert": "compensation_failed", "workflow": workflow, "run_id": id.to_string(),
                "event_id": run.event.to_string(),
                "error": run.error.as_ref().map(|error| error.message.clone()),
                "message": format!(
                    "Rollback of workflow '{workflow}' failed, the run is paused (run: {id})"
                ),
            }),
        }
    }

    /// The circuit breaker of a handler has opened.
    pub(super) fn tripped(handler: &str, until: Timestamp) -> Self {
        Self {
            kind: "__lane.tripped",
            subject: handler.to_owned(),
            key: Some(format!("{handler}/{}", until.0)),
            body: json!({
                "alert": "circuit_opened", "handler": handler, "open_until": until.rfc3339(),
                "message": format!("Circuit breaker opened for handler: {handler}"),
            }),
        }
    }

    /// A request had no valid signature, and so many before it that no notice was given of.
    pub(super) fn refused(source: &str, reason: &str, left_out: u64) -> Self {
        Self {
            kind: "__source.refused",
            subject: source.to_owned(),
            key: None,
            body: json!({
                "alert": "verification_failure", "source": source, "reason": reason,
                "suppressed": (left_out > 0).then_some(left_out),
                "message": format!("Signature verification failed for source: {source}"),
            }),
        }
    }

    /// Deliveries have ended because their events had become too old.
    pub(super) fn expired(count: usize) -> Self {
        Self {
            kind: "__events.expired",
            subject: String::new(),
            key: None,
            body: json!({
                "alert": "event_ttl_expired", "count": count,
                "message": format!("{count} events expired by TTL"),
            }),
        }
    }

    /// The database does not answer.
    pub(super) fn database_unhealthy() -> Self {
        Self {
            kind: "__database.unhealthy",
            subject: String::new(),
            key: None,
            body: json!({
                "alert": "db_unhealthy", "message": "Database health check failed",
            }),
        }
    }

    /// An operator tries the channel out.
    pub(super) fn test() -> Self {
        Self {
            kind: "__test",
            subject: String::new(),
            key: None,
            body: json!({
                "alert": "custom", "message": "This is a test of the alerts of tidehook.",
            }),
        }
    }
}

impl Engine {
    /// The event of a notice with the work that it causes; `None` if nobody listens to it, or if
    /// only an alert would follow that the limit of its kind leaves out.
    pub(super) fn notice(&self, notice: Notice) -> Option<NewEvent> {
        if !self.0.has_listeners {
            return None;
        }
        let Notice { kind, subject, key, mut body } = notice;
        let alert = body["alert"].as_str().unwrap_or("").to_owned();
        let dedupe_key = key;
        let inbound = |body: &Value| Inbound {
            source: SOURCE.to_owned(),
            kind: kind.to_owned(),
            type_aliases: Vec::new(),
            headers: vec![("content-type".to_owned(), "application/json".to_owned())],
            body: Body::new(body.to_string().into_bytes()),
            dedupe_key: dedupe_key.clone(),
            idempotency_key: None,
        };
        let mut made = inbound(&body);
        let mut plan = plan(self.routes(), &made, &*self.0.parts.ids);
        let is_alert = |target: &Target| matches!(target, Target::Alert(_));
        if plan.jobs.iter().any(|job| is_alert(&job.target)) {
            match self.0.alerts.should_log(&(alert, subject)) {
                Some(0) => {}
                Some(left_out) => {
                    body["suppressed"] = json!(left_out);
                    made = inbound(&body);
                }
                None => plan.jobs.retain(|job| !is_alert(&job.target)),
            }
        }
        plan.misses.clear();
        (!plan.jobs.is_empty()).then(|| self.new_event(Planned { inbound: made, plan }))
    }

    /// The notice of an outcome that made a job dead; none for what a notice has caused.
    pub(super) fn notice_of_dead(
        &self,
        job: &Job,
        event: &Event,
        attempts: u32,
        error: &str,
    ) -> Option<NewEvent> {
        let is_news = event.source != SOURCE && matches!(job.target, Target::Handler(_));
        is_news.then(|| self.notice(Notice::dead(job, event.id, attempts, error))).flatten()
    }

    /// Stores a notice by itself. It is lost if the store does not take it: what it reports has
    /// happened, and is found by other means.
    pub(super) async fn tell(&self, notice: Notice) {
        let Some(event) = self.notice(notice) else { return };
        match self.store().accept(&[event]).await {
            Ok(_) => self.wake().await,
            Err(error) => tracing::debug!(%error, "A notice could not be stored."),
        }
    }

    /// Sends a notice past the database, once: that it is down cannot be stored in it.
    pub(super) async fn tell_at_once(&self, notice: Notice) {
        let Some(new) = self.notice(notice) else { return };
        let now = self.clock().now();
        let event = Event {
            id: new.id,
            source: new.inbound.source,
            kind: new.inbound.kind,
            headers: new.inbound.headers,
            body: new.inbound.body,
            unique_key: None,
            created_at: now,
        };
        let target = Target::Alert(crate::config::alert::NAME.to_owned());
        let job = Job::leased(JobId::next(&*self.0.parts.ids), event.id, target, now, now);
        if let Some(request) = super::targets::alert::request(self, &job, &event) {
            let outcome = self.send(request, None).await;
            tracing::debug!(?outcome, "An alert about the database was sent.");
        }
    }

    /// Tells operators that the database does not answer. The caller does so once per outage.
    pub async fn tell_database_unhealthy(&self) {
        self.tell_at_once(Notice::database_unhealthy()).await;
    }

    /// Sends a test over the channel of alerts. Answers the event; `None` when the configuration
    /// has no channel.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn test_alerts(&self) -> crate::store::Result<Option<EventId>> {
        let Some(event) = self.notice(Notice::test()) else { return Ok(None) };
        let id = event.id;
        for answer in self.store().accept(&[event]).await? {
            answer?;
        }
        self.wake().await;
        Ok(Some(id))
    }
}
