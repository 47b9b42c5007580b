//! `tidehook backup`: a copy of the embedded database, taken while a server works on it.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;
use serde_json::json;

use super::{Done, Global, context, print};
use crate::server;
use crate::store::sql::backup::backup;

/// Copy the SQLite database into a file, also while a server works on it
///
/// The copy holds everything that was acknowledged before it began. Postgres has its own tools: docs/operations.md names them.
#[derive(Debug, Args)]
pub(super) struct Backup {
    /// The new file
    file: PathBuf,
}

pub(super) async fn run(verb: &Backup, global: &Global) -> Done {
    let config = context::configuration(global, false)?;
    if !server::is_embedded(&config) {
        return Err(
            anyhow!("the database is a server of its own; `pg_dump` and base backups copy it (docs/operations.md)").into()
        );
    }
    if !context::has_database(&config) {
        return Err(anyhow!("there is no database yet; `tidehook start` or `tidehook migrate` creates it").into());
    }
    let made = backup(server::database_url(&config)?.expose(), &verb.file).await?;
    match global.json {
        true => print::json(&json!({ "file": verb.file.display().to_string(), "events": made.events, "bytes": made.bytes })),
        false => {
            print::note(&format!("{} holds {} events in {} bytes.", verb.file.display(), made.events, made.bytes));
        }
    }
    Ok(())
}
