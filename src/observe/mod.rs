//! What operators see of a running process: logs, metrics, and a feed of what happens. It stands
//! beside the floors, and every floor may use it.
//!
//! - [`log`]: sentences for people with fields for queries, on standard error
//! - [`metrics`]: counters and histograms of this process
//! - [`emf`]: the same for CloudWatch, where nobody can scrape
//! - [`repeats`]: counts lines of the log that would only repeat others
//! - [`feed`]: what happens to events and deliveries, for those who follow

pub mod emf;
pub mod feed;
pub mod log;
pub mod metrics;
pub mod repeats;
