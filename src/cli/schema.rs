//! `tidehook schema`: prints the JSON Schema of the configuration, or its reference for people.

use clap::Args;

use super::{Done, print};

/// Print the JSON Schema of the configuration for editors
///
/// Save it next to the configuration, and name it in the first line of the configuration: `tidehook
/// schema > tidehook.schema.json`, and `# yaml-language-server: $schema=tidehook.schema.json`.
/// `tidehook init` does both.
#[derive(Debug, Args)]
pub(super) struct Schema {
    /// Print the reference of all keys as Markdown instead
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
