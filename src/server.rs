//! The server: opens the store, serves requests, works on jobs, runs housekeeping, and shuts down
//! gracefully. Third floor.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::config::{Config, Driver};
use crate::decide::address::Author;
pub use crate::deliver::client::tls;
use crate::deliver::{Client, resolve, step};
use crate::engine::notices::DESTINATION;
use crate::engine::{Budget, Chance, Engine, Parts};
use crate::http::client::{OverSocket, Peer};
use crate::http::{State, probes_only, router};
use crate::model::{AwsIdentity, Roles, Secret, SystemClock, SystemIds};
use crate::observe::feed::Feed;
use crate::observe::metrics;
use crate::store::{self, Address, Store};
#[cfg(feature = "postgres")]
use crate::wake::postgres;
use crate::wake::{Wake, local::Local};

/// The URL of the embedded database when the configuration names none.
pub const DEFAULT_DATABASE: &str = "sqlite:tidehook.db?mode=rwc";
/// How long a start waits for a database that is unreachable.
const START_WAIT_MAX: Duration = Duration::from_secs(60);
/// The time between two runs of housekeeping.
const TICK_EVERY: Duration = Duration::from_secs(5);
/// How often a store that is unreachable or refuses writes is asked whether it is back.
const PROBE_EVERY: Duration = Duration::from_millis(500);
/// The time limit for the head of a request.
const HEAD_TIME_MAX: Duration = Duration::from_secs(10);
/// The largest request head, in bytes.
const HEAD_BYTES_MAX: usize = 128 * 1024;
/// The most headers of a request.
const HEADERS_MAX: usize = 100;
/// The most open connections; further ones wait to be accepted.
const CONNECTIONS_MAX: usize = 20_000;
/// The most connections that wait to be accepted; the system may hold fewer (`net.core.somaxconn`).
const BACKLOG: u32 = 4096;
/// The time limit of each last step of a shutdown: open requests, outcomes, jobs to return, the
/// store.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration asks for something that this version cannot run: its names.
    #[error("the configuration uses features that this version cannot run: {}; remove \
        them", .0.join(", "))]
    CannotRun(Vec<String>),
    /// The database cannot be opened, migrated or prepared.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The address cannot be listened on.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, std::io::Error),
    /// A resource of this machine cannot be used, such as its name resolution or its signals: a
    /// sentence.
    #[error("{0}")]
    Machine(String),
}

/// The URL of the configured database, or of an embedded one when the configuration names none.
///
/// # Errors
/// The configuration names a database server and not its URL. An embedded database in its place
/// would look like an empty server.
pub fn database_url(config: &Config) -> store::Result<Secret> {
    match (&config.database.url, config.database.lacks_url()) {
        (Some(url), _) => Ok(url.clone()),
        (None, Some(why)) => Err(store::Error::permanent(why)),
        (None, None) => Ok(Secret::new(DEFAULT_DATABASE)),
    }
}

/// Opens the configured store. It does not migrate it.
///
/// # Errors
/// Those of the store.
pub async fn open_store(config: &Config) -> store::Result<Arc<dyn Store>> {
    let address = Address::new(database_url(config)?, config.database.max_connections);
    store::connect(Address { pooler: config.database.pooler, iam: iam(config).await?, ..address })
        .await
}

/// The AWS identity that signs the passwords of the database; `None` unless `database.auth` is
/// `iam`.
///
/// # Errors
/// The environment names no identity, or this build is without AWS.
pub async fn iam(config: &Config) -> store::Result<Option<AwsIdentity>> {
    if !config.database.iam {
        return Ok(None);
    }
    let wrong = |why| store::Error::permanent(format!("`database.auth` is `iam`, but {why}"));
    crate::environment::identity().await.map(Some).map_err(wrong)
}

