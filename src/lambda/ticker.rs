//! The function `ticker`: runs housekeeping, and announces jobs that are due or soon will be.
//!
//! Without a queue it works on due jobs itself, so that two functions and a database are a complete
//! installation.

use std::time::Duration;

use lambda_runtime::Error;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};

use super::{Function, checkup, time};
use crate::engine::Budget;
use crate::server;

/// The payload of an invocation by hand, which may ask for something else than a tick.
#[derive(Deserialize)]
struct ManualPayload {
    #[serde(default)]
    tidehook: Option<String>,
}

/// Runs one tick, or the migration or check-up that the payload asks for.
pub(super) async fn invoke(
    function: &Function,
    payload: &RawValue,
    left: Duration,
) -> Result<Box<RawValue>, Error> {
    // A schedule sends what it likes; what is no object asks for nothing.
    let asked =
        serde_json::from_str::<ManualPayload>(payload.get()).ok().and_then(|asked| asked.tidehook);
    let engine = &function.engine;
    match asked.as_deref() {
        None | Some("tick") => {}
        Some("migrate") => {
            let store = server::open_store_to_migrate(engine.config()).await?;
            store.migrate().await?;
            store.close().await;
            engine.prepare(false).await?;
            tracing::info!("The database schema is up to date.");
            return Ok(to_raw_value(&json!({ "migrated": true }))?);
        }
        Some("doctor") => return Ok(to_raw_value(&checkup::look(function).await)?),
        Some(other) => {
            return Err(
                format!("`tidehook` must be `tick`, `migrate` or `doctor`, not `{other}`").into()
            );
        }
    }
    function.ready().await?;
    let budget =
        if function.queue.is_some() { Budget::NONE } else { time::budget(engine.config(), left) };
    let ticked = engine.health().learn(engine.tick(budget).await)?;
    if ticked != crate::engine::Ticked::default() {
        tracing::info!(?ticked, "Tick finished.");
    }
    let worked = ticked.worked;
    Ok(to_raw_value(&json!({
        "announced": ticked.hinted, "expired": ticked.expired, "pruned": ticked.pruned,
        "forgotten": ticked.forgotten,
        "worked": {
            "done": worked.done, "retried": worked.retried, "dead": worked.dead,
            "more": worked.more,
        },
    }))?)
}
