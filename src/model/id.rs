//! Typed ids and the generators that make them.
//!
//! Every id is a ULID: 26 Crockford base32 characters that sort by time. The prefixed spelling
//! (`evt_…`, `dlv_…`) is for people; both spellings can be read.

use std::fmt;
use std::str::FromStr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use ulid::{Generator, Ulid};

use super::time::{Clock, SystemClock, Timestamp};

/// A text that is not a valid id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an id: expected 26 characters (a ULID)")]
pub struct BadId(pub String);

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub Ulid);

        impl $name {
            /// What the prefixed spelling starts with.
            pub const PREFIX: &'static str = $prefix;

            /// The next id of the generator.
            pub fn next(ids: &dyn Ids) -> Self {
                Self(ids.next())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut text = [0u8; ulid::ULID_LEN];
                f.write_str(self.0.array_to_str(&mut text))
            }
        }

        impl FromStr for $name {
            type Err = BadId;

            fn from_str(text: &str) -> Result<Self, BadId> {
                let bare = text.strip_prefix($prefix).unwrap_or(text);
                // 26 characters hold 130 bits: what is larger than 128 would be read as another id.
                let fits = bare.len() == ulid::ULID_LEN && bare.as_bytes()[0] <= b'7';
                if !fits {
                    return Err(BadId(text.to_owned()));
                }
                Ulid::from_string(bare).map(Self).map_err(|_| BadId(text.to_owned()))
            }
        }
    )*};
}

ids! {
    /// An accepted event, as the answer to the sender names it.
    EventId = "evt_";
    /// A unit of work: one delivery with all its attempts.
    JobId = "dlv_";
    /// One try of a job. Receivers see it in the `X-Tidehook-Attempt-ID` header.
    AttemptId = "att_";
    /// One execution of a workflow.
    RunId = "run_";
}

impl Serialize for JobId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for JobId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for RunId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RunId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl RunId {
    /// The run that this job starts. It has the job's own ULID, so a repeated start names the same
    /// run.
    pub fn of(job: JobId) -> Self {
        Self(job.0)
    }
}

impl AttemptId {
    /// The id of the attempt under this claim. It is derived, so a repeated write names the same
    /// attempt. It shares the job's time part. The rest is a hash, because ids of jobs made
    /// together follow each other.
    pub fn of(job: JobId, claim: i64) -> Self {
        const RANDOM_BITS: u32 = 80;
        let hash =
            Sha256::digest([job.0.0.to_be_bytes().as_slice(), &claim.to_be_bytes()].concat());
        let random = hash.iter().take(10).fold(0, |all: u128, byte| all << 8 | u128::from(*byte));
        Self(Ulid(job.0.0 >> RANDOM_BITS << RANDOM_BITS | random))
    }
}

/// A generator of ids. It is passed in, so that a seed can replay a run.
pub trait Ids: Send + Sync {
    /// A fresh id, larger than every one this generator gave before.
    fn next(&self) -> Ulid;

    /// Adjusts this generator to the database's clock. `database` is what that clock showed when
    /// this machine's showed `here`. Ids then carry the database's time, so a machine whose clock
    /// is off does not put its ids out of order.
    fn follow(&self, database: Timestamp, here: Timestamp) {
        let _ = (database, here);
    }
}

/// Ids from the wall clock and the operating system's randomness.
#[derive(Debug, Default)]
pub struct SystemIds {
    generator: Mutex<Generator>,
    /// How far the database's clock is ahead of this machine's, in milliseconds.
    ahead_ms: AtomicI64,
}

/// Smaller differences between the clocks are ignored: reading a clock over the network takes that
/// long.
const SKEW_MIN_MS: i64 = 1_000;

impl Ids for SystemIds {
    fn next(&self) -> Ulid {
        let now = SystemClock.now().0.saturating_add(self.ahead_ms.load(Ordering::Relaxed)).max(0);
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(now.unsigned_abs());
        // A poisoned lock still holds a usable generator: it is one number.
        let mut generator =
            self.generator.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match generator.generate_from_datetime(at) {
            Ok(id) => id,
            Err(overflow) => overflow.commit_overflow_random(),
        }
    }

    fn follow(&self, database: Timestamp, here: Timestamp) {
        let ahead = database.0.saturating_sub(here.0);
        self.ahead_ms.store(if ahead.abs() < SKEW_MIN_MS { 0 } else { ahead }, Ordering::Relaxed);
    }
}

/// Ids that count up from a seed: the same run gives the same ids.
#[derive(Debug)]
pub struct SeededIds(Mutex<u128>);

impl SeededIds {
    /// A generator whose first id carries the clock's time and the seed.
    pub fn new(seed: u64, clock: &dyn Clock) -> Self {
        let Timestamp(ms) = clock.now();
        let time = u128::from(ms.max(0).unsigned_abs()) << 80;
        Self(Mutex::new(time | (u128::from(seed) << 32)))
    }
}

impl Ids for SeededIds {
    fn next(&self) -> Ulid {
        let mut last = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *last += 1;
        Ulid(*last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_with_and_without_prefix() {
        let id = EventId::next(&SystemIds::default());
        assert_eq!(id.to_string().parse::<EventId>().unwrap(), id);
        assert_eq!(format!("evt_{id}").parse::<EventId>().unwrap(), id);
        assert!("evt_short".parse::<EventId>().is_err());
        assert!("é".repeat(13).parse::<EventId>().is_err());
    }

    #[test]
    fn a_machine_whose_clock_is_off_gives_ids_of_the_databases_time() {
        let ids = SystemIds::default();
        let here = SystemClock.now();
        ids.follow(here.minus(Duration::from_secs(400 * 86_400)), here);
        let far = SystemIds::default().next().timestamp_ms() - ids.next().timestamp_ms();
        assert!((399 * 86_400_000..401 * 86_400_000).contains(&far), "{far}");
    }

    #[test]
    fn a_generator_never_goes_back() {
        let ids = SystemIds::default();
        let mut last = ids.next();
        for _ in 0..10_000 {
            let next = ids.next();
            assert!(next > last);
            last = next;
        }
    }
}
