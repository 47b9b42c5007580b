//! `tidehook dev`: a demonstration in one command, with nothing to set up.
//!
//! It starts a server with a temporary database and configuration and a receiver that fails once,
//! sends a signed sample webhook, and prints what happens.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::Args;
use http::Method;
use tokio::net::TcpListener;
use tokio::sync::broadcast::error::RecvError;

use super::client::Client;
use super::timeline::Timeline;
use super::{Done, Failed, Global, print, receiver, send};
use crate::config::load::from_texts;
use crate::config::problem::Text;
use crate::config::{Config, Problems};
use crate::container::signals::Signals;
use crate::ingress;
use crate::model::Roles;
use crate::observe::feed::{FeedEvent, Next};
use crate::server::Server;

/// Run a demo: a signed sample webhook, a receiver that fails once, and a live timeline
#[derive(Debug, Args)]
pub(super) struct Dev {
    /// Port to listen on; another free port if it is in use
    #[arg(long, default_value_t = 8888)]
    port: u16,
    /// Exit when the sample is delivered
    #[arg(long)]
    once: bool,
}

const SOURCE: &str = "github";
const EVENT: &str = "push";

pub(super) async fn run(dev: Dev, global: &Global) -> Done {
    let mut signals = Signals::listen()?;
    let dir = tempfile::Builder::new()
        .prefix("tidehook-dev-")
        .tempdir()
        .context("a temporary directory cannot be created")?;
    let receiver = receiver::start().await.context("the demo receiver cannot listen on a port")?;
    let listener = listen(dev.port).await?;
    let port = listener.local_addr()?.port();
    let path = dir.path().join("tidehook.yaml");
    let text = CONFIG
        .replace("{port}", &port.to_string())
        .replace("{receiver}", &receiver.to_string())
        .replace("{database}", &dir.path().join("dev.db").display().to_string());
    std::fs::write(&path, &text)
        .with_context(|| format!("{} cannot be written", path.display()))?;
    let config = read(&path, text)?;
    let raw = {
        let source = config
            .source(SOURCE)
            .ok_or_else(|| anyhow!("the example configuration has no source"))?;
        send::prepare(source, EVENT, None, &format!("http://127.0.0.1:{port}"))?
    };
    let server = Server::start_on(listener, config, Roles::ALL).await?;
    let mut moments = server.engine().feed().follow();
    let timeline = Timeline::begin(global.json);
    if !global.json {
        introduce(&path, port, &receiver.to_string());
        timeline.say("sent", "a sample GitHub push, signed with the secret from the configuration");
    }
    let ready = send::ready(&raw);
    let client = Client::http(format!("http://127.0.0.1:{port}"), None)?;
    let posted = tokio::spawn(async move {
        client.request(Method::POST, &ready.path, ready.headers, ready.body).await
    });

    let mut delivered = false;
    loop {
        let moment = tokio::select! {
            moment = moments.recv() => moment,
            () = signals.stop() => break,
        };
        match moment {
            Ok(moment) => {
                timeline.tell(&moment);
                if matches!(moment, FeedEvent::Tried { next: Next::Delivered, .. }) && !delivered {
                    delivered = true;
                    if dev.once {
                        break;
                    }
                    if !global.json {
                        invite(&path, port);
                    }
                }
            }
            Err(RecvError::Lagged(missed)) => {
                print::note(&format!("… {missed} lines are not shown: too many at once"))
            }
            Err(RecvError::Closed) => break,
        }
    }
    let answer = posted.await??;
    server.stop(signals.stop()).await;
    match answer.status.is_success() && (delivered || !dev.once) {
        true => Ok(()),
        false => Err(Failed::Other(anyhow!(
            "the server answered the sample with {}: {}",
            answer.status,
            answer.text
        ))),
    }
}

/// Binds the wanted port on loopback, else a free one.
async fn listen(port: u16) -> anyhow::Result<TcpListener> {
    match TcpListener::bind(("127.0.0.1", port)).await {
        Ok(listener) => Ok(listener),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            print::note(&format!("Port {port} is in use. Using another free port."));
            Ok(TcpListener::bind(("127.0.0.1", 0)).await?)
        }
        Err(error) => Err(error).with_context(|| format!("cannot listen on port {port}")),
    }
}

fn read(path: &Path, content: String) -> Result<Config, Failed> {
    let mut problems = Problems::default();
    let texts = vec![Text { name: path.display().to_string(), content }];
    let config = from_texts(
        texts,
        &crate::config::layers::Variables::new(),
        false,
        &ingress::known(),
        &mut problems,
    );
    config.ok_or_else(|| {
        print::problems(&problems);
        Failed::Config(serde_json::Value::Null)
    })
}

fn program() -> String {
    let name = std::env::args_os().next().map(PathBuf::from);
    name.map_or("tidehook".to_owned(), |n| n.display().to_string())
}

fn introduce(path: &Path, port: u16, receiver: &str) {
    print::line(&format!("tidehook {}: demo\n", env!("CARGO_PKG_VERSION")));
    print::line(&format!(
        "  webhooks   http://127.0.0.1:{port}/webhooks/{SOURCE} (signature required)"
    ));
    print::line(&format!("  events     http://127.0.0.1:{port}/events/app/{{type}}"));
    print::line(&format!(
        "  receiver   http://{receiver} (fails the first attempt of each delivery on purpose)"
    ));
    print::line(&format!("  config     {}", path.display()));
    print::line("  database   SQLite next to the configuration; both are deleted on exit\n");
}

fn invite(path: &Path, port: u16) {
    let (program, path) = (program(), path.display());
    print::line("\nSend your own events from another terminal:\n");
    print::line(&format!("  {program} send github pull_request --config {path}"));
    print::line(&format!(
        "  curl -d '{{\"id\": 7}}' http://127.0.0.1:{port}/events/app/order.created"
    ));
    print::line("\nPress Ctrl-C to stop.\n");
}

const CONFIG: &str = "\
# The example of `tidehook dev`.
database:
  url: sqlite:{database}
server:
  bind: 127.0.0.1
  port: {port}
  allow_private_urls: true # the receiver is on this machine
sources:
  github:
    type: webhook
    verify: github
    secret: not-a-secret
  app:
    type: event
handlers:
  deploy:
    source: github
    events: [push, pull_request]
    url: http://{receiver}/deploy
    retry: { max: 5, backoff: fixed, interval: 1s, jitter: 0 }
  orders:
    source: app
    events: [\"order.*\"]
    url: http://{receiver}/orders
    retry: { max: 5, backoff: fixed, interval: 1s, jitter: 0 }
";
