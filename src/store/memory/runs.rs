//! The verbs for runs, over maps.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::super::error::{Error, Result};
use super::super::{Definition, Each, Page, RunFilter, Runs};
use super::{Memory, Row, Tables, paged};
use crate::model::history::HistoryEntry;
use crate::model::run::{Change, Due, Gate, GateChange, Token};
use crate::model::{Job, JobState, Run, RunId, Target, Timestamp};

impl Tables {
    /// Whether run and gate still have the versions that the change was decided on.
    pub(super) fn is_current(&self, change: &Change) -> bool {
        let version = self.runs.get(&change.run.id).map(|run| run.version);
        let is_known =
            if change.is_new { version.is_none() } else { version == Some(change.run.version) };
        let is_at_gate = |gate: &GateChange| {
            self.gates.get(&gate.id).map_or(0, |(version, _)| *version) == gate.version
        };
        is_known && change.gate.as_ref().is_none_or(is_at_gate)
    }

    pub(super) fn apply(&mut self, change: &Change, now: Timestamp) {
        let finished_at = change.run.status.is_closed().then_some(now);
        let created_at = if change.is_new { now } else { change.run.created_at };
        let run =
            Run { version: change.run.version + 1, finished_at, created_at, ..change.run.clone() };
        for new in &change.jobs {
            let due_at = match new.due {
                Due::After(delay) => now.plus(delay),
                Due::At(at) => at,
            };
            let job = Job {
                id: new.id,
                event: run.event,
                target: new.target.clone(),
                state: JobState::Pending,
                attempt: 0,
                interrupted: 0,
                crashes: 0,
                claim: 0,
                due_at,
                created_at: now,
                finished_at: None,
                last_error: None,
            };
            self.jobs.insert(
                new.id,
                Row {
                    job,
                    expires_at: None,
                    is_paused: new.is_paused,
                    begun: None,
                    woken_until: None,
                },
            );
        }
        for id in &change.cancel_jobs {
            if let Some(row) = self.jobs.get_mut(id).filter(|row| row.job.finished_at.is_none()) {
                let job = &mut row.job;
                // An instant that nobody waits for has done what it was there for.
                let state = if matches!(job.target, Target::Timer(_)) {
                    JobState::Done
                } else {
                    JobState::Cancelled
                };
                (job.state, job.claim, job.finished_at) = (state, job.claim + 1, Some(now));
            }
        }
        for (jobs, is_paused) in [(&change.pause_jobs, true), (&change.resume_jobs, false)] {
            for job in jobs {
                if let Some(row) =
                    self.jobs.get_mut(job).filter(|row| row.job.finished_at.is_none())
                {
                    row.is_paused = is_paused;
                }
            }
        }
        if let Some(gate) = &change.gate {
            self.gates.insert(gate.id.clone(), (gate.version + 1, gate.gate.clone()));
        }
        self.kept_until.remove(&run.id);
        if let Some(retention) = change.retention {
            self.kept_until.insert(run.id, now.plus(retention));
        }
        let noted = self.history.range((run.id, 0)..=(run.id, i64::MAX)).count();
        for (note, seq) in change.notes.iter().zip(i64::try_from(noted).unwrap_or(0) + 1..) {
            let (step, data) = (note.step.clone(), note.data.clone());
            let entry = HistoryEntry {
                seq,
                at: now,
                kind: note.kind.to_string(),
                step,
                visit: note.visit,
                data,
            };
            self.history.insert((run.id, seq), entry);
        }
        let tokens = change.tokens.iter().chain(&change.spent);
        self.tokens.extend(tokens.map(|token| (token.hash.clone(), token.clone())));
        self.runs.insert(run.id, run);
        change.children.iter().for_each(|child| self.apply(child, now));
    }
}

#[async_trait]
impl Runs for Memory {
    async fn define(&self, definitions: &[Definition]) -> Result<()> {
        let mut tables = self.tables();
        for definition in definitions {
            tables.definitions.entry(definition.hash.clone()).or_insert_with(|| definition.clone());
        }
        Ok(())
    }

    async fn definition(&self, hash: &str) -> Result<Option<Definition>> {
        Ok(self.tables().definitions.get(hash).cloned())
    }

    async fn runs_by_id(&self, ids: &[RunId]) -> Result<BTreeMap<RunId, Run>> {
        let tables = self.tables();
        Ok(ids.iter().filter_map(|id| Some((*id, tables.runs.get(id)?.clone()))).collect())
    }

    async fn runs(&self, filter: &RunFilter, page: Page) -> Result<Vec<Run>> {
        let tables = self.tables();
        let wanted = |run: &&Run| {
            filter.workflow.as_ref().is_none_or(|w| run.workflow == *w)
                && filter.status.is_none_or(|s| run.status == s)
                && filter.event.is_none_or(|e| run.event == e)
        };
        let found = tables.runs.values().filter(wanted).map(|run| (run.id, run.clone())).collect();
        Ok(paged(found, filter.after, page))
    }

    async fn history(&self, run: RunId) -> Result<Vec<HistoryEntry>> {
        Ok(self
            .tables()
            .history
            .range((run, 0)..=(run, i64::MAX))
            .map(|(_, entry)| entry.clone())
            .collect())
    }

    async fn gate(&self, id: &str) -> Result<(i64, Gate)> {
        Ok(self.tables().gates.get(id).cloned().unwrap_or_default())
    }

    async fn token(&self, hash: &str) -> Result<Option<Token>> {
        Ok(self.tables().tokens.get(hash).cloned())
    }

    async fn change(&self, changes: &[Change]) -> Each<()> {
        let now = self.clock.now();
        let mut tables = self.tables();
        let one = |change: &Change| {
            if !tables.is_current(change) {
                return Err(Error::MovedOn);
            }
            tables.apply(change, now);
            Ok(())
        };
        Ok(changes.iter().map(one).collect())
    }
}
