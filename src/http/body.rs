//! Reads request bodies within limits of size, time and memory over all requests.
//!
//! A request gets a place and memory only for bytes that have arrived, so that slow or lying
//! clients cannot exhaust them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::around::ClientAddress;
use super::error::ApiError;
use super::limits::client_key;

/// The time limit for reading a body, and for waiting for the turn to judge it.
const TIME_MAX: Duration = Duration::from_secs(12);
/// How long and how far a refused body is still read, so that its sender gets to read the answer
/// (RFC 9112, section 9.6).
const LINGER_TIME: Duration = Duration::from_secs(5);
const LINGER_SILENCE: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 64 * 1024 * 1024;
/// The bytes of a body that are read before the rest of it needs a reservation.
const EARNED: usize = 64 * 1024;
/// The memory for the first `EARNED` bytes of all bodies together, and of one client's.
const BEGINNINGS_MAX: usize = 16 * 1024 * 1024;
const BEGINNINGS_OF_CLIENT: usize = BEGINNINGS_MAX / 2;
/// The memory for bodies beyond their first bytes, together; four times the largest body if that is
/// more. One client has a quarter of it.
const LARGE_MAX: usize = 32 * 1024 * 1024;
/// The unit in which memory is counted: one permit of the semaphores.
const PIECE: usize = 1024;

/// The memory budget of all request bodies of this process, and each client's share of it.
pub struct Bodies {
    beginnings: Arc<Semaphore>,
    large: Arc<Semaphore>,
    large_of_client: usize,
    clients: Arc<Mutex<Clients>>,
    /// Permits to judge large bodies on blocking threads: one to four at once, by the number of
    /// processors.
    judging: Arc<Semaphore>,
}

type Clients = HashMap<IpAddr, Arc<Client>>;

/// The memory that the bodies of one client may hold.
struct Client {
    beginnings: Arc<Semaphore>,
    large: Arc<Semaphore>,
}

/// A request whose body was read as a whole. Dropping it gives back the memory that its body holds
/// of the budget.
pub struct Received {
    /// The request's head: method, URI, headers and extensions.
    pub head: Parts,
    /// The body exactly as it was received.
    pub bytes: Bytes,
    _share: Share,
}

/// The share of the memory budget that one body holds, given back when it is dropped.
struct Share {
    address: IpAddr,
    client: Option<Arc<Client>>,
    clients: Arc<Mutex<Clients>>,
    held: Vec<OwnedSemaphorePermit>,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.held.clear();
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        // One is in the map, one is ours: nobody else has a body of this client in hand.
        if self.client.take().is_some_and(|client| Arc::strong_count(&client) == 2) {
            clients.remove(&self.address);
        }
    }
}

fn pieces(bytes: usize) -> usize {
    bytes.div_ceil(PIECE)
}

