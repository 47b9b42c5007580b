//! First floor: out. One request, one outcome.
//!
//! There is no error here: every way a delivery can fail is an [`Outcome`], since a failed delivery is
//! normal life. Nothing is retried, redirected, decompressed or sent through a proxy behind the engine's
//! back.
//!
//! - `compose`: job, event and handler into a request; pure
//! - [`step`]: a run's step into a request; pure
//! - [`resolve`]: names into addresses, every one judged before any is dialled
//! - [`client`]: the exchange, under one deadline and with a capped answer

pub mod client;
pub mod compose;
pub mod resolve;
pub mod step;

use async_trait::async_trait;

pub use client::Client;
pub use compose::compose;

use crate::model::{Outcome, Request};

/// Sends requests.
#[async_trait]
pub trait Deliver: Send + Sync {
    /// Makes one exchange. A future that is dropped closes the connection.
    async fn send(&self, request: Request) -> Outcome;
}
