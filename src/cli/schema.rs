//! `tidehook schema`: the JSON Schema of the configuration, or its reference for people.

use clap::Args;

use super::{Done, print};

/// Print the JSON Schema of the configuration, for editors
///
/// Write it beside the configuration and name it in the configuration's first line:
/// `tidehook schema > tidehook.schema.json`, and `# yaml-language-server: $schema=tidehook.schema.json`.
/// `tidehook init` does both.
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