impl Bodies {
    /// An unused budget. It is large enough for four bodies of `bytes_max`.
    pub fn new(bytes_max: usize) -> Self {
        let large = LARGE_MAX.max(bytes_max.saturating_mul(4)).min(Semaphore::MAX_PERMITS);
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            beginnings: Arc::new(Semaphore::new(pieces(BEGINNINGS_MAX))),
            large: Arc::new(Semaphore::new(pieces(large))),
            large_of_client: pieces(large / 4),
            clients: Arc::default(),
            judging: Arc::new(Semaphore::new(processors.clamp(1, 4))),
        }
    }

    fn share(&self, address: IpAddr) -> (Share, Arc<Client>) {
        let address = client_key(address);
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let client = clients.entry(address).or_insert_with(|| {
            let beginnings = Arc::new(Semaphore::new(pieces(BEGINNINGS_OF_CLIENT)));
            Arc::new(Client { beginnings, large: Arc::new(Semaphore::new(self.large_of_client)) })
        });
        let client = Arc::clone(client);
        let share = Share {
            address,
            client: Some(Arc::clone(&client)),
            clients: Arc::clone(&self.clients),
            held: Vec::new(),
        };
        (share, client)
    }

    /// Reads the whole body of a request, at most `bytes_max` bytes.
    ///
    /// # Errors
    /// 413 for a body that is too large, 415 for an encoded one, 400 when it breaks off, 408 when
    /// it takes too long, 503 when there is no memory for it.
    pub async fn read(&self, request: Request, bytes_max: usize) -> Result<Received, ApiError> {
        let address = request
            .extensions()
            .get::<ClientAddress>()
            .map_or(IpAddr::from([0, 0, 0, 0]), |client| client.0);
        let (head, mut body) = request.into_parts();
        judge(&head.headers, bytes_max)?;
        let deadline = Instant::now() + TIME_MAX;
        let declared = declared_length(&head.headers);
        let (mut share, client) = self.share(address);
        let mut bytes = BytesMut::new();
        let (mut held, mut is_reserved) = (0, false);
        let late = || {
            ApiError::new(
                StatusCode::REQUEST_TIMEOUT,
                "timeout",
                "the request body did not arrive in time",
            )
            .closing()
        };
        loop {
            let frame = match tokio::time::timeout_at(deadline, body.frame()).await {
                Err(_) => return Err(late()),
                Ok(None) => break,
                Ok(Some(Err(_))) => {
                    return Err(ApiError::bad_request("the request body was cut off").closing());
                }
                Ok(Some(Ok(frame))) => frame,
            };
            let Ok(chunk) = frame.into_data() else { continue };
            if bytes.len() + chunk.len() > bytes_max {
                return Err(ApiError::too_large(bytes_max));
            }
            let length = bytes.len() + chunk.len();
            if !is_reserved && length > EARNED {
                // It has shown that it sends: the rest is reserved at once, so that no two wait for
                // each other half way.
                let rest = pieces(declared.unwrap_or(bytes_max).clamp(length, bytes_max));
                let reserved =
                    tokio::time::timeout_at(deadline, reserve(&self.large, &client.large, rest))
                        .await;
                share.held.extend(reserved.map_err(|_| busy())?.ok_or_else(busy)?);
                is_reserved = true;
                // All of it at once: growing step by step would copy it, and leave as much behind.
                let whole = declared.unwrap_or(length).clamp(length, bytes_max);
                bytes.reserve(whole - bytes.len());
            }
            if !is_reserved && pieces(length) > held {
                let more = pieces(length) - held;
                share
                    .held
                    .extend(at_once(&self.beginnings, &client.beginnings, more).ok_or_else(busy)?);
                held += more;
            }
            if bytes.is_empty() && !is_reserved {
                bytes.reserve(declared.unwrap_or(0).min(EARNED).max(chunk.len()));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(Received { head, bytes: bytes.freeze(), _share: share })
    }

    /// Runs `judge` for a body of this many bytes: in place for a small one, else on a blocking
    /// thread, few at a time.
    ///
    /// # Errors
    /// 503 when it does not get its turn in time, 500 when `judge` panics.
    pub async fn judging<T: Send + 'static>(
        &self,
        bytes: usize,
        judge: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        if bytes <= EARNED {
            return Ok(judge());
        }
        let turn = tokio::time::timeout(TIME_MAX, Arc::clone(&self.judging).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else { return Err(busy()) };
        let judged = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            judge()
        });
        judged.await.map_err(|_| ApiError::internal())
    }
}

fn busy() -> ApiError {
    ApiError::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "service_unavailable",
        "Too many request bodies at once",
    )
    .retry_after(1)
    .closing()
}

async fn reserve(
    all: &Arc<Semaphore>,
    own: &Arc<Semaphore>,
    pieces: usize,
) -> Option<[OwnedSemaphorePermit; 2]> {
    let pieces = u32::try_from(pieces).ok()?;
    let own = Arc::clone(own).acquire_many_owned(pieces).await.ok()?;
    Some([own, Arc::clone(all).acquire_many_owned(pieces).await.ok()?])
}

fn at_once(
    all: &Arc<Semaphore>,
    own: &Arc<Semaphore>,
    pieces: usize,
) -> Option<[OwnedSemaphorePermit; 2]> {
    let pieces = u32::try_from(pieces).ok()?;
    let own = Arc::clone(own).try_acquire_many_owned(pieces).ok()?;
    Some([own, Arc::clone(all).try_acquire_many_owned(pieces).ok()?])
}

fn declared_length(headers: &HeaderMap) -> Option<usize> {
    headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse().ok())
}

