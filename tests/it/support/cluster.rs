//! A database server of the test's own, to be stopped and started at will.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::mariadb::Server as Mariadb;
use super::process::free_port;

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Brand {
    Postgres,
    Mariadb,
}

/// Held by tests under a load that takes a whole processor: two of them at once would measure each
/// other.
pub static LOAD: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Makes a test per brand of each named function, with a server of its own.
macro_rules! on_each_server {
    ($($name:ident),* $(,)?) => {$(
        mod $name {
            use crate::support::cluster::{Brand, Server};

            #[tokio::test(flavor = "multi_thread")]
            async fn postgres() {
                if let Some(server) = Server::start(Brand::Postgres) {
                    super::$name(server).await;
                }
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn mariadb() {
                if let Some(server) = Server::start(Brand::Mariadb) {
                    super::$name(server).await;
                }
            }
        }
    )*};
}
pub(crate) use on_each_server;

/// A server of either brand. It ends with the test.
pub enum Server {
    Postgres(Cluster),
    Mariadb(Mariadb),
}

impl Server {
    /// Starts a durable server; `None` where its programs are not installed, which is a failure
    /// when all tests are asked for.
    pub fn start(brand: Brand) -> Option<Self> {
        Some(match brand {
            Brand::Postgres => Self::Postgres(Cluster::start()?),
            Brand::Mariadb => Self::Mariadb(Mariadb::start()?),
        })
    }

    pub fn port(&self) -> u16 {
        match self {
            Self::Postgres(cluster) => cluster.port,
            Self::Mariadb(server) => server.port,
        }
    }

    pub fn up(&self) {
        match self {
            Self::Postgres(cluster) => cluster.up(),
            Self::Mariadb(server) => server.up(),
        }
    }

    /// Ends it in good order.
    pub fn stop(&self) {
        match self {
            Self::Postgres(cluster) => cluster.down("fast"),
            Self::Mariadb(server) => server.stop(),
        }
    }

    /// Ends it as a crash would.
    pub fn crash(&self) {
        match self {
            Self::Postgres(cluster) => cluster.down("immediate"),
            Self::Mariadb(server) => server.crash(),
        }
    }

    pub fn url(&self) -> String {
        self.url_through(self.port())
    }

    /// The URL of its database through another port.
    pub fn url_through(&self, port: u16) -> String {
        match self {
            Self::Postgres(cluster) => cluster.url_through(port),
            Self::Mariadb(_) => Mariadb::url_through(port),
        }
    }
}

/// A Postgres server with its data directory. It ends with the test.
pub struct Cluster {
    bin: PathBuf,
    dir: tempfile::TempDir,
    pub port: u16,
    user: Option<&'static str>,
}

fn binaries() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> =
        std::env::split_paths(&path).filter_map(|p| p.join("initdb").canonicalize().ok()).collect();
    places.iter_mut().for_each(|p| {
        p.pop();
    });
    if let Ok(versions) = std::fs::read_dir("/usr/lib/postgresql") {
        places.extend(versions.filter_map(|v| Some(v.ok()?.path().join("bin"))));
    }
    places.into_iter().find(|p| p.join("initdb").exists() && p.join("postgres").exists())
}

impl Cluster {
    /// Starts a durable server; `None` where Postgres is not installed, which is a failure when all
    /// tests are asked for.
    pub fn start() -> Option<Self> {
        let Some(bin) = binaries() else {
            assert!(
                std::env::var_os("TIDEHOOK_TEST_ALL").is_none(),
                "this test needs Postgres's own programs"
            );
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let user = rustix::process::geteuid().is_root().then_some("postgres");
        let cluster = Self { bin, dir, port: free_port(), user };
        if let Some(user) = user {
            assert!(
                Command::new("chown").arg(user).arg(cluster.dir.path()).status().unwrap().success()
            );
        }
        let data = cluster.data();
        cluster.run("initdb", &["-D", &data, "-U", "postgres", "-A", "trust", "--no-sync"]);
        cluster.up();
        Some(cluster)
    }

    /// A server that speaks TLS with a certificate for 127.0.0.1; the path of the certificate that
    /// signed it.
    pub fn start_with_tls() -> Option<(Self, PathBuf)> {
        let cluster = Self::start()?;
        cluster.down("fast");
        let made = Command::new("openssl").arg("version").output();
        if made.is_err() {
            assert!(
                std::env::var_os("TIDEHOOK_TEST_ALL").is_none(),
                "this test needs the openssl program"
            );
            return None;
        }
        let script = "set -e
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test-ca -keyout ca.key -out ca.crt
openssl req -newkey rsa:2048 -nodes -subj /CN=127.0.0.1 -keyout data/server.key -out server.csr
printf 'subjectAltName=IP:127.0.0.1' > san
openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile san -out data/server.crt
chmod 600 data/server.key
echo \"ssl = on\" >> data/postgresql.conf
echo \"hostssl all all 127.0.0.1/32 trust\" > data/pg_hba.conf";
        let mut command = Command::new("sh");
        if let Some(user) = cluster.user {
            command = Command::new("runuser");
            command.args(["-u", user, "--", "sh"]);
        }
        let output = command.args(["-c", script]).current_dir(cluster.dir.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        cluster.up();
        let authority = cluster.dir.path().join("ca.crt");
        Some((cluster, authority))
    }

    fn data(&self) -> String {
        self.dir.path().join("data").display().to_string()
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let program = self.bin.join(program);
        let mut command = match self.user {
            Some(user) => {
                let mut command = Command::new("runuser");
                command.args(["-u", user, "--"]).arg(program);
                command
            }
            None => Command::new(program),
        };
        // The server keeps what it inherits, so nothing of the test's may be inherited.
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.path().join("out"))
            .unwrap();
        command
            .args(arguments)
            .current_dir(self.dir.path())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        assert!(
            command.status().unwrap().success(),
            "{}",
            std::fs::read_to_string(self.dir.path().join("out")).unwrap()
        );
    }

    /// Runs one of Postgres's client programs with an input, and answers its output.
    pub fn tool(&self, program: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
        let mut command = Command::new(self.bin.join(program));
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|why| panic!("{program}: {why}"));
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), input).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{program} {arguments:?}");
        output.stdout
    }

    pub fn up(&self) {
        let options = format!(
            "-p {} -k {} -c listen_addresses=127.0.0.1",
            self.port,
            self.dir.path().display()
        );
        self.run("pg_ctl", &["-D", &self.data(), "-w", "-t", "60", "-o", &options, "start"]);
    }

    pub fn down(&self, mode: &str) {
        self.run("pg_ctl", &["-D", &self.data(), "-w", "-t", "60", "-m", mode, "stop"]);
    }

    pub fn url(&self) -> String {
        self.url_through(self.port)
    }

    /// The URL of another database of it.
    pub fn url_of(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// The URL of its database through another port.
    pub fn url_through(&self, port: u16) -> String {
        format!("postgres://postgres@127.0.0.1:{port}/postgres")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let mut command = Command::new(self.bin.join("pg_ctl"));
        if let Some(user) = self.user {
            command = Command::new("runuser");
            command.args(["-u", user, "--"]).arg(self.bin.join("pg_ctl"));
        }
        let _ =
            command.args(["-D", &self.data(), "-m", "immediate", "stop"]).current_dir("/").output();
    }
}
