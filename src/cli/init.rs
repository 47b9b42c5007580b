//! `tidehook init`: writes a configuration to start from, an overlay for local work, and the editor
//! schema.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;

use super::{Done, Global, context, print};
use crate::ingress::PROVIDERS;

/// Create a starter configuration
#[derive(Debug, Args)]
pub(super) struct Init {
    /// The kind of source: `event` for your own application, or a provider (github, stripe, …)
    #[arg(short, long, default_value = "event", value_name = "NAME")]
    template: String,
    /// Overwrite existing files
    #[arg(short, long)]
    force: bool,
}

pub(super) fn run(init: &Init, global: &Global) -> Done {
    let template = init.template.as_str();
    let text = match template {
        "event" | "default" => EVENT.to_owned(),
        provider if PROVIDERS.iter().any(|p| p.name() == provider) => webhook(provider),
        other => {
            let names: Vec<&str> =
                ["event"].into_iter().chain(PROVIDERS.iter().map(|p| p.name())).collect();
            let near = crate::config::problem::nearest(other, names.iter().copied());
            let hint = near.map_or(String::new(), |n| format!(" (did you mean `{n}`?)"));
            return Err(anyhow::anyhow!(
                "unknown template `{other}`{hint}; valid templates: {}",
                names.join(", ")
            )
            .into());
        }
    };
    let path = global.config.clone().or_else(|| context::variable("CONFIG").map(PathBuf::from));
    let path = path.unwrap_or_else(|| PathBuf::from("tidehook.yaml"));
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let local = path.with_file_name(format!("{stem}.local.yaml"));
    if !init.force {
        for path in [&path, &local] {
            if path.exists() {
                return Err(anyhow::anyhow!(
                    "{} already exists; use --force to overwrite it",
                    path.display()
                )
                .into());
            }
        }
    }
    let schema = path.with_file_name(SCHEMA);
    write(&path, &format!("{HEADER}{text}"))?;
    write(&local, &format!("{HEADER}{LOCAL}"))?;
    let text = serde_json::to_string_pretty(&crate::config::schema::schema())
        .context("the JSON Schema cannot be generated")?;
    write(&schema, &(text + "\n"))?;
    if global.json {
        let files =
            [path.display().to_string(), local.display().to_string(), schema.display().to_string()];
        print::json(&json!({ "created": files, "template": template }));
        return Ok(());
    }
    print::note(&format!(
        "Created {} and {} (template: {template})",
        path.display(),
        local.display()
    ));
    print::note(&format!(
        "Created {}: editors use this schema to complete and check keys",
        schema.display()
    ));
    if template != "event" && template != "default" {
        print::note(&format!(
            "Set the environment variable {} to the signing secret of the provider.",
            variable(template)
        ));
    }
    let named = if path == Path::new("tidehook.yaml") {
        String::new()
    } else {
        format!(" --config {}", path.display())
    };
    print::note(&format!("Start with: tidehook start --env local{named}"));
    print::note(
        "Pass `--env local` to the other commands too, or run `export TIDEHOOK_ENV=local` once.",
    );
    Ok(())
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    if path.is_dir() {
        bail!("{} is a directory", path.display());
    }
    std::fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))
}

fn variable(provider: &str) -> String {
    format!("{}_WEBHOOK_SECRET", provider.to_ascii_uppercase().replace('-', "_"))
}

fn webhook(provider: &str) -> String {
    WEBHOOK.replace("{provider}", provider).replace("{variable}", &variable(provider))
}

/// The name of the schema's file, which lies beside the configuration.
const SCHEMA: &str = "tidehook.schema.json";
/// The comment that tells YAML editors which schema to use.
const HEADER: &str = "# yaml-language-server: $schema=tidehook.schema.json\n";

const EVENT: &str = "\
# The application posts its events. Each handler gets the events that match it.
#   curl -d '{\"id\": 7}' http://127.0.0.1:8888/events/app/order.created
sources:
  app:
    type: event

handlers:
  mailer:
    source: app
    events: [\"order.*\"]
    url: https://mailer.example.com/orders
    retry: { max: 5, interval: 30s }
";

const WEBHOOK: &str = "\
# {provider} posts signed webhooks to /webhooks/{provider}.
# Each handler gets the events that match it.
sources:
  {provider}:
    type: webhook
    verify: {provider}
    secret: ${{variable}}

handlers:
  receiver:
    source: {provider}
    events: [\"*\"]
    url: https://receiver.example.com/{provider}
    retry: { max: 5, interval: 30s }
";

const LOCAL: &str = "\
# Merged over the configuration with `--env local`: settings for local development.
server:
  bind: 127.0.0.1
  allow_private_urls: true
";
