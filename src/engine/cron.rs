//! Cron sources: each slot is a job that stores its tick and the job of the next slot in one
//! commit.
//!
//! However many processes run, there is one chain of jobs per source. A tick carries its slot as
//! its key, so a repeat is a duplicate that stores nothing, not even a successor: two chains, left
//! by two processes that started at once, become one at the next slot. Slots are computed from the
//! database's clock, so a process whose own clock is wrong fires none twice and none early.

use serde_json::json;

use super::{Engine, NotAccepted, Planned};
use crate::config::source::Cron;
use crate::decide::cron::{Due, jittered};
use crate::decide::plan::Plan;
use crate::model::job::NewJob;
use crate::model::{Body, Inbound, Job, JobId, LaneId, Outcome, SlotRef, Target, Timestamp};
use crate::store::Result;

/// The type of the event that a slot fires.
const TICK: &str = "cron.tick";
/// The type of the event that begins a chain. No handler gets it.
const ARMED: &str = "cron.armed";
/// The type of the event that says which slots were left out. No handler gets it.
const MISSED: &str = "cron.missed";
/// How many open jobs of a source are looked at. There is one, and two for a moment.
const CHAINS_MAX: u32 = 100;

impl Engine {
    /// Fires a slot: accepts its tick with everything that it causes, and the job of the next slot.
    pub(super) async fn fire(&self, slot: &SlotRef, now: Timestamp) -> Outcome {
        let Some(cron) = self.directory().cron(&slot.source) else { return Outcome::Released };
        if cron.schedule.fingerprint() != slot.schedule {
            return Outcome::Parked(format!(
                "this slot belongs to another schedule of `{}`: another process has an older or \
                 newer configuration",
                slot.source
            ));
        }
        // A tick that its jitter has put off is not late.
        let put_off = jittered(&slot.source, slot.at, cron.jitter).since(slot.at);
        let Due { fires, next } = cron.schedule.due(slot.at, now.minus(put_off), cron.catch_up);
        let planned = match fires {
            Some(at) => {
                let tick = json!({ "source": slot.source, "fired_at": at.rfc3339() });
                self.plan(event(&slot.source, TICK, &tick, at))
            }
            None => {
                tracing::warn!(
                    source = slot.source, slot = %slot.at,
                    "Slots of a schedule have passed while nothing ran; they are left out.",
                );
                let missed = json!({
                    "source": slot.source,
                    "first_slot": slot.at.rfc3339(),
                    "noticed_at": now.rfc3339(),
                });
                Planned {
                    inbound: event(&slot.source, MISSED, &missed, slot.at),
                    plan: Plan::default(),
                }
            }
        };
        let planned = match next {
            Some(next) => self.with_slot(planned, &slot.source, cron, next),
            None => planned,
        };
        match self.accept_planned(planned).await {
            Ok(_) => Outcome::NothingToSend,
            Err(why @ (NotAccepted::Conflict(_) | NotAccepted::Unstorable(_))) => {
                Outcome::Parked(why.to_string())
            }
            Err(why) => Outcome::Postponed(why.to_string()),
        }
    }

    fn with_slot(&self, planned: Planned, source: &str, cron: &Cron, at: Timestamp) -> Planned {
        let Planned { inbound, mut plan } = planned;
        let slot = SlotRef {
            at,
            schedule: cron.schedule.fingerprint().to_owned(),
            source: source.to_owned(),
        };
        plan.jobs.push(NewJob {
            id: JobId::next(&*self.0.parts.ids),
            target: Target::Slot(slot),
            key: None,
            due: Some(jittered(source, at, cron.jitter)),
            start: false,
        });
        Planned { inbound, plan }
    }

    /// Makes sure that every cron source has a job for its next slot. At the start of a process,
    /// jobs of another schedule of the same source are cancelled: the configuration that started
    /// last counts. Later, they are cancelled only beside a job of the present one.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn arm_crons(&self, is_start: bool) -> Result<()> {
        let sources = self.config().sources.iter();
        for (source, cron) in sources.filter_map(|s| Some((&s.name, s.cron.as_ref()?))) {
            let open = self.store().peek(&LaneId::cron(source), false, CHAINS_MAX).await?;
            let (own, foreign): (Vec<Job>, Vec<Job>) = open.into_iter().partition(|job| {
                matches!(&job.target, Target::Slot(slot)
                    if slot.schedule == cron.schedule.fingerprint())
            });
            if is_start || !own.is_empty() {
                for job in &foreign {
                    self.store().cancel(job.id).await?;
                }
            }
            if own.is_empty() && (is_start || foreign.is_empty()) {
                self.arm(source, cron).await?;
            }
        }
        Ok(())
    }

    /// Begins the chain of a source with its next slot.
    async fn arm(&self, source: &str, cron: &Cron) -> Result<()> {
        let now = self.store().now().await?;
        let Some(next) = cron.schedule.after(now) else { return Ok(()) };
        let armed = json!({ "source": source, "next": next.rfc3339() });
        let key = format!("{}/{}", cron.schedule.fingerprint(), next.0);
        let inbound = Inbound { dedupe_key: Some(key), ..event(source, ARMED, &armed, next) };
        let planned = Planned { inbound, plan: Plan::default() };
        let planned = self.with_slot(planned, source, cron, next);
        self.store().accept(&[self.new_event(planned)]).await?.into_iter().try_for_each(|answer| {
            answer.map(|_| tracing::info!(source, next = %next, "A cron source is armed."))
        })
    }
}

fn event(source: &str, kind: &str, body: &serde_json::Value, slot: Timestamp) -> Inbound {
    Inbound {
        source: source.to_owned(),
        kind: kind.to_owned(),
        type_aliases: Vec::new(),
        headers: vec![("content-type".to_owned(), "application/json".to_owned())],
        body: Body::new(body.to_string().into_bytes()),
        dedupe_key: Some(slot.rfc3339()),
        idempotency_key: None,
    }
}
