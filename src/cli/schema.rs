//! `tidehook schema`: the JSON Schema of the configuration, or its reference for people.

use clap::Args;

use super::{Done, print};

/// Print the JSON Schema of the configuration, for editors
#[derive(Debug, Args)]
pub(super) struct Schema {
    /// Print the reference for people instead, as Markdown
    #[arg(long)]
    reference: bool,
}

#[expect(clippy::unnecessary_wraps, reason = "verbs have one shape")]
pub(super) fn run(schema: &Schema) -> Done {
    match schema.reference {
        true => print::line(crate::config::reference::reference().trim_end()),
        false => print::json(&crate::config::schema::schema()),
    }
    Ok(())
}
