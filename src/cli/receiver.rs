//! The receiver of `tidehook dev`: a server of its own that fails the first attempt of every
//! delivery.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::any;
use tokio::net::TcpListener;

type FailedOnce = Arc<Mutex<HashSet<String>>>;

/// Starts the receiver on a free port of loopback and returns its address.
pub(super) async fn start() -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let routes = Router::new().fallback(any(answer)).with_state(FailedOnce::default());
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Ok(address)
}

/// Answers 503 to the first attempt of a delivery, 200 to all later ones.
async fn answer(State(seen): State<FailedOnce>, headers: HeaderMap) -> StatusCode {
    let id = headers
        .get("x-tidehook-delivery-id")
        .and_then(|v| v.to_str().ok())
        .unwrap_or("")
        .to_owned();
    let is_first = seen.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
    if is_first { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
}
