//! A TCP proxy that makes trouble on demand.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What it does to the connections through it.
#[derive(Default)]
pub struct Trouble {
    /// Milliseconds before each answer of the target is passed on.
    pub delay_ms: AtomicU64,
    /// Everything is taken and nothing is passed on.
    pub blackhole: AtomicBool,
    /// Of every so many statements and commits one is carried out and its answer is lost with the
    /// connection; 0 is never.
    lose_every: AtomicU64,
    /// How many answers may still be lost.
    losses_left: AtomicU64,
    asked: AtomicU64,
}

/// A running proxy.
pub struct Proxy {
    pub port: u16,
    pub trouble: Arc<Trouble>,
}

impl Proxy {
    pub async fn start(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let trouble = Arc::new(Trouble::default());
        let shared = Arc::clone(&trouble);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let trouble = Arc::clone(&shared);
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await {
                        pass(client, server, &trouble).await;
                    }
                });
            }
        });
        Self { port, trouble }
    }

    pub fn delay(&self, ms: u64) {
        self.trouble.delay_ms.store(ms, Ordering::SeqCst);
    }

    pub fn blackhole(&self, on: bool) {
        self.trouble.blackhole.store(on, Ordering::SeqCst);
    }

    /// Loses one of every `every` answers, `most` in all.
    pub fn lose_answers(&self, every: u64, most: u64) {
        self.trouble.losses_left.store(most, Ordering::SeqCst);
        self.trouble.lose_every.store(every, Ordering::SeqCst);
    }

    /// How many of them are still to be lost.
    pub fn losses_left(&self) -> u64 {
        self.trouble.losses_left.load(Ordering::SeqCst)
    }
}

impl Trouble {
    /// Whether the answer to these bytes of a client is to be lost. A statement of Postgres ends
    /// with Sync, one of MySQL begins with its command behind a header of four bytes, a commit is a
    /// simple query; all are carried out whatever becomes of the answer.
    fn loses(&self, sent: &[u8]) -> bool {
        const SYNC: &[u8] = b"S\0\0\0\x04";
        const EXECUTE: u8 = 0x17;
        let every = self.lose_every.load(Ordering::SeqCst);
        let executes = sent.get(3) == Some(&0) && sent.get(4) == Some(&EXECUTE);
        let asks = executes || sent.ends_with(SYNC) || sent.windows(6).any(|w| w == b"COMMIT");
        every > 0
            && asks
            && (self.asked.fetch_add(1, Ordering::SeqCst) + 1).is_multiple_of(every)
            && self
                .losses_left
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
                .is_ok()
    }
}

async fn pass(client: TcpStream, server: TcpStream, trouble: &Trouble) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let lost = AtomicBool::new(false);
    let up = async {
        let mut chunk = vec![0; 65536];
        while let Ok(n) = from_client.read(&mut chunk).await {
            if n == 0 {
                break;
            }
            while trouble.blackhole.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            if trouble.loses(&chunk[..n]) {
                lost.store(true, Ordering::SeqCst);
            }
            if to_server.write_all(&chunk[..n]).await.is_err() {
                break;
            }
        }
    };
    let down = async {
        let mut chunk = vec![0; 65536];
        while let Ok(n) = from_server.read(&mut chunk).await {
            let delay = trouble.delay_ms.load(Ordering::SeqCst);
            if delay > 0 {
                tokio::time::sleep(Duration::from_millis(delay)).await;
            }
            while trouble.blackhole.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            if n == 0
                || lost.load(Ordering::SeqCst)
                || to_client.write_all(&chunk[..n]).await.is_err()
            {
                break;
            }
        }
    };
    tokio::select! { () = up => {}, () = down => {} }
}
