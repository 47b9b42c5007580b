//! First floor: makes outgoing HTTP requests, one request and one outcome at a time.
//!
//! There is no error type here. Every way in which a delivery can fail is an [`Outcome`], since
//! failed deliveries are normal. Nothing is retried, redirected, decompressed or sent through a
//! proxy behind the engine's back.
//!
//! - `compose`: builds a request from job, event and handler; pure
//! - [`step`]: builds a request from a run's step; pure
//! - [`resolve`]: looks names up; every address is judged before any is dialled
//! - [`client`]: makes the exchange, under one deadline and with a capped response

pub mod client;
pub mod compose;
pub mod resolve;
pub mod step;

use async_trait::async_trait;

pub use client::Client;
pub use compose::compose;

use crate::model::{Outcome, Request};

/// Makes the HTTP exchanges of jobs. `Client` does so over the network; tests put other
/// implementations in its place.
#[async_trait]
pub trait Deliver: Send + Sync {
    /// Makes one exchange. Dropping the future closes the connection.
    async fn send(&self, request: Request) -> Outcome;
}
