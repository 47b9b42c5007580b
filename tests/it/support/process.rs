//! The real binary, started and ended as an operator or a crash would.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::endpoint::PATIENCE;
use super::world::client;

/// A directory with a configuration, and the port it names.
pub struct Home {
    pub dir: tempfile::TempDir,
    pub port: u16,
}

/// A port nobody listens on at the moment.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Home {
    /// Writes a configuration; `{port}` and `{dir}` in it are filled in.
    pub fn new(config: &str) -> Self {
        let home = Self { dir: tempfile::tempdir().unwrap(), port: free_port() };
        home.write(config);
        home
    }

    pub fn write(&self, config: &str) {
        let text = config
            .replace("{port}", &self.port.to_string())
            .replace("{dir}", &self.dir.path().display().to_string());
        std::fs::write(self.path(), text).unwrap();
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("tidehook.yaml")
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Starts a server and waits until it is ready.
    pub async fn start(&self) -> Process {
        let process = self.spawn();
        until_ready(&self.url("/readyz")).await;
        process
    }

    /// Starts a server.
    pub fn spawn(&self) -> Process {
        self.spawn_as(&[])
    }

    /// Starts a server with further arguments.
    pub fn spawn_as(&self, arguments: &[&str]) -> Process {
        Process::spawn(&self.path(), &self.dir.path().join("log"), arguments)
    }

    /// What all its servers logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap()
    }
}

pub async fn until_ready(url: &str) {
    let http = client();
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if http.get(url).send().await.is_ok_and(|r| r.status().is_success()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{url} never became ready");
}

/// A running server. It ends with the test.
pub struct Process(Child);

pub fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_tidehook")
}

impl Process {
    pub fn spawn(config: &Path, log: &Path, arguments: &[&str]) -> Self {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        let mut command = Command::new(binary());
        command
            .args(["start", "--config"])
            .arg(config)
            .args(arguments)
            .env("RUST_LOG", "tidehook=info")
            .env_remove("DATABASE_URL");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Self(command.spawn().unwrap())
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    /// Ends it without warning.
    pub fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Asks it to end and waits; how it ended and how long that took.
    pub async fn stop(mut self) -> (ExitStatus, Duration) {
        let start = Instant::now();
        self.signal(Signal::TERM);
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return (status, start.elapsed());
            }
            assert!(start.elapsed() < PATIENCE, "it did not end");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until it ends by itself.
    pub async fn ended(mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "it did not end");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A stopped process is woken so that it can end; one that has ended is no matter.
        let _ = kill_process(Pid::from_child(&self.0), Signal::CONT);
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
