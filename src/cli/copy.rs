//! `tidehook copy`: moves everything from one database to another, whatever their drivers.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use clap::Args;
use serde_json::json;
use url::Url;

use super::{Done, Global, print};
use crate::model::Secret;
use crate::store::copy::{Copied, Ends, Progress, copy};
use crate::store::{self, Address};

/// How often the progress is shown.
const SHOW_EVERY: Duration = Duration::from_millis(200);
/// How often it is written where no terminal is.
const WRITE_EVERY: Duration = Duration::from_secs(10);

/// Move everything to another database: SQLite, Postgres, MySQL or MariaDB
///
/// A server may work on the source meanwhile. Towards the end the source is fenced: from then on
/// nobody can accept or deliver there, and a server that starts on it is told where its work went.
/// Then the rest is carried over, both sides are compared, and a server can start on the target. A
/// copy that is interrupted goes on when it is run again.
#[derive(Debug, Args)]
pub(super) struct Copy {
    /// The URL of the database that has the data
    #[arg(long, value_name = "URL", env = "TIDEHOOK_COPY_FROM", hide_env_values = true)]
    from: String,
    /// The URL of an empty database
    #[arg(
        long,
        value_name = "URL",
        env = "TIDEHOOK_COPY_TO",
        hide_env_values = true,
        required_unless_present = "undo"
    )]
    to: Option<String>,
    /// Take the fence of the source away again, instead of copying. Do this only if no server has
    /// worked on the target
    #[arg(long)]
    undo: bool,
}

pub(super) async fn run(verb: &Copy, global: &Global) -> Done {
    let from = named(&verb.from)?;
    let source = open(&verb.from, true).await.with_context(|| format!("the source {from}"))?;
    if verb.undo {
        source.unfence().await?;
        source.close().await;
        match global.json {
            true => print::json(&json!({ "unfenced": from })),
            false => print::note(&format!("{from} can be worked on again.")),
        }
        return Ok(());
    }
    let to = verb.to.as_deref().ok_or_else(|| anyhow!("`--to` is missing"))?;
    let name = named(to)?;
    let target = open(to, false).await.with_context(|| format!("the target {name}"))?;
    let ends = Ends { source: &*source, from: &from, target: &*target, to: &name };
    let mut bar = Bar::new(global.json);
    let copied = copy(&ends, &mut |progress| bar.show(progress)).await;
    bar.end();
    let copied = copied?;
    source.close().await;
    target.close().await;
    told(&copied, &name, global);
    Ok(())
}

async fn open(url: &str, beside: bool) -> store::Result<std::sync::Arc<dyn store::Store>> {
    store::connect(Address { beside, ..Address::new(Secret::new(url), 4) }).await
}

/// The URL without user, password and options, for people.
fn named(url: &str) -> anyhow::Result<String> {
    if let Some(file) = url.strip_prefix("sqlite:") {
        let file = file.split('?').next().unwrap_or(file).trim_start_matches("//");
        // A file is named by its full path: the target remembers it.
        let path = std::path::absolute(file).unwrap_or_else(|_| file.into());
        return Ok(format!("sqlite:{}", path.display()));
    }
    let parsed = Url::parse(url).context("the database URL is invalid")?;
    let port = parsed.port().map_or(String::new(), |port| format!(":{port}"));
    Ok(format!(
        "{}://{}{port}{}",
        parsed.scheme(),
        parsed.host_str().unwrap_or("localhost"),
        parsed.path()
    ))
}

fn told(copied: &[Copied], to: &str, global: &Global) {
    if global.json {
        let tables: Vec<_> = copied
            .iter()
            .map(|t| json!({ "table": t.table, "rows": t.rows, "sha256": t.hash }))
            .collect();
        print::json(&json!({ "copied": true, "to": to, "tables": tables }));
        return;
    }
    for table in copied {
        print::line(&format!("{:<12} {:>10}  {}", table.table, table.rows, &table.hash[..16]));
    }
    print::note(&format!(
        "Both sides have the same rows. Start tidehook on {to} now; the source does not accept or \
         deliver any more."
    ));
}

/// The progress of a copy on a terminal, or a line now and then elsewhere.
struct Bar {
    is_terminal: bool,
    is_silent: bool,
    phase: &'static str,
    began: Instant,
    shown: Option<Instant>,
}

impl Bar {
    fn new(is_silent: bool) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        Self { is_terminal, is_silent, phase: "", began: Instant::now(), shown: None }
    }

    fn show(&mut self, progress: Progress) {
        if self.is_silent {
            return;
        }
        if progress.phase != self.phase {
            self.phase = progress.phase;
            self.began = Instant::now();
            self.shown = None;
        }
        let every = if self.is_terminal { SHOW_EVERY } else { WRITE_EVERY };
        if self.shown.is_some_and(|shown| shown.elapsed() < every) {
            return;
        }
        self.shown = Some(Instant::now());
        let line = line(progress, self.began.elapsed());
        match self.is_terminal {
            // Back to the start of the line, over what stood there.
            true => {
                let _ = write!(std::io::stderr(), "\r\x1b[2K{line}");
            }
            false => print::note(&line),
        }
    }

    fn end(&self) {
        if self.is_terminal && self.shown.is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[2K");
        }
    }
}

/// Share, rate and remaining time.
fn line(progress: Progress, elapsed: Duration) -> String {
    let Progress { phase, table, done, of } = progress;
    let share = (done * 100).checked_div(of).unwrap_or(100).min(100);
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let rate = done as f64 / elapsed.as_secs_f64().max(0.001);
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let left = Duration::from_secs_f64(of.saturating_sub(done) as f64 / rate.max(1.0)).as_secs();
    let left = match done {
        0 => "--:--".to_owned(),
        _ => format!("{:02}:{:02}", left / 60, left % 60),
    };
    format!(
        "{phase:<8} {share:>3} %  {done} of {of} rows  {rate:.0} rows/s  {left} left  ({table})"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_are_named_without_secrets() {
        let url = "postgres://someone:plainly-fictional@db.example.com:5433/tide?sslmode=require";
        assert_eq!(named(url).unwrap(), "postgres://db.example.com:5433/tide");
        assert!(named("sqlite:some.db?mode=rwc").unwrap().ends_with("/some.db"));
        assert!(named("nonsense").is_err());
    }

    #[test]
    fn progress_says_how_fast_and_how_long() {
        let progress = Progress { phase: "copy", table: "jobs", done: 500, of: 2_000 };
        assert_eq!(
            line(progress, Duration::from_secs(5)),
            "copy      25 %  500 of 2000 rows  100 rows/s  00:15 left  (jobs)"
        );
    }
}
