//! `tidehook start`: runs the server in the foreground.

use super::{Done, Failed, Global, context, print};
use crate::container;
use crate::server::StartError;

pub(super) async fn run(global: &Global) -> Done {
    let config = context::configuration(global, true)?;
    match container::run(config, || context::load(global), print::problems).await {
        Ok(()) => Ok(()),
        Err(error @ StartError::CannotRun(_)) => {
            print::error(&error.to_string());
            Err(Failed::Config(serde_json::Value::Null))
        }
        Err(error) => Err(error.into()),
    }
}
