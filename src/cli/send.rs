//! `tidehook send`: sends an event to a server, signed as the source's provider signs it.

use std::io::Read;
use std::path::PathBuf;

use anyhow::{Context, anyhow};
use clap::Args;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Value, json};

use super::client::{Answer, Client, encode};
use super::{Done, Global, context, explain, print};
use crate::config::{Config, Source, SourceKind};
use crate::http::api::explain::answer;
use crate::ingress::provider::{Sample, Scheme};
use crate::ingress::{self, Admitted, Raw, provider};
use crate::model::{Clock, Ids, Inbound, SystemClock, SystemIds};

/// Send an event, signed like its provider signs it
#[derive(Debug, Args)]
#[command(override_usage = "tidehook send [OPTIONS] SOURCE [TYPE] [PAYLOAD]")]
pub(super) struct Send {
    /// The name of the source
    #[arg(required_unless_present = "source_flag")]
    source: Option<String>,
    /// The event type; `event` when left out
    kind: Option<String>,
    /// The payload; a sample of the provider if omitted
    payload: Option<String>,
    /// The name of the source
    #[arg(id = "source_flag", short = 's', long = "source", value_name = "SOURCE", hide = true)]
    source_flag: Option<String>,
    /// The event type, as qhook's flag
    #[arg(short = 't', long = "type", value_name = "TYPE", hide = true)]
    kind_flag: Option<String>,
    /// Read the payload from this file, `-` for standard input
    #[arg(short, long, conflicts_with = "payload")]
    file: Option<PathBuf>,
    /// Send nothing; show which handlers would get the event
    #[arg(long)]
    dry_run: bool,
}

