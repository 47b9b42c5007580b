//! Wake-ups between processes on one Postgres, by `LISTEN` and `NOTIFY`. They are sent outside the
//! store's transactions and debounced, so that a burst of events costs one message.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
    outbox: Arc<Outbox>,
    /// Another process has announced messages.
    messages: Arc<Notify>,
    _ends_tasks: DropGuard,
}

/// What is to be told to other processes.
#[derive(Default)]
struct Outbox {
    filled: Notify,
    work: AtomicBool,
    messages: AtomicBool,
}

impl Outbox {
    fn put(&self, what: &AtomicBool) {
        what.store(true, Ordering::Release);
        self.filled.notify_one();
    }
}

/// Which of two kinds a message announces. It follows the sender's name.
const WORK: &str = " work";
const MESSAGES: &str = " messages";

impl Postgres {
    /// Starts listening and sending in the background. An unreachable database is tried again.
    ///
    /// # Errors
    /// The URL cannot be read.
    pub fn start(url: &Secret) -> Result<Self, String> {
        let options: PgConnectOptions =
            url.expose().parse().map_err(|e| format!("the Postgres URL is invalid: {e}"))?;
        let options = options.application_name("tidehook wake");
        let (local, outbox, messages) =
            (Arc::new(Local::default()), Arc::new(Outbox::default()), Arc::new(Notify::new()));
        let stop = CancellationToken::new();
        // Not the process id: in containers it is the same everywhere.
        let us = SystemIds::default().next().to_string();
        let heard = (Arc::clone(&local), Arc::clone(&messages));
        let listening = listen(options.clone(), heard, us.clone());
        let telling = tell(options, Arc::clone(&outbox), us);
        tokio::spawn(
            stop.clone().run_until_cancelled_owned(async move { tokio::join!(listening, telling) }),
        );
        Ok(Self { local, outbox, messages, _ends_tasks: stop.drop_guard() })
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

async fn listen(options: PgConnectOptions, heard: (Arc<Local>, Arc<Notify>), us: String) {
    loop {
        if let Err(error) = listen_once(&options, &heard, &us).await {
            tracing::debug!(%error, "The connection that listens for wake-ups (LISTEN) is down. \
                Workers poll for due work.");
        }
        tokio::time::sleep(RECONNECT).await;
    }
}

async fn listen_once(
    options: &PgConnectOptions,
    (local, messages): &(Arc<Local>, Arc<Notify>),
    us: &str,
) -> sqlx::Result<()> {
    let mut listener = PgListener::connect_with(&pool(options.clone())).await?;
    listener.listen(CHANNEL).await?;
    loop {
        // `None`: the connection was lost and made anew; something may have been missed meanwhile.
        match listener.try_recv().await? {
            Some(message) if message.payload().starts_with(us) => {}
            Some(message) if message.payload().ends_with(MESSAGES) => messages.notify_one(),
            Some(_) => local.look(),
            None => {
                local.look();
                messages.notify_one();
            }
        }
    }
}

async fn tell(options: PgConnectOptions, outbox: Arc<Outbox>, us: String) {
    let pool = pool(options);
    loop {
        outbox.filled.notified().await;
        for (what, kind) in [(&outbox.work, WORK), (&outbox.messages, MESSAGES)] {
            if !what.swap(false, Ordering::AcqRel) {
                continue;
            }
            let notify = sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL);
            if let Err(error) = notify.bind(format!("{us}{kind}")).execute(&pool).await {
                tracing::debug!(%error, "A wake-up (NOTIFY) could not be sent. Other processes \
                    poll for due work.");
            }
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
            self.outbox.put(&self.outbox.work);
        }
    }

    async fn woken(&self, at_most: Duration) {
        self.local.woken(at_most).await;
    }

    async fn messages_arrived(&self) {
        self.outbox.put(&self.outbox.messages);
    }

    async fn messages_elsewhere(&self) {
        self.messages.notified().await;
    }
}
