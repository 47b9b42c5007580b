//! `tidehook backup`: a copy of the embedded database, taken while a server works on it.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;
use serde_json::json;

use super::{Done, Global, context, print};
use crate::server;
use crate::store::sqlite::backup::backup;

/// Back up the SQLite database to a file, even while a server uses it
///
/// The backup contains everything that was acknowledged before it started. For Postgres, use its
/// own tools: see docs/operations.md.
#[derive(Debug, Args)]
pub(super) struct Backup {
    /// The backup file to create; it must not exist
    file: PathBuf,
}

pub(super) async fn run(verb: &Backup, global: &Global) -> Done {
    let config = context::configuration(global, false)?;
    if !server::is_embedded(&config) {
        return Err(anyhow!(
            "`backup` works with SQLite only; back up Postgres with `pg_dump` or base \
                backups (docs/operations.md)"
        )
        .into());
    }
    if !context::has_database(&config) {
        return Err(anyhow!(
            "the database does not exist yet; create it with `tidehook start` or `tidehook migrate`"
        )
        .into());
    }
    let made = backup(server::database_url(&config)?.expose(), &verb.file).await?;
    match global.json {
        true => print::json(&json!({
            "file": verb.file.display().to_string(),
            "events": made.events,
            "bytes": made.bytes,
        })),
        false => {
            print::note(&format!(
                "Wrote {}: {} events, {} bytes.",
                verb.file.display(),
                made.events,
                made.bytes
            ));
        }
    }
    Ok(())
}
