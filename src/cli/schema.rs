//! `tidehook schema`: the JSON Schema of the configuration.

use super::{Done, print};

#[expect(clippy::unnecessary_wraps, reason = "verbs have one shape")]
pub(super) fn run() -> Done {
    print::json(&crate::config::schema::schema());
    Ok(())
}
