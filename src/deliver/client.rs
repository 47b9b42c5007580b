//! The HTTP client of deliveries and steps: one deadline for the whole exchange, a capped response,
//! no redirects, no proxy and no hidden retries except one (a kept connection that the receiver had
//! closed).

use std::collections::HashMap;
use std::error::Error as _;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::BytesMut;
use hickory_resolver::TokioResolver;
use hyper_util::client::legacy::connect::{Connection, HttpInfo};
use tower::Service;
use url::Host;

use super::Deliver;
use super::resolve::{Blocked, GuardedResolver, NoAddress};
use crate::decide::address::{Author, Policy};
use crate::model::request::Progress;
use crate::model::{CallPhase, Cut, Failure, Method, Outcome, Request, Response};

/// How much of a response body is read for a delivery.
pub const RESPONSE_BYTES_MAX: usize = 64 * 1024;
/// How much of a response body is read for a step of a workflow, whose response is data.
pub const STEP_RESPONSE_BYTES_MAX: usize = 1024 * 1024;
/// How much of a `Location`, `Retry-After` or `Content-Type` header is looked at.
const HEADER_BYTES_MAX: usize = 1024;
/// A response with more headers than this breaks the exchange.
const HEADERS_MAX: usize = 100;
/// How long an unused connection is kept.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// Sends requests under the address rules of their destinations.
pub struct Client {
    by_destination: HashMap<String, Arc<ConnectionRules>>,
}

struct ConnectionRules {
    policy: Arc<Policy>,
    author: Author,
    http: reqwest::Client,
    /// The same client without kept connections, for a request that is sent again.
    fresh: reqwest::Client,
}

impl Client {
    /// A client for these destinations. Those with the same rules share connections.
    ///
    /// # Errors
    /// The TLS set-up of this machine cannot be used.
    pub fn new(
        destinations: impl IntoIterator<Item = (String, Policy, Author)>,
        resolver: &TokioResolver,
    ) -> Result<Self, String> {
        let tls = tls()?;
        let mut all: Vec<Arc<ConnectionRules>> = Vec::new();
        let mut by_destination = HashMap::new();
        for (destination, policy, author) in destinations {
            let known = all.iter().find(|r| *r.policy == policy && r.author == author).cloned();
            let rules = match known {
                Some(rules) => rules,
                None => {
                    let rules =
                        Arc::new(ConnectionRules::new(policy, author, resolver, tls.clone())?);
                    all.push(Arc::clone(&rules));
                    rules
                }
            };
            by_destination.insert(destination, rules);
        }
        Ok(Self { by_destination })
    }
}

/// TLS with the system's root certificates, or Mozilla's if the system has none. The roots are read
/// once: there are many, and a function has several clients and little time to start.
///
/// # Errors
/// TLS cannot be set up.
pub fn tls() -> Result<rustls::ClientConfig, String> {
    static TLS: LazyLock<Result<rustls::ClientConfig, String>> = LazyLock::new(read_tls);
    TLS.clone()
}

