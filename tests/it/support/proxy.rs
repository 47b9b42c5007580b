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
    /// Every so many commits, the commit happens and its answer is lost with the connection; 0 is never.
    pub drop_commit_every: AtomicU64,
    commits: AtomicU64,
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

    pub fn drop_commit_every(&self, n: u64) {
        self.trouble.drop_commit_every.store(n, Ordering::SeqCst);
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
            let every = trouble.drop_commit_every.load(Ordering::SeqCst);
            let is_commit = chunk[..n].windows(6).any(|w| w == b"COMMIT");
            if every > 0 && is_commit && (trouble.commits.fetch_add(1, Ordering::SeqCst) + 1).is_multiple_of(every) {
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
            if n == 0 || lost.load(Ordering::SeqCst) || to_client.write_all(&chunk[..n]).await.is_err() {
                break;
            }
        }
    };
    tokio::select! { () = up => {}, () = down => {} }
}