/// Refuses by its headers a request whose body would be refused after reading.
///
/// # Errors
/// 413 for a length over the limit. 415 for an encoded body: nothing is decompressed, because the
/// signature covers the bytes as sent.
pub fn judge(headers: &HeaderMap, bytes_max: usize) -> Result<(), ApiError> {
    let length = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.parse::<u64>().ok());
    if length.is_some_and(|length| length > bytes_max as u64) {
        return Err(ApiError::too_large(bytes_max));
    }
    let encoding = headers.get(header::CONTENT_ENCODING).map(|v| v.as_bytes().to_ascii_lowercase());
    if encoding.is_some_and(|e| !e.is_empty() && e != b"identity") {
        let message = "send the body without Content-Encoding";
        return Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            message,
        )
        .closing());
    }
    Ok(())
}

/// A second handle on a request's body: what the route leaves unread can still be read.
pub struct Rest(Arc<Mutex<axum::body::Body>>);

impl Rest {
    /// Replaces a request's body by a shared one. `None` when there is no body, or when its sender
    /// waits for `100 Continue`.
    pub fn of(request: &mut Request) -> Option<Self> {
        if axum::body::HttpBody::is_end_stream(request.body())
            || request.headers().contains_key(header::EXPECT)
        {
            return None;
        }
        let shared = Arc::new(Mutex::new(std::mem::take(request.body_mut())));
        *request.body_mut() = axum::body::Body::new(Handle(Arc::clone(&shared)));
        Some(Self(shared))
    }

    /// Reads the rest of the body within bounds and drops it, so that a sender who is still sending
    /// gets the answer and no reset.
    pub async fn linger(self) {
        let body = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        if !axum::body::HttpBody::is_end_stream(&body) {
            read_on(body).await;
        }
    }
}

struct Handle(Arc<Mutex<axum::body::Body>>);

impl axum::body::HttpBody for Handle {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
        let mut body = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::pin::Pin::new(&mut *body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        axum::body::HttpBody::is_end_stream(&*self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        axum::body::HttpBody::size_hint(&*self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Reads and drops the rest of a body, within bounds.
///
/// A connection that is closed while its peer still sends is reset, and the answer is lost. A peer
/// that falls silent is waiting for the answer.
async fn read_on(mut body: axum::body::Body) {
    let end = Instant::now() + LINGER_TIME;
    let mut left = LINGER_BYTES;
    while let Ok(Some(Ok(frame))) =
        tokio::time::timeout_at(end.min(Instant::now() + LINGER_SILENCE), body.frame()).await
    {
        left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
        if left == 0 {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use futures::stream;

    fn request(from: [u8; 4], body: Body) -> Request {
        let mut request = Request::new(body);
        request.extensions_mut().insert(ClientAddress(IpAddr::from(from)));
        request
    }

    /// A body of so many bytes that then goes on for ever without sending any.
    fn stalled(bytes: usize) -> Body {
        let sent = stream::iter([Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; bytes]))]);
        Body::from_stream(futures::StreamExt::chain(sent, stream::pending()))
    }

    #[tokio::test(start_paused = true)]
    async fn one_client_cannot_hold_what_is_there_for_all() {
        let bodies = Arc::new(Bodies::new(1 << 20));
        for _ in 0..900 {
            let (bodies, request) =
                (Arc::clone(&bodies), request([192, 0, 2, 1], stalled(1 << 19)));
            tokio::spawn(async move { bodies.read(request, 1 << 20).await.map(|_| ()) });
        }
        for _ in 0..2_000 {
            tokio::task::yield_now().await;
        }
        assert!(bodies.large.available_permits() >= pieces(LARGE_MAX) * 3 / 4);
        let other =
            bodies.read(request([192, 0, 2, 2], Body::from(vec![b'x'; 1 << 20])), 1 << 20).await;
        assert_eq!(other.map(|received| received.bytes.len()).unwrap_or(0), 1 << 20);
        // What was given up is given back.
        tokio::time::sleep(TIME_MAX * 2).await;
        assert_eq!(bodies.large.available_permits(), pieces(LARGE_MAX));
        assert_eq!(bodies.beginnings.available_permits(), pieces(BEGINNINGS_MAX));
        assert!(bodies.clients.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_read_on_before_it_is_refused() {
        let bodies = Bodies::new(1000);
        let refused =
            bodies.read(request([192, 0, 2, 1], Body::from(vec![b'x'; 100_000])), 1000).await;
        assert!(refused.is_err_and(|refusal| refusal == ApiError::too_large(1000)));
        assert!(bodies.clients.lock().unwrap().is_empty());
    }
}
