//! All routes in one list, and the state that they share.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use axum::Router;
use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;

use super::body::{Bodies, Received};
use super::error::ApiError;
use super::limits::PerAddress;
use super::{api, approve, around, callback, echo, health, hooks, metrics};
use crate::engine::Engine;
use crate::model::{Ids, SystemIds};

/// What every route shares: the engine and the limits of requests.
pub struct State {
    /// The engine that routes ask; clones share one engine.
    pub engine: Engine,
    /// Makes the `X-Request-Id` of requests that bring no usable one.
    pub ids: Arc<dyn Ids>,
    /// Requests per client address, if limited.
    pub per_address: Option<PerAddress>,
    /// The places for requests at once (`server.max_inbound`); without a free one, the answer is
    /// 503.
    pub inbound: Arc<Semaphore>,
    /// The memory budget that all request bodies share.
    pub bodies: Bodies,
    /// Whether this process sees all work as it happens, so that `/api/tail` can follow it. A
    /// function does not.
    pub has_live_feed: bool,
    /// Whether `/health` found the store unreachable the last time; the next success says
    /// `recovered` once.
    pub was_down: AtomicBool,
}

impl State {
    /// The state for the routes over an engine, with the limits of its configuration.
    pub fn new(engine: Engine) -> Arc<Self> {
        Arc::new(Self::of(engine, true))
    }

    /// The state for a function, which lives for one request at a time.
    pub fn of_function(engine: Engine) -> Arc<Self> {
        Arc::new(Self::of(engine, false))
    }

    fn of(engine: Engine, has_live_feed: bool) -> Self {
        let server = &engine.config().server;
        let at_once = usize::try_from(server.inbound_max)
            .unwrap_or(usize::MAX)
            .clamp(1, Semaphore::MAX_PERMITS);
        Self {
            ids: Arc::new(SystemIds::default()),
            per_address: server.ip_rate_limit.and_then(NonZeroU32::new).map(PerAddress::new),
            inbound: Arc::new(Semaphore::new(at_once)),
            bodies: Bodies::new(server.body_bytes_max),
            has_live_feed,
            was_down: AtomicBool::new(false),
            engine,
        }
    }

    /// Reads a whole request, with a body of at most `server.max_body_size`.
    ///
    /// # Errors
    /// Those of [`Bodies::read`].
    pub async fn read(&self, request: Request) -> Result<Received, ApiError> {
        self.bodies.read(request, self.engine.config().server.body_bytes_max).await
    }

    /// Takes one of the places for requests at once, until the permit is dropped.
    ///
    /// # Errors
    /// 503 when all places are taken.
    pub fn place(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        let busy = |_| {
            ApiError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "service_unavailable",
                "Too many requests at once",
            )
            .retry_after(1)
        };
        Arc::clone(&self.inbound).try_acquire_owned().map_err(busy)
    }
}

/// All routes, with what surrounds them. Each group carries the limits that apply to it:
///
/// - probes and metrics are answered under any load, also while the server starts
/// - consumers of queues, who may wait, are limited per client address only
/// - everything else is limited per client address and by `server.max_inbound`
/// - what reads or changes stored data waits until the store is ready
pub fn router(state: Arc<State>) -> Router {
    let probes = probes();
    let mut events = Router::new()
        .route("/webhooks/{source}", post(hooks::webhook))
        .route("/events/{source}/{kind}", post(hooks::event))
        .route("/events/{kind}", post(hooks::event_of_app));
    if state.engine.config().server.echo {
        events = events.route("/_echo", any(echo::echo));
    }
    let limited = stored()
        .layer(CompressionLayer::new())
        .route_layer(from_fn_with_state(Arc::clone(&state), around::refuse_while_starting))
        .merge(events)
        .fallback(not_found)
        .layer(from_fn_with_state(Arc::clone(&state), around::limit));
    // Consumers that wait take no place of a request: five hundred of them cost nothing.
    let waiting = Router::new()
        .route("/api/queues/{name}/messages", get(api::queues::receive))
        .layer(CompressionLayer::new())
        .route_layer(from_fn_with_state(Arc::clone(&state), around::refuse_while_starting))
        .layer(from_fn_with_state(Arc::clone(&state), around::limit_per_address));
    probes
        .merge(waiting)
        .merge(limited)
        .method_not_allowed_fallback(wrong_method)
        .layer(CatchPanicLayer::custom(|_| ApiError::internal().into_response()))
        .layer(from_fn_with_state(Arc::clone(&state), around::around))
        .with_state(state)
}