/// Opens the store for a migration: at `TIDEHOOK_MIGRATE_URL` if that is set, so that migrations
/// can go past a pooler.
///
/// # Errors
/// Those of the store.
pub async fn open_store_to_migrate(config: &Config) -> store::Result<Arc<dyn Store>> {
    match crate::environment::resolved("MIGRATE_URL").map_err(store::Error::permanent)? {
        Some(url) => {
            store::connect(Address { iam: iam(config).await?, ..Address::new(Secret::new(url), 1) })
                .await
        }
        None => open_store(config).await,
    }
}

/// Builds an engine over an open store.
///
/// # Errors
/// The name resolution or the certificates of this machine cannot be used.
pub fn engine(
    config: Arc<Config>,
    store: Arc<dyn Store>,
    wake: Arc<dyn Wake>,
) -> Result<Engine, StartError> {
    let resolver = resolve::system().map_err(StartError::Machine)?;
    let destinations =
        config.handlers.iter().map(|h| (h.name.clone(), h.policy.clone(), Author::Operator));
    let steps = (step::DESTINATION.to_owned(), config.server.policy.clone(), Author::Operator);
    let foreign = (step::FOREIGN.to_owned(), config.server.policy.clone(), Author::Stranger);
    let alerts = (DESTINATION.to_owned(), config.server.policy.clone(), Author::Operator);
    let destinations = destinations.chain([steps, foreign, alerts]);
    let deliver = Client::new(destinations, &resolver).map_err(StartError::Machine)?;
    Ok(Engine::new(Parts {
        store,
        deliver: Arc::new(deliver),
        wake,
        clock: Arc::new(SystemClock),
        ids: Arc::new(SystemIds::default()),
        chance: Chance::system(),
        config,
        feed: Feed::default(),
    }))
}

/// A running server: the listener, the worker and the housekeeping loop. It ends with
/// [`Server::stop`].
pub struct Server {
    engine: Engine,
    address: SocketAddr,
    serving: JoinHandle<()>,
    stop_serving: CancellationToken,
    working: JoinHandle<()>,
    keeping: JoinHandle<()>,
}

impl Server {
    /// Starts a server: listens, opens and migrates the store, then works.
    ///
    /// # Errors
    /// Why it did not start; nothing is left running.
    pub async fn start(config: Config, roles: Roles) -> Result<Self, StartError> {
        if roles.is_partial() && is_embedded(&config) {
            return Err(StartError::Machine(format!(
                "the roles {roles} alone need other processes for the rest, and an embedded \
                 database can be used by one process only: use Postgres or MySQL, or all roles"
            )));
        }
        let cannot = config.cannot_run();
        if !cannot.is_empty() {
            return Err(StartError::CannotRun(cannot));
        }
        let at = SocketAddr::new(config.server.bind, config.server.port);
        let listener = listen(at).map_err(|e| StartError::Listen(at, e))?;
        Self::start_on(listener, config, roles).await
    }

    /// Starts a server on a listener that is open already.
    ///
    /// # Errors
    /// As [`Server::start`], without those of listening.
    pub async fn start_on(
        listener: TcpListener,
        config: Config,
        roles: Roles,
    ) -> Result<Self, StartError> {
        init_metrics(&config);
        let config = Arc::new(config);
        let wake = wake(&config)?;
        let engine = engine(Arc::clone(&config), open_store(&config).await?, wake)?;

        // Requests are answered from the first moment: with 503 until the store is ready.
        let address = listener.local_addr().map_err(|e| {
            StartError::Machine(format!("the address of the listener cannot be read: {e}"))
        })?;
        let stop_serving = CancellationToken::new();
        let state = State::new(engine.clone());
        let routes = if roles.ingress { router(state) } else { probes_only(state) };
        let serving = tokio::spawn(serve(listener, routes, stop_serving.clone()));
        let stop_if_dropped = stop_serving.clone().drop_guard();
        get_ready(&engine).await?;
        stop_if_dropped.disarm();
        let budget = Budget::endless(config.worker.concurrency);
        let working = tokio::spawn({
            let engine = engine.clone();
            async move {
                match roles.worker {
                    true => engine.work_until_drained(budget).await,
                    false => engine.draining().await,
                }
            }
        });
        let keeping = tokio::spawn(keep(engine.clone(), roles.ticker));
        Ok(Self { engine, address, serving, stop_serving, working, keeping })
    }