fn read_tls() -> Result<rustls::ClientConfig, String> {
    let mut roots = rustls::RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    for error in &native.errors {
        tracing::debug!(%error, "A CA certificate of the system cannot be read.");
    }
    roots.add_parsable_certificates(native.certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| format!("TLS cannot be initialized: {e}"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

impl ConnectionRules {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one client of deliveries, with every address guarded"
    )]
    fn new(
        policy: Policy,
        author: Author,
        resolver: &TokioResolver,
        tls: rustls::ClientConfig,
    ) -> Result<Self, String> {
        let policy = Arc::new(policy);
        let guarded =
            GuardedResolver { resolver: resolver.clone(), policy: Arc::clone(&policy), author };
        let watched = Arc::clone(&policy);
        let builder = |kept: usize| {
            let (guarded, watched, tls) = (guarded.clone(), Arc::clone(&watched), tls.clone());
            reqwest::Client::builder()
                .pool_max_idle_per_host(kept)
                .tls_backend_preconfigured(tls)
                .redirect(reqwest::redirect::Policy::none())
                .retry(reqwest::retry::never())
                .no_proxy()
                .referer(false)
                .dns_resolver(guarded)
                .connector_layer(tower::layer::layer_fn(move |inner| Watch {
                    inner,
                    policy: Arc::clone(&watched),
                }))
                .http1_max_headers(HEADERS_MAX)
                .pool_idle_timeout(IDLE_MAX)
                .tcp_nodelay(true)
                .user_agent(concat!("tidehook/", env!("CARGO_PKG_VERSION")))
                .build()
                .map_err(|e| format!("the HTTP client cannot be created: {e}"))
        };
        let (http, fresh) = (builder(usize::MAX)?, builder(0)?);
        Ok(Self { policy, author, http, fresh })
    }

    /// Applies the address rules to a URL that holds a literal address, since no resolver is asked
    /// about it.
    fn judge_literal(&self, request: &Request) -> Result<(), Failure> {
        let host = request.url.host_str().unwrap_or("the URL");
        self.policy
            .judge_url(&request.url)
            .map_err(|why| Failure::Blocked(format!("{host}: {why}")))?;
        let address = match request.url.host() {
            Some(Host::Ipv4(v4)) => IpAddr::V4(v4),
            Some(Host::Ipv6(v6)) => IpAddr::V6(v6),
            _ => return Ok(()),
        };
        self.policy.judge(self.author, &address.to_string(), address).map_err(Failure::Blocked)
    }

    async fn exchange(&self, request: Request) -> Result<Response, Failure> {
        let method = match request.method {
            Method::Get => reqwest::Method::GET,
            Method::Post => reqwest::Method::POST,
            Method::Put => reqwest::Method::PUT,
            Method::Patch => reqwest::Method::PATCH,
            Method::Delete => reqwest::Method::DELETE,
        };
        let mut headers = http::HeaderMap::with_capacity(request.headers.len());
        for (name, value) in &request.headers {
            let unfit = || {
                Failure::Compose(format!(
                    "the header `{}` has an invalid name or value",
                    name.escape_debug()
                ))
            };
            let name = http::HeaderName::from_bytes(name.as_bytes()).map_err(|_| unfit())?;
            headers.insert(name, http::HeaderValue::from_str(value).map_err(|_| unfit())?);
        }
        let cap = request.response_bytes_max;
        let build = |client: &reqwest::Client| {
            let builder =
                client.request(method.clone(), request.url.clone()).headers(headers.clone());
            if request.method == Method::Get { builder } else { builder.body(request.body.clone()) }
        };
        let (sent, resent) = match build(&self.http).send().await {
            // A kept connection that its receiver closed before it answered: nearly always it had
            // closed it before this request came. Where it had not, it gets the request twice, with
            // the same ids; the attempt says so.
            Err(error) if !request.at_most_once && !has_connected() && died_unanswered(&error) => {
                (build(&self.fresh).send().await, true)
            }
            sent => (sent, false),
        };
        let response = sent
            .map_err(|error| if resent { failure(error).sent_twice() } else { failure(error) })?;
        set_phase(CallPhase::Body);
        Ok(Response { resent, ..read(response, cap).await })
    }
}

#[async_trait]
impl Deliver for Client {
    async fn send(&self, request: Request) -> Outcome {
        let Some(rules) = self.by_destination.get(&request.destination) else {
            return Outcome::Failed(Failure::Compose(format!(
                "unknown destination `{}`",
                request.destination
            )));
        };
        if let Err(refused) = rules.judge_literal(&request) {
            return Outcome::Failed(refused);
        }
        let (progress, deadline) = (request.progress.clone(), request.timeout);
        let exchange = CONNECTED
            .scope(Arc::default(), PROGRESS.scope(progress.clone(), rules.exchange(request)));
        match tokio::time::timeout(deadline, exchange).await {
            Ok(Ok(response)) => Outcome::Answered(response),
            Ok(Err(failure)) => Outcome::Failed(failure),
            Err(_) => Outcome::Failed(Failure::Timeout(progress.phase())),
        }
    }
}

/// Reads the body up to the cap. The status has arrived and counts, even if the body is cut or
/// breaks off. Only the deadline can still turn this into a failure.
async fn read(mut response: reqwest::Response, cap: usize) -> Response {
    let text = |name: &str| {
        let value = response.headers().get(name)?;
        let bytes = value.as_bytes();
        Some(String::from_utf8_lossy(&bytes[..bytes.len().min(HEADER_BYTES_MAX)]).into_owned())
    };
    let (retry_after, content_type) = (text("retry-after"), text("content-type"));
    let location = text("location").map(|target| shown_target(&target));
    let status = response.status().as_u16();
    let mut body = BytesMut::new();
    let mut cut = None;
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => {
                let room = cap.saturating_sub(body.len());
                body.extend_from_slice(&chunk[..chunk.len().min(room)]);
                if chunk.len() > room {
                    cut = Some(Cut::AtCap);
                    break;
                }
            }
            Ok(None) => break,
            Err(_) => {
                cut = Some(Cut::BrokeOff);
                break;
            }
        }
    }
    Response { cut, retry_after, location, content_type, ..Response::of(status, body) }
}

