//! Databases and servers of MySQL and MariaDB for tests.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::process::free_port;

/// The database that tests of a server use.
const DATABASE: &str = "tide";

/// A MariaDB server with its data directory. It ends with the test.
pub struct Server {
    dir: tempfile::TempDir,
    pub port: u16,
    process: Mutex<Option<Child>>,
    options: Vec<String>,
}

/// Whether this user is root, which the server runs for only under another name.
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/usr/local/sbin", "/usr/bin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(usual).map(|p| p.join(name)).find(|p| p.exists())
}

/// An empty data directory with the database of the tests, made once per process.
fn template() -> Option<&'static Path> {
    static MADE: OnceLock<Option<tempfile::TempDir>> = OnceLock::new();
    let make = || {
        let (install, _) = (program("mariadb-install-db")?, program("mariadbd")?);
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let mut command = Command::new(install);
        command.arg("--no-defaults").arg(format!("--datadir={}", data.display())).args([
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            "--innodb-log-file-size=8M",
        ]);
        if is_root() {
            command.arg("--user=root");
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        std::fs::create_dir(data.join(DATABASE)).unwrap();
        Some(dir)
    };
    let made = MADE.get_or_init(make);
    assert!(
        made.is_some() || std::env::var_os("TIDEHOOK_TEST_ALL").is_none(),
        "this test needs MariaDB's own programs; run scripts/test.sh"
    );
    made.as_ref().map(tempfile::TempDir::path)
}

impl Server {
    /// Starts a durable server; `None` where MariaDB is not installed.
    pub fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// The same with options of its own. `{dir}` in them is its directory.
    pub fn start_with(options: &[&str]) -> Option<Self> {
        let server = Self::prepare(options)?;
        server.up();
        Some(server)
    }

    /// A server that is not running yet.
    pub fn prepare(options: &[&str]) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let copied =
            Command::new("cp").arg("-r").arg(template()?.join("data")).arg(dir.path()).status();
        assert!(copied.unwrap().success());
        let here = dir.path().display().to_string();
        let options = options.iter().map(|option| option.replace("{dir}", &here)).collect();
        Some(Self { dir, port: free_port(), process: Mutex::new(None), options })
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts it and waits until it answers.
    pub fn up(&self) {
        let dir = self.dir.path().display();
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join("out"))
            .unwrap();
        let mut command = Command::new(program("mariadbd").unwrap());
        command.arg("--no-defaults").args([
            format!("--datadir={dir}/data"),
            format!("--socket={dir}/socket"),
            format!("--pid-file={dir}/pid"),
            format!("--port={}", self.port),
            "--bind-address=127.0.0.1".to_owned(),
            "--skip-log-bin".to_owned(),
            "--innodb-log-file-size=8M".to_owned(),
            "--innodb-buffer-pool-size=64M".to_owned(),
            "--max-connections=100".to_owned(),
        ]);
        if is_root() {
            command.arg("--user=root");
        }
        command.args(&self.options);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        *self.process.lock().unwrap() = Some(command.spawn().unwrap());
        let began = Instant::now();
        while !self.log_since_start().contains("ready for connections") {
            assert!(began.elapsed() < Duration::from_secs(60), "{}", self.log_since_start());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What it has said since it was started last.
    fn log_since_start(&self) -> String {
        let log = std::fs::read_to_string(self.dir.path().join("out")).unwrap();
        log.rsplit("Starting MariaDB").next().unwrap_or("").to_owned()
    }

    fn end(&self, signal: Signal) {
        if let Some(mut process) = self.process.lock().unwrap().take() {
            let pid = i32::try_from(process.id()).ok().and_then(Pid::from_raw).unwrap();
            let _ = kill_process(pid, signal);
            process.wait().unwrap();
        }
    }

    /// Ends it in good order.
    pub fn stop(&self) {
        self.end(Signal::TERM);
    }

    /// Ends it as a crash would.
    pub fn crash(&self) {
        self.end(Signal::KILL);
    }

    pub fn url(&self) -> String {
        Self::url_through(self.port)
    }

    /// The URL of its database through another port.
    pub fn url_through(port: u16) -> String {
        format!("mysql://root@127.0.0.1:{port}/{DATABASE}")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.crash();
    }
}