    /// The address that it listens on, with the real port where the configuration asks for port 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The engine behind the routes, for callers in the same process.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Shuts down gracefully: claims no further jobs, waits up to `worker.drain_timeout_secs` for
    /// deliveries in flight, then cuts them off and returns their jobs.
    ///
    /// `hurry` ends the wait for deliveries early.
    pub async fn stop(self, hurry: impl Future<Output = ()>) {
        let drain = self.engine.config().worker.drain;
        self.engine.drain();
        let mut working = self.working;
        tokio::select! {
            _ = &mut working => {}
            () = async { tokio::select! {
                () = tokio::time::sleep(drain) => {}, () = hurry => {},
            } } => {
                tracing::info!("Deliveries still in flight are aborted and recorded as \
                    interrupted.");
                self.engine.abort();
                if tokio::time::timeout(GOODBYE_MAX, &mut working).await.is_err() {
                    tracing::warn!("Some outcomes could not be recorded before shutdown. Their \
                        leases expire, and the interrupted attempts are recorded then.");
                    working.abort();
                }
            }
        }
        self.engine.close();
        self.stop_serving.cancel();
        if tokio::time::timeout(GOODBYE_MAX, self.serving).await.is_err() {
            tracing::debug!("Some requests were still open at shutdown.");
        }
        self.keeping.abort();
        // Requests that were still open may have handed something over.
        let _ = tokio::time::timeout(GOODBYE_MAX, self.engine.return_unstarted()).await;
        if let Err(error) = self.engine.flush().await {
            tracing::debug!(%error, "The last counts of refused requests could not be stored.");
        }
        let _ = tokio::time::timeout(GOODBYE_MAX, self.engine.store().close()).await;
    }
}

/// Listens with a backlog for bursts of new connections, because one loop accepts them all.
fn listen(at: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if at.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(at)?;
    socket.listen(BACKLOG)
}

