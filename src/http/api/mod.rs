//! The management API: what is stored, one file per resource. Every route takes the bearer token of
//! `api.auth_token`.

pub mod alerts;
pub mod events;
pub mod explain;
pub mod jobs;
pub mod lanes;
pub mod page;
pub mod queues;
pub mod rejections;
pub mod runs;
pub mod tail;

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::auth;
use super::error::ApiError;
use super::router::State;
use crate::engine::Engine;

/// Proof that the caller may use the management API, with the engine. A route that takes it as an
/// argument is protected.
pub struct Allowed(pub Engine);

impl FromRequestParts<Arc<State>> for Allowed {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<State>) -> Result<Self, ApiError> {
        auth::management(parts, &state.engine.config().api)?;
        Ok(Self(state.engine.clone()))
    }
}