/// Where a redirect leads, for people: the origin alone. The rest often repeats the URL that was
/// called, which may hold a secret.
fn shown_target(target: &str) -> String {
    match url::Url::parse(target) {
        Ok(url) if url.has_host() => format!("{}/…", url.origin().ascii_serialization()),
        _ => "a different path on the same host".to_owned(),
    }
}

/// Translates an error of the HTTP client into a failure.
fn failure(error: reqwest::Error) -> Failure {
    let mut is_tls = false;
    let mut deepest = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(blocked) = cause.downcast_ref::<Blocked>() {
            return Failure::Blocked(blocked.0.clone());
        }
        if let Some(none) = cause.downcast_ref::<NoAddress>() {
            return Failure::Dns(none.0.clone());
        }
        is_tls = is_tls || holds_tls(cause);
        deepest = cause.to_string();
        source = cause.source();
    }
    match () {
        () if is_tls => Failure::Tls(deepest),
        () if error.is_connect() => Failure::Connect(deepest),
        () if error.is_builder() => Failure::Compose(deepest),
        () => Failure::Protocol(deepest),
    }
}

/// Whether an error comes from TLS. Such errors travel inside I/O errors and must be unwrapped. A
/// connection that ends during the handshake gives no TLS error; it is recognized by its text.
fn holds_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    if error.is::<rustls::Error>() {
        return true;
    }
    if error.is::<std::io::Error>() && error.to_string() == "tls handshake eof" {
        return true;
    }
    let held = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    held.is_some_and(|held| holds_tls(held))
}

/// Whether a connection ended before the head of a response arrived.
fn died_unanswered(error: &reqwest::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let mut source = error.source();
    while let Some(cause) = source {
        let is_closed = cause
            .downcast_ref::<hyper::Error>()
            .is_some_and(|e| e.is_incomplete_message() || e.is_closed() || e.is_canceled());
        let is_reset = cause.downcast_ref::<std::io::Error>().is_some_and(|e| {
            matches!(e.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
        });
        if is_closed || is_reset {
            return true;
        }
        source = cause.source();
    }
    false
}

/// Whether this exchange has opened a new connection.
fn has_connected() -> bool {
    CONNECTED.try_with(|cell| cell.load(Ordering::Relaxed)).unwrap_or(true)
}

tokio::task_local! {
    /// Whether the exchange of this task has opened a connection.
    static CONNECTED: Arc<AtomicBool>;
    /// How far this task's exchange has come.
    static PROGRESS: Progress;
}

fn set_phase(phase: CallPhase) {
    // A connection that was made for someone else finishes outside of any exchange.
    let _ = PROGRESS.try_with(|progress| progress.set(phase));
}

/// Watches connections being opened. It reports the phase, and checks the peer's address before
/// anything is written.
#[derive(Clone)]
struct Watch<S> {
    inner: S,
    policy: Arc<Policy>,
}

impl<S, R> Service<R> for Watch<S>
where
    S: Service<R>,
    S::Response: Connection + Send,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: R) -> Self::Future {
        set_phase(CallPhase::Connect);
        let _ = CONNECTED.try_with(|cell| cell.store(true, Ordering::Relaxed));
        let connecting = self.inner.call(request);
        let policy = Arc::clone(&self.policy);
        Box::pin(async move {
            let connection = connecting.await.map_err(Into::into)?;
            second_net(&connection, &policy)?;
            set_phase(CallPhase::Headers);
            Ok(connection)
        })
    }
}

/// Refuses a connection to a link-local or metadata address once more, by the address that the
/// socket reports. The addresses were judged before they were dialled.
fn second_net(connection: &impl Connection, policy: &Policy) -> Result<(), Blocked> {
    let mut extensions = http::Extensions::new();
    connection.connected().get_extras(&mut extensions);
    let Some(peer) = extensions.get::<HttpInfo>().map(|info| info.remote_addr().ip()) else {
        return Ok(());
    };
    match crate::decide::address::kind(peer) {
        crate::decide::address::AddressClass::Special(what) if !policy.networks.contains(peer) => {
            Err(Blocked(format!("the connection leads to {peer}, a {what} address")))
        }
        _ => Ok(()),
    }
}