/// A signed request, ready to be sent.
pub(super) struct Ready {
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

pub(super) async fn run(send: Send, global: &Global) -> Done {
    let config = context::configuration(global, false)?;
    let Positions { source: name, kind: named, payload } = positions(&send)?;
    let kind = named.clone().unwrap_or_else(|| "event".to_owned());
    let source = config.source(&name).ok_or_else(|| unknown(&config, &name))?;
    let payload = match &send.file {
        Some(path) if path.as_os_str() == "-" => {
            let mut bytes = Vec::new();
            std::io::stdin().read_to_end(&mut bytes).context("standard input cannot be read")?;
            Some(bytes)
        }
        Some(path) => Some(
            std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?,
        ),
        None => payload.map(String::into_bytes),
    };
    let base = context::remote(global).unwrap_or_else(|| context::local_url(&config));
    let origin = config
        .server
        .public_url
        .as_ref()
        .map_or_else(|| base.clone(), |u| u.as_str().trim_end_matches('/').to_owned());
    let raw = prepare(source, &kind, payload, &origin)?;
    let events = admitted(source, &kind, &raw);
    // Most providers name the type in the payload, and some in none of it: then what was asked for
    // does not come in.
    if let Ok(events) = &events
        && named.is_some()
        && let Some(other) = events.iter().find(|event| event.kind != kind)
    {
        let (provider, other) = (source.verify.as_deref().unwrap_or("the source"), &other.kind);
        print::note(&format!(
            "note: for {provider}, the request itself sets the event type; it is `{other}`, not \
             `{kind}`"
        ));
    }
    if send.dry_run {
        return dry_run(&config, &events?, global);
    }
    let ready = ready(&raw);
    let token = context::token(global)
        .or_else(|| config.api.auth_token.as_ref().map(|t| t.expose().to_owned()));
    let token = token.filter(|_| source.kind != SourceKind::Webhook);
    let answer = Client::http(base, token)?
        .request(Method::POST, &ready.path, ready.headers, ready.body)
        .await?;
    show(&answer, global)
}

/// The arguments that are told apart by their order.
struct Positions {
    source: String,
    kind: Option<String>,
    payload: Option<String>,
}

/// `SOURCE TYPE [PAYLOAD]`, or the flags of qhook with the payload as the only word.
fn positions(send: &Send) -> anyhow::Result<Positions> {
    let mut words = [&send.source, &send.kind, &send.payload].into_iter().flatten().cloned();
    let source = send
        .source_flag
        .clone()
        .or_else(|| words.next())
        .ok_or_else(|| anyhow!("name a source: tidehook send SOURCE [TYPE] [PAYLOAD]"))?;
    let kind = send.kind_flag.clone().or_else(|| words.next());
    let payload = words.next();
    match words.next() {
        Some(extra) => Err(anyhow!("unexpected argument `{extra}`; put the payload in quotes")),
        None => Ok(Positions { source, kind, payload }),
    }
}

fn unknown(config: &Config, name: &str) -> anyhow::Error {
    let names = config.sources.iter().map(|s| s.name.as_str());
    let hint = crate::config::problem::did_you_mean(name, names)
        .map_or(String::new(), |h| format!("; {h}"));
    super::client::WrongArgument(format!("the configuration has no source `{name}`{hint}")).into()
}

/// Builds the request that the sender of a source would make: route, sample payload unless one is
/// given, headers and signature.
pub(super) fn prepare(
    source: &Source,
    kind: &str,
    payload: Option<Vec<u8>>,
    origin: &str,
) -> anyhow::Result<Raw> {
    let id = SystemIds::default().next().to_string().to_ascii_lowercase();
    let path = match source.kind {
        SourceKind::Webhook => format!("/webhooks/{}", encode(&source.name)),
        SourceKind::Event | SourceKind::Outbound => {
            format!("/events/{}/{}", encode(&source.name), encode(kind))
        }
        SourceKind::Sns | SourceKind::Cron => {
            return Err(anyhow!(
                "`send` supports webhook and event sources only; source `{}` has another type",
                source.name
            ));
        }
    };
    let scheme = match source.kind {
        SourceKind::Webhook => source.verify.as_deref().and_then(provider),
        _ => None,
    };
    let plain = || Sample::json(&json!({ "id": id, "type": kind, "sent_by": "tidehook send" }));
    let sample = scheme.map_or_else(plain, |p| p.sample(kind, &id));
    let mut headers = HeaderMap::new();
    let of_json = payload.as_deref().is_some_and(|p| serde_json::from_slice::<Value>(p).is_ok());
    for (name, value) in sample.headers {
        // A payload of one's own may be of another kind than the sample.
        let value =
            if name == "content-type" && of_json { "application/json".to_owned() } else { value };
        headers.insert(HeaderName::from_static(name), HeaderValue::from_str(&value)?);
    }
    let body = payload.unwrap_or_else(|| sample.body.into_bytes());
    let mut raw = Raw::new(path.parse()?, origin, headers, body);
    if let Some(provider) = scheme {
        let now = SystemClock.now();
        let with =
            Scheme { secrets: &source.secrets, tolerance: None, options: &source.signature, now };
        provider.sign(&mut raw, &with);
        // The signer and the verifier of a provider are one file; what cannot be signed is told
        // here.
        if provider.verify(&raw, &with).is_err() {
            return Err(anyhow!(
                "a request of `{}` cannot be signed with the secret of source `{}`; check `secret`",
                provider.name(),
                source.name
            ));
        }
    }
    Ok(raw)
}

/// The parts of a request that are sent over the network.
pub(super) fn ready(raw: &Raw) -> Ready {
    let path = raw.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
    Ready { path, headers: raw.headers.clone(), body: raw.body.bytes().to_vec() }
}

fn show(answer: &Answer, global: &Global) -> Done {
    let body: Value =
        serde_json::from_str(&answer.text).unwrap_or_else(|_| Value::String(answer.text.clone()));
    if global.json {
        print::json(&json!({ "status": answer.status.as_u16(), "body": body }));
    } else {
        print::line(&format!("Status: {}", answer.status));
        if let Some(id) = body["event_id"].as_str() {
            print::line(&format!("Event ID: {id}"));
            print::line(&format!("Jobs created: {}", body["jobs_created"]));
            if body["runs_started"].as_u64().is_some_and(|runs| runs > 0) {
                print::line(&format!("Runs started: {}", body["runs_started"]));
            }
            if body["duplicate"] == false && body["jobs_created"] == 0 && body["runs_started"] == 0
            {
                print::line("No handler matched. Run `tidehook explain` to see why.");
            }
            if body["duplicate"] == true {
                print::line("Duplicate: this event was accepted before.");
            }
        } else {
            print::line(&print::one_line(&answer.text));
        }
    }
    match answer.status.is_success() {
        true => Ok(()),
        false => Err(anyhow!("the server refused the event ({})", answer.status).into()),
    }
}

/// The events that the server would admit from a request, judged here. The source's `allowed_ips`
/// do not count.
fn admitted(source: &Source, kind: &str, raw: &Raw) -> anyhow::Result<Vec<Inbound>> {
    let admitted = match source.kind {
        SourceKind::Webhook => {
            let client = std::net::IpAddr::from([127, 0, 0, 1]);
            let open =
                Source { allowed: crate::decide::cidr::Networks::default(), ..source.clone() };
            ingress::admit(&open, raw, client, SystemClock.now())
        }
        _ => ingress::call(source, raw, kind),
    };
    match admitted
        .map_err(|why| anyhow!("the server would refuse this payload: {}", why.as_str()))?
    {
        Admitted::Event(event) => Ok(vec![*event]),
        Admitted::Batch(events) => Ok(events),
        Admitted::Challenge(_) => Err(anyhow!(
            "this request is a handshake of the provider; tidehook answers it and stores no event"
        )),
    }
}

fn dry_run(config: &Config, events: &[Inbound], global: &Global) -> Done {
    for inbound in events {
        let answer = answer(config, &config.routes(), inbound);
        match global.json {
            true => print::json(&answer),
            false => explain::show(&answer),
        }
    }
    if global.json {
        return Ok(());
    }
    print::line("No jobs created (dry-run).");
    Ok(())
}
