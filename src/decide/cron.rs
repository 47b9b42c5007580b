//! Cron schedules: when a source fires, and what becomes of the slots that were missed.
//!
//! A slot is an instant that a schedule names. Clock changes are croner's, after Vixie cron: a time
//! that a change skips fires once when the clock has moved on, and one that comes twice fires the
//! first time. Schedules with `*` in the hours follow the real hours.

use std::str::FromStr;

use chrono::{DateTime, FixedOffset, TimeZone, Utc};
use croner::Cron;
use croner::parser::{CronParser, Seconds};
use sha2::{Digest, Sha256};

use crate::model::Timestamp;

/// How many missed slots `catch_up: all` makes up for. Older ones are left out.
pub const CAUGHT_UP_MAX: usize = 100;

/// The zone in which a schedule's fields are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zone {
    /// A fixed offset from UTC, such as `+09:00`.
    Fixed(FixedOffset),
    /// A zone of the IANA database, with its clock changes.
    Named(chrono_tz::Tz),
}

impl FromStr for Zone {
    type Err = ();

    /// Reads an offset such as `+09:00`, or the name of a zone, such as `UTC` or
    /// `America/New_York`.
    fn from_str(text: &str) -> Result<Self, ()> {
        match FixedOffset::from_str(text) {
            Ok(offset) => Ok(Self::Fixed(offset)),
            Err(_) => text.parse().map(Self::Named).map_err(|_| ()),
        }
    }
}

/// What happens to slots that passed while nothing ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CatchUp {
    /// They are left out, and only the next one fires.
    #[default]
    Skip,
    /// The last of them fires, once for all.
    One,
    /// Each of them fires, the last hundred at most.
    All,
}

/// A schedule with its zone.
#[derive(Debug, Clone)]
pub struct Schedule {
    cron: Cron,
    zone: Zone,
    fingerprint: String,
}

/// What is due when the job of a slot runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// The slot that fires; `None` when everything that is due was missed and is left out.
    pub fires: Option<Timestamp>,
    /// The slot that follows; `None` when the schedule has none left.
    pub next: Option<Timestamp>,
}

impl Schedule {
    /// Reads a schedule of five fields, or six with leading seconds.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn parse(text: &str, zone: Zone) -> Result<Self, String> {
        if !(5..=6).contains(&text.split_whitespace().count()) {
            return Err("write 5 fields, or 6 with leading seconds".to_owned());
        }
        let parser = CronParser::builder().seconds(Seconds::Optional).build();
        let cron = parser.parse(text).map_err(|why| why.to_string())?;
        let zone_name = match zone {
            Zone::Fixed(offset) => offset.to_string(),
            Zone::Named(zone) => zone.name().to_owned(),
        };
        let hash = Sha256::digest(format!("{text}\n{zone_name}"));
        Ok(Self { cron, zone, fingerprint: hex::encode(&hash[..8]) })
    }

    /// Tells this schedule from another one: 16 hexadecimal digits over its text and zone.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The first slot after an instant; `None` if there is none.
    pub fn after(&self, at: Timestamp) -> Option<Timestamp> {
        self.find(
            at,
            |cron, at| cron.find_next_occurrence(&at, false).ok(),
            |cron, at| cron.find_next_occurrence(&at, false).ok(),
        )
    }

    /// The last slot at an instant or before it; `None` if there is none.
    pub fn at_or_before(&self, at: Timestamp) -> Option<Timestamp> {
        self.find(
            at,
            |cron, at| cron.find_previous_occurrence(&at, true).ok(),
            |cron, at| cron.find_previous_occurrence(&at, true).ok(),
        )
    }

    fn find(
        &self,
        at: Timestamp,
        fixed: impl Fn(&Cron, DateTime<FixedOffset>) -> Option<DateTime<FixedOffset>>,
        named: impl Fn(&Cron, DateTime<chrono_tz::Tz>) -> Option<DateTime<chrono_tz::Tz>>,
    ) -> Option<Timestamp> {
        let at = DateTime::<Utc>::from_timestamp_millis(at.0)?.naive_utc();
        let found = match self.zone {
            Zone::Fixed(zone) => fixed(&self.cron, zone.from_utc_datetime(&at))?.timestamp_millis(),
            Zone::Named(zone) => named(&self.cron, zone.from_utc_datetime(&at))?.timestamp_millis(),
        };
        Some(Timestamp(found))
    }

    /// An instant as the schedule's zone writes it, such as `2026-03-29 03:00:00 CEST`.
    pub fn local(&self, at: Timestamp) -> String {
        let Some(at) = DateTime::<Utc>::from_timestamp_millis(at.0) else { return at.rfc3339() };
        let format = "%Y-%m-%d %H:%M:%S %Z";
        match self.zone {
            Zone::Fixed(zone) => at.with_timezone(&zone).format(format).to_string(),
            Zone::Named(zone) => at.with_timezone(&zone).format(format).to_string(),
        }
    }

    /// What is due at `now`, when the job of `slot` runs.
    pub fn due(&self, slot: Timestamp, now: Timestamp, catch_up: CatchUp) -> Due {
        let next = self.after(slot);
        if next.is_none_or(|next| next > now) {
            return Due { fires: Some(slot), next };
        }
        match catch_up {
            CatchUp::Skip => Due { fires: None, next: self.after(now) },
            CatchUp::One => Due { fires: self.at_or_before(now), next: self.after(now) },
            CatchUp::All => {
                let slot = self.within_reach(slot, now);
                Due { fires: Some(slot), next: self.after(slot) }
            }
        }
    }

    /// `slot`, or the first of the slots that are made up for if too many have passed since.
    fn within_reach(&self, slot: Timestamp, now: Timestamp) -> Timestamp {
        let mut reached = slot;
        for _ in 0..CAUGHT_UP_MAX {
            match self.after(reached) {
                Some(next) if next <= now => reached = next,
                _ => return slot,
            }
        }
        let mut first = now;
        for _ in 0..CAUGHT_UP_MAX {
            match self.at_or_before(Timestamp(first.0 - 1)) {
                Some(before) if before > slot => first = before,
                _ => return slot,
            }
        }
        first
    }
}