/// The routes of a process that takes no requests: probes and metrics.
pub fn probes_only(state: Arc<State>) -> Router {
    probes()
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .layer(CatchPanicLayer::custom(|_| ApiError::internal().into_response()))
        .layer(from_fn_with_state(Arc::clone(&state), around::around))
        .with_state(state)
}

fn probes() -> Router<Arc<State>> {
    Router::new()
        .route("/livez", get(health::live))
        .route("/healthz", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/health", get(health::health))
        .route("/metrics", get(metrics::metrics))
        .layer(CompressionLayer::new())
}

/// The routes that read or change stored data.
fn stored() -> Router<Arc<State>> {
    Router::new()
        .route("/api/events", get(api::events::list))
        .route("/api/events/{id}", get(api::events::show))
        .route("/api/events/{id}/jobs", get(api::events::jobs))
        .route("/api/jobs", get(api::jobs::list))
        .route("/api/jobs/retry", post(api::jobs::retry_all))
        .route("/api/jobs/cancel", post(api::jobs::cancel_all))
        .route("/api/jobs/{id}", get(api::jobs::show))
        .route("/api/jobs/{id}/attempts", get(api::jobs::attempts))
        .route("/api/jobs/{id}/retry", post(api::jobs::retry))
        .route("/api/jobs/{id}/cancel", post(api::jobs::cancel))
        .route("/callback/{token}", post(callback::done))
        .route("/callback/{token}/fail", post(callback::failed))
        .route("/callback/{token}/heartbeat", post(callback::heartbeat))
        .route("/approve/{token}", get(approve::show).post(approve::decide))
        .route("/api/runs", get(api::runs::list))
        .route("/api/runs/{id}", get(api::runs::show))
        .route("/api/runs/{id}/cancel", post(api::runs::cancel))
        .route("/api/runs/{id}/kill", post(api::runs::kill))
        .route("/api/runs/{id}/pause", post(api::runs::pause))
        .route("/api/runs/{id}/resume", post(api::runs::resume))
        .route("/api/runs/{id}/redrive", post(api::runs::redrive))
        .route("/api/runs/{id}/steps/{step}/approve", post(api::runs::approve))
        .route("/api/runs/{id}/steps/{step}/reject", post(api::runs::reject))
        // The names that qhook gave them.
        .route("/api/workflow-runs", get(api::runs::list))
        .route("/api/workflow-runs/{id}", get(api::runs::show))
        .route("/api/workflow-runs/{id}/redrive", post(api::runs::redrive))
        .route("/api/fsck", get(api::runs::fsck))
        .route("/api/workflows/{name}/runs", post(api::runs::start))
        .route("/api/alerts/test", post(api::alerts::test))
        .route("/api/queues", get(api::queues::list))
        .route("/api/queues/{name}", get(api::queues::show))
        .route("/api/queues/{name}/peek", get(api::queues::peek))
        .route("/api/queues/{name}/dlq", get(api::queues::dlq))
        .route("/api/queues/{name}/retry", post(api::queues::retry))
        .route("/api/queues/{name}/drain", post(api::queues::drain))
        .route("/api/queues/{name}/ack", post(api::queues::ack))
        .route("/api/queues/{name}/nack", post(api::queues::nack))
        .route("/api/queues/{name}/extend", post(api::queues::extend))
        .route("/api/rejections", get(api::rejections::list))
        .route("/api/lanes", get(api::lanes::list))
        .route("/api/lanes/{*lane}", post(api::lanes::operate))
        .route("/api/explain", post(api::explain::explain))
        .route("/api/near-misses", get(api::explain::near_misses))
        .route("/api/tail", get(api::tail::tail))
}

async fn not_found(method: Method) -> Response {
    // A method that no route has is refused as such, wherever it is sent.
    match [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::OPTIONS,
    ]
    .contains(&method)
    {
        true => ApiError::not_found("no such route").into_response(),
        false => wrong_method().await,
    }
}

async fn wrong_method() -> Response {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "this route does not support this method",
    )
    .into_response()
}
