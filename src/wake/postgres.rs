//! Wake-ups between processes on one Postgres, by `LISTEN` and `NOTIFY`. They are sent outside the
//! store's transactions and debounced, so that a burst of events costs one message.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::sync::DropGuard;

use super::{Wake, Wakeup, local::Local};
use crate::model::{Ids, Secret, SystemIds};

/// The channel of `NOTIFY`. All processes on one database share it, so the payload names the
/// sender.
const CHANNEL: &str = "tidehook";
/// At most one message is sent in this time.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// How long to wait before connecting again.
const RECONNECT: Duration = Duration::from_secs(1);

/// Wakes this process at once, and the others by a message.
pub struct Postgres {
    local: Arc<Local>,
    outbox: Arc<Notify>,
    _ends_tasks: DropGuard,
}

impl Postgres {
    /// Starts listening and sending in the background. An unreachable database is tried again.
    ///
    /// # Errors
    /// The URL cannot be read.
    pub fn start(url: &Secret) -> Result<Self, String> {
        let options: PgConnectOptions =
            url.expose().parse().map_err(|e| format!("the Postgres URL is invalid: {e}"))?;
        let options = options.application_name("tidehook wake");
        let (local, outbox, stop) =
            (Arc::new(Local::default()), Arc::new(Notify::new()), CancellationToken::new());
        // Not the process id: in containers it is the same everywhere.
        let us = SystemIds::default().next().to_string();
        let listening = listen(options.clone(), Arc::clone(&local), us.clone());
        let telling = tell(options, Arc::clone(&outbox), us);
        tokio::spawn(
            stop.clone().run_until_cancelled_owned(async move { tokio::join!(listening, telling) }),
        );
        Ok(Self { local, outbox, _ends_tasks: stop.drop_guard() })
    }
}

/// A pool of one connection, separate from the store's.
fn pool(options: PgConnectOptions) -> sqlx::PgPool {
    PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(RECONNECT)
        .idle_timeout(None)
        .connect_lazy_with(options)
}

async fn listen(options: PgConnectOptions, local: Arc<Local>, us: String) {
    loop {
        if let Err(error) = listen_once(&options, &local, &us).await {
            tracing::debug!(%error, "The connection that listens for wake-ups (LISTEN) is down. \
                Workers poll for due work.");
        }
        tokio::time::sleep(RECONNECT).await;
    }
}

async fn listen_once(options: &PgConnectOptions, local: &Local, us: &str) -> sqlx::Result<()> {
    let mut listener = PgListener::connect_with(&pool(options.clone())).await?;
    listener.listen(CHANNEL).await?;
    loop {
        // `None`: the connection was lost and made anew; something may have been missed meanwhile.
        match listener.try_recv().await? {
            Some(message) if message.payload() == us => {}
            Some(_) | None => local.look(),
        }
    }
}

async fn tell(options: PgConnectOptions, outbox: Arc<Notify>, us: String) {
    let pool = pool(options);
    loop {
        outbox.notified().await;
        let told =
            sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(&us).execute(&pool).await;
        if let Err(error) = told {
            tracing::debug!(%error, "A wake-up (NOTIFY) could not be sent. Other processes poll \
                for due work.");
        }
        tokio::time::sleep(DEBOUNCE).await;
    }
}

#[async_trait]
impl Wake for Postgres {
    async fn wake(&self, due: &[Wakeup]) {
        self.local.wake(due).await;
        // What is due later is found by the others' own looks.
        if due.iter().any(|wakeup| wakeup.after.is_zero()) {
            self.outbox.notify_one();
        }
    }

    async fn woken(&self, at_most: Duration) {
        self.local.woken(at_most).await;
    }
}
