//! `tidehook init`: a configuration to start from.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;

use super::{Done, Global, context, print};
use crate::ingress::PROVIDERS;

/// Write a configuration to start from
#[derive(Debug, Args)]
pub(super) struct Init {
    /// Whose events: `event` for an application's own, or a provider (github, stripe, …)
    #[arg(short, long, default_value = "event", value_name = "NAME")]
    template: String,
    /// Overwrite files that are there
    #[arg(short, long)]
    force: bool,
}

pub(super) fn run(init: &Init, global: &Global) -> Done {
    let template = init.template.as_str();
    let text = match template {
        "event" | "default" => EVENT.to_owned(),
        provider if PROVIDERS.iter().any(|p| p.name() == provider) => webhook(provider),
        other => {
            let names: Vec<&str> = ["event"].into_iter().chain(PROVIDERS.iter().map(|p| p.name())).collect();
            let near = crate::config::problem::nearest(other, names.iter().copied());
            let hint = near.map_or(String::new(), |n| format!(" (did you mean `{n}`?)"));
            return Err(anyhow::anyhow!("unknown template `{other}`{hint}; known are {}", names.join(", ")).into());
        }
    };
    let path = global.config.clone().or_else(|| context::variable("CONFIG").map(PathBuf::from));
    let path = path.unwrap_or_else(|| PathBuf::from("tidehook.yaml"));
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let local = path.with_file_name(format!("{stem}.local.yaml"));
    if !init.force {
        for path in [&path, &local] {
            if path.exists() {
                return Err(anyhow::anyhow!("{} is there already; --force overwrites it", path.display()).into());
            }
        }
    }
    let schema = path.with_file_name(SCHEMA);
    write(&path, &format!("{HEADER}{text}"))?;
    write(&local, &format!("{HEADER}{LOCAL}"))?;
    let text = serde_json::to_string_pretty(&crate::config::schema::schema()).context("the schema cannot be written")?;
    write(&schema, &(text + "\n"))?;
    if global.json {
        let files = [path.display().to_string(), local.display().to_string(), schema.display().to_string()];
        print::json(&json!({ "created": files, "template": template }));
        return Ok(());
    }
    print::note(&format!("Created {} and {} (template: {template})", path.display(), local.display()));
    print::note(&format!("Created {}, which their first lines name: editors complete and check keys with it", schema.display()));
    if template != "event" && template != "default" {
        print::note(&format!("Set {} to the provider's signing secret.", variable(template)));
    }
    let named = if path == Path::new("tidehook.yaml") { String::new() } else { format!(" --config {}", path.display()) };
    print::note(&format!("Start with: tidehook start --env local{named}"));
    print::note("Other verbs take `--env local` too; `export TIDEHOOK_ENV=local` says it for all of them.");
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

/// The schema's file, beside the configuration.
const SCHEMA: &str = "tidehook.schema.json";
/// What YAML editors look for.
const HEADER: &str = "# yaml-language-server: $schema=tidehook.schema.json\n";

const EVENT: &str = "\
# An application posts its events; every handler gets those it wants.
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
# {provider} posts signed webhooks to /webhooks/{provider}; every handler gets those it wants.
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
# Laid over the configuration with `--env local`: for a machine of one's own.
server:
  bind: 127.0.0.1
  allow_private_urls: true
";
