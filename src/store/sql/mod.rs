//! What the SQL drivers share. A verb is written once here, in Rust; its statements are texts of
//! the driver ([`statement`]), and the verbs that must be fast or differ in shape are the driver's
//! own ([`driver`]).
//!
//! - [`pool`]: the store over a driver's pools; [`tx`]: a transaction that cannot be left half way;
//!   [`retry`]: runs verbs, and repeats them after a conflict
//! - [`driver`]: what a driver says about its database; [`seam`]: what shared code needs from sqlx
//! - [`statement`], [`values`]: named texts and the values bound to them; [`rows`]: rows and how
//!   they become values of the model; `outcomes`: outcomes as values
//! - `looks`: which lanes a claim looks at
//! - `tables`: whole tables, for copies
//! - `keys`, `intake`, `work`, `record`, `pull`, `lanes`, `hints`, `runs`, `query`, `maintenance`:
//!   the
//!   verbs, named as in [`super::port`]
//! - `texts/`: statements that every driver can share

pub mod driver;
mod hints;
pub(super) mod intake;
mod keys;
mod lanes;
pub(super) mod looks;
pub(super) mod maintenance;
pub(super) mod outcomes;
pub mod pool;
mod pull;
mod query;
pub(super) mod record;
pub mod retry;
pub mod rows;
mod runs;
pub mod seam;
pub mod statement;
mod tables;
pub mod tx;
pub mod values;
mod work;

pub use pool::SqlStore;

/// The statements that every driver can share. A driver's own text of the same name replaces one.
pub const SHARED_TEXTS: [&str; 7] = [
    include_str!("texts/work.sql"),
    include_str!("texts/lanes.sql"),
    include_str!("texts/pull.sql"),
    include_str!("texts/query.sql"),
    include_str!("texts/runs.sql"),
    include_str!("texts/hints.sql"),
    include_str!("texts/maintenance.sql"),
];
