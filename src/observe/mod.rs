//! Beside the stairs: what happens, told as it happens.
//!
//! - [`log`]: sentences for people with fields for queries, on standard error
//! - [`metrics`]: counters and histograms of this process
//! - [`emf`]: the same for CloudWatch, where nobody can scrape
//! - [`repeats`]: which lines of a log would only repeat what it says already
//! - [`feed`]: what happens to events and deliveries, for those who follow along

pub mod emf;
pub mod feed;
pub mod log;
pub mod metrics;
pub mod repeats;