/// Migrates and prepares the store; waits up to a minute for one that is unreachable.
async fn get_ready(engine: &Engine) -> Result<(), StartError> {
    let start = Instant::now();
    let only_process = is_embedded(engine.config());
    let mut told = None;
    loop {
        let ready = async {
            engine.store().migrate().await?;
            let weaknesses = engine.store().weaknesses().await?;
            engine.prepare(only_process).await.map(|()| weaknesses)
        };
        match ready.await {
            Ok(weaknesses) => {
                weaknesses.iter().for_each(|weakness| tracing::warn!("{weakness}"));
                return Ok(());
            }
            Err(error) if error.is_passing() && start.elapsed() < START_WAIT_MAX => {
                // Once for each reason: whoever waits a minute need not read it sixty times.
                if told.as_ref() != Some(&error) {
                    tracing::warn!(%error, "The database is not available yet. Startup retries \
                        every second for up to one minute.");
                    told = Some(error);
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// The housekeeping loop, which a process without the role `ticker` leaves to others. While the
/// store is unreachable or refuses writes, it probes it instead.
async fn keep(engine: Engine, ticks_too: bool) {
    let nothing = Budget::NONE;
    let mut ticks = tokio::time::interval(TICK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut is_told = false;
    loop {
        if !engine.health().is_up() || engine.health().no_writes().is_some() {
            if !std::mem::replace(&mut is_told, true) {
                let engine = engine.clone();
                tokio::spawn(async move { engine.tell_database_unhealthy().await });
            }
            tokio::time::sleep(PROBE_EVERY).await;
            if engine.write_check().await.is_ok() {
                engine.wake().await;
            }
            continue;
        }
        is_told = false;
        tokio::select! {
            _ = ticks.tick(), if ticks_too => {
                if let Err(error) = engine.health().learn(engine.tick(nothing).await) {
                    tracing::debug!(%error, "Housekeeping failed. The next tick tries again.");
                }
                if let Err(error) = engine.health().learn(engine.watch_lanes().await) {
                    tracing::debug!(%error, "The lanes could not be checked. The next tick tries \
                        again.");
                }
            }
            () = tokio::time::sleep(PROBE_EVERY) => {}
        }
    }
}

/// How workers of other processes are woken. On Postgres by a message; elsewhere they look for work
/// themselves, and so they do behind a pooler and with passwords of a quarter of an hour: what
/// listens keeps a connection and its session.
fn wake(config: &Config) -> Result<Arc<dyn Wake>, StartError> {
    #[cfg(feature = "postgres")]
    if config.database.driver == Driver::Postgres
        && !config.database.pooler.is_there()
        && !config.database.iam
    {
        let started = postgres::Postgres::start(&database_url(config)?);
        return Ok(Arc::new(started.map_err(StartError::Machine)?));
    }
    let _ = config;
    Ok(Arc::new(Local::default()))
}

/// Starts the metrics of this process, with counters of what is configured at 0.
pub fn init_metrics(config: &Config) {
    metrics::start();
    let sources: Vec<_> =
        config.sources.iter().map(|s| (s.name.as_str(), s.verify.is_some())).collect();
    let steps = config.workflows.iter().flat_map(|w| {
        let calls = w.flow.steps.iter().filter(|step| step.kind.name() == "http");
        calls.map(|step| format!("{}/{}", w.name, step.name))
    });
    let handlers: Vec<String> =
        config.handlers.iter().map(|h| h.name.clone()).chain(steps).collect();
    let workflows: Vec<_> = config.workflows.iter().map(|w| w.name.as_str()).collect();
    let queues: Vec<_> = config.queues.iter().map(|q| q.name.as_str()).collect();
    metrics::init_counters(metrics::Expected {
        sources: &sources,
        handlers: &handlers,
        queues: &queues,
        workflows: &workflows,
    });
}

/// Accepts connections until `stop` is cancelled, then waits for open requests.
async fn serve(listener: TcpListener, routes: Router, stop: CancellationToken) {
    let (graceful, slots) = (GracefulShutdown::new(), Arc::new(Semaphore::new(CONNECTIONS_MAX)));
    loop {
        let accepted = async {
            // The permit comes first: beyond the cap, connections wait in the system's queue.
            let permit = Arc::clone(&slots).acquire_owned().await.ok()?;
            Some((listener.accept().await, permit))
        };
        let accepted = tokio::select! {
            accepted = accepted => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Some((Ok((stream, peer)), permit)) => {
                let _ = stream.set_nodelay(true);
                tokio::spawn(connection(stream, peer, routes.clone(), &graceful, permit));
            }
            Some((Err(error), _)) => {
                // Out of file descriptors, mostly: it passes when connections end.
                tracing::warn!(%error, "An incoming connection could not be accepted.");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            None => break,
        }
    }
    drop(listener);
    graceful.shutdown().await;
}

/// Serves one connection with HTTP/1.1 only; a proxy in front of it may speak other versions.
fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    routes: Router,
    graceful: &GracefulShutdown,
    permit: OwnedSemaphorePermit,
) -> impl Future<Output = ()> + Send + 'static {
    let service = routes.map_request(move |mut request: http::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        request.extensions_mut().insert(OverSocket);
        request
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    let watched = graceful.watch(connection);
    async move {
        let _permit = permit;
        if let Err(error) = watched.await {
            tracing::trace!(%error, "A connection ended early.");
        }
    }
}

/// Whether the configured database is embedded: a file that one process at a time uses.
pub fn is_embedded(config: &Config) -> bool {
    config.database.driver == Driver::Sqlite
}
