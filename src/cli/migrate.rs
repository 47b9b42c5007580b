//! `tidehook migrate`: brings the database's schema up to date. It is safe to repeat, and to run
//! twice at once.

use clap::Args;
use serde_json::json;

use super::{Done, Global, context, print, stack};
use crate::server;

/// Apply pending database migrations
#[derive(Debug, Args)]
pub(super) struct Migrate {
    /// Migrate the database of a deployed stack of functions: invokes its ticker with the AWS CLI
    #[arg(long, value_name = "STACK")]
    lambda: Option<String>,
}

pub(super) async fn run(migrate: &Migrate, global: &Global) -> Done {
    if let Some(name) = &migrate.lambda {
        stack::migrate(name)?;
        return told(None, global);
    }
    let config = context::configuration(global, false)?;
    let store = server::open_store_to_migrate(&config).await?;
    // A database that cannot be asked says why when it is migrated.
    let lacked = store.missing_migrations().await.ok();
    store.migrate().await?;
    store.close().await;
    told(lacked, global)
}

fn told(applied: Option<usize>, global: &Global) -> Done {
    match (global.json, applied) {
        (true, applied) => print::json(&json!({ "migrated": true, "applied": applied })),
        (false, Some(applied @ 1..)) => print::note(&format!(
            "The database schema is up to date. {applied} migrations were applied."
        )),
        (false, _) => print::note("The database schema is up to date."),
    }
    Ok(())
}