/// By how much a slot's job is put off, evenly between zero and `jitter`. The same for everyone who
/// asks for the same slot.
pub fn jittered(source: &str, slot: Timestamp, jitter: std::time::Duration) -> Timestamp {
    let span = u64::try_from(jitter.as_millis()).unwrap_or(u64::MAX);
    let hash = Sha256::digest(format!("{source}\n{}", slot.0));
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hash[..8]);
    let by = u64::from_be_bytes(bytes).checked_rem(span.saturating_add(1)).unwrap_or(0);
    slot.plus(std::time::Duration::from_millis(by))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    fn schedule(text: &str, zone: &str) -> Schedule {
        Schedule::parse(text, zone.parse().unwrap()).unwrap()
    }

    fn next(schedule: &Schedule, from: &str, count: usize) -> Vec<String> {
        let mut slot = at(from);
        let mut slots = Vec::new();
        for _ in 0..count {
            slot = schedule.after(slot).unwrap();
            slots.push(schedule.local(slot));
        }
        slots
    }

    #[test]
    fn a_time_that_the_clock_skips_fires_once_when_the_clock_has_moved_on() {
        let daily = schedule("30 2 * * *", "Europe/Berlin");
        assert_eq!(
            next(&daily, "2026-03-28T00:00:00Z", 3),
            ["2026-03-28 02:30:00 CET", "2026-03-29 03:00:00 CEST", "2026-03-30 02:30:00 CEST",]
        );
    }

    #[test]
    fn a_time_that_comes_twice_fires_the_first_time_and_every_hour_means_every_real_hour() {
        let daily = schedule("30 2 * * *", "Europe/Berlin");
        assert_eq!(
            next(&daily, "2026-10-24T23:00:00Z", 2),
            ["2026-10-25 02:30:00 CEST", "2026-10-26 02:30:00 CET",]
        );
        let hourly = schedule("0 * * * *", "Europe/Berlin");
        assert_eq!(
            next(&hourly, "2026-10-24T23:30:00Z", 3),
            ["2026-10-25 02:00:00 CEST", "2026-10-25 02:00:00 CET", "2026-10-25 03:00:00 CET",]
        );
    }

    #[test]
    fn seconds_offsets_and_leap_days_are_understood() {
        let seconds = schedule("*/20 * * * * *", "UTC");
        assert_eq!(
            next(&seconds, "2026-01-01T00:00:05Z", 2),
            ["2026-01-01 00:00:20 UTC", "2026-01-01 00:00:40 UTC",]
        );
        let tokyo = schedule("0 9 * * *", "+09:00");
        assert_eq!(tokyo.after(at("2026-01-01T00:00:00Z")), Some(at("2026-01-02T00:00:00Z")));
        let leap = schedule("0 0 29 2 *", "UTC");
        assert_eq!(leap.after(at("2026-01-01T00:00:00Z")), Some(at("2028-02-29T00:00:00Z")));
        let never = schedule("0 0 30 2 *", "UTC");
        assert_eq!(never.after(at("2026-01-01T00:00:00Z")), None);
        assert!(Schedule::parse("* * * *", Zone::Named(chrono_tz::UTC)).is_err());
    }

    #[test]
    fn missed_slots_are_left_out_made_up_once_or_all() {
        let hourly = schedule("0 * * * *", "UTC");
        let (slot, now) = (at("2026-01-01T01:00:00Z"), at("2026-01-01T04:30:00Z"));
        let due = |catch_up| hourly.due(slot, now, catch_up);
        let five = Some(at("2026-01-01T05:00:00Z"));
        assert_eq!(due(CatchUp::Skip), Due { fires: None, next: five });
        let four = Some(at("2026-01-01T04:00:00Z"));
        assert_eq!(due(CatchUp::One), Due { fires: four, next: five });
        let two = Some(at("2026-01-01T02:00:00Z"));
        assert_eq!(due(CatchUp::All), Due { fires: Some(slot), next: two });
        // A slot that is merely late was not missed.
        let late = hourly.due(slot, at("2026-01-01T01:59:59Z"), CatchUp::Skip);
        assert_eq!(late, Due { fires: Some(slot), next: two });
        let month = hourly.due(slot, at("2026-02-01T00:30:00Z"), CatchUp::All);
        assert_eq!(month.fires, Some(at("2026-01-27T21:00:00Z")), "the last hundred");
    }

    #[test]
    fn jitter_stays_in_its_span_and_is_the_same_for_everyone() {
        let slot = at("2026-01-01T01:00:00Z");
        let jitter = Duration::from_secs(30);
        let put_off = jittered("nightly", slot, jitter);
        assert!(put_off >= slot && put_off <= slot.plus(jitter));
        assert_eq!(put_off, jittered("nightly", slot, jitter));
        assert_eq!(jittered("nightly", slot, Duration::ZERO), slot);
    }
}
