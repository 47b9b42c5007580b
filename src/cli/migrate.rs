//! `tidehook migrate`: the schema of the database, up to date. Safe to repeat and to run twice at once.

use serde_json::json;

use super::{Done, Global, context, print};
use crate::server;

pub(super) async fn run(global: &Global) -> Done {
    let config = context::configuration(global, false)?;
    let store = server::open_store_to_migrate(&config).await?;
    store.migrate().await?;
    match global.json {
        true => print::json(&json!({ "migrated": true })),
        false => print::note("The database's schema is up to date."),
    }
    store.close().await;
    Ok(())
}
