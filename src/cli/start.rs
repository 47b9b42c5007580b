//! `tidehook start`: runs the server in the foreground.

use super::{Done, Failed, Global, context, print};
use crate::container;
use crate::model::Roles;
use crate::server::StartError;

#[derive(Debug, clap::Args)]
pub(super) struct Start {
    /// What this process does, with commas between: ingress, worker, ticker [default: all]
    #[arg(long, value_name = "ROLES")]
    roles: Option<Roles>,
}

pub(super) async fn run(start: &Start, global: &Global) -> Done {
    let roles = match start.roles {
        Some(roles) => roles,
        None => container::roles_of_environment().map_err(|why| anyhow::anyhow!("{why}"))?,
    };
    let config = context::configuration(global, true)?;
    match container::run(config, roles, || context::load(global), print::problems).await {
        Ok(()) => Ok(()),
        Err(error @ StartError::CannotRun(_)) => {
            print::error(&error.to_string());
            Err(Failed::Config(serde_json::Value::Null))
        }
        Err(error) => Err(error.into()),
    }
}
