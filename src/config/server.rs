//! The sections that configure tidehook itself: `database`, `server`, `api`, `delivery`, `worker`
//! and `compat`.

use std::net::IpAddr;
use std::time::Duration;

use url::Url;

use super::problem::Severity;
use super::read::Section;
use crate::decide::address::Policy;
use crate::decide::cidr::Networks;
use crate::decide::errors::{CLASSES, ErrorName, GROUPS};
use crate::decide::retry::{Jitter, RetryPolicy};
use crate::decide::signature;
use crate::model::{Keep, Pooler, Retention, Secret};

/// The kind of database that the configuration names, also those that this version cannot run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// An embedded SQLite file, used by one process at a time; the default.
    Sqlite,
    /// A Postgres server, shared by any number of processes.
    Postgres,
    /// A MySQL or MariaDB server, shared by any number of processes.
    Mysql,
    /// Cloudflare D1, which only Cloudflare's runtime can reach; starting needs a `DATABASE_URL` of
    /// another kind.
    D1,
}

/// The section `database`: where events, jobs and runs are stored.
#[derive(Debug, Clone)]
pub struct Database {
    /// The kind of database; SQLite unless the file or the scheme of `DATABASE_URL` says otherwise.
    pub driver: Driver,
    /// The URL of the database; `None` when neither the file nor `DATABASE_URL` gives one.
    pub url: Option<Secret>,
    /// The most connections that this process opens; 1 to 1000, 10 by default.
    pub max_connections: u32,
    /// The pooler between this process and the database, if any. It lends a connection for one
    /// transaction at a time.
    pub pooler: Pooler,
    /// Whether the password is signed with AWS credentials (IAM authentication of RDS and Aurora).
    pub iam: bool,
    /// Whether the file names the driver; else `DATABASE_URL` may decide it.
    driver_given: bool,
}

impl Database {
    pub(super) fn read(mut s: Section<'_>) -> Self {
        let driver_given = s.has("driver");
        let driver = match s.text("driver").as_deref() {
            None | Some("sqlite") => Driver::Sqlite,
            Some("postgres" | "postgresql") => Driver::Postgres,
            Some("mysql" | "mariadb") => Driver::Mysql,
            Some("d1") => Driver::D1,
            Some(other) => {
                s.error(
                    "unknown_driver",
                    "driver",
                    format!("unsupported database driver '{other}': use sqlite, postgres or mysql"),
                );
                Driver::Sqlite
            }
        };
        let url = s.secret("url");
        let max_connections = s.number32("max_connections").unwrap_or(10);
        let pooler = match s.one_of("pooler").as_deref() {
            Some("transaction") => Pooler::Transaction,
            Some("rds_proxy") => Pooler::RdsProxy,
            _ => Pooler::None,
        };
        let iam = s.one_of("auth").is_some_and(|word| word == "iam");
        for key in ["account_id", "database_id", "d1_endpoint"] {
            s.text(key);
        }
        s.secret("api_token");
        if driver == Driver::D1 {
            s.warn(
                "needs_database_url",
                "driver",
                "the driver d1 works only inside Cloudflare: \
                set DATABASE_URL to a SQLite, Postgres or MySQL URL to start the server",
            );
        }
        if let Some(url) = &url {
            let scheme = scheme_of(url);
            if driver != Driver::D1 && Driver::of_scheme(scheme) != Some(driver) {
                let help = "write it like postgres://user:password@host:5432/name, \
                    mysql://user:password@host:3306/name or sqlite:file.db";
                let message = format!(
                    "the database URL starts with `{scheme}:`, which does not match \
                     `database.driver`"
                );
                s.problem(Severity::Error, "bad_url", "url", message, Some(help.into()));
            } else if !is_readable(url) {
                let help = "write it like postgres://user:password@host:5432/name; encode `@`, `/` \
                    and `:` in the password as %40, %2F and %3A";
                s.problem(
                    Severity::Error,
                    "bad_url",
                    "url",
                    "the database URL is invalid",
                    Some(help.into()),
                );
            }
        }
        s.finish();
        Self { driver, url, max_connections, pooler, iam, driver_given }
    }

    /// A sentence when the file names a database server and nothing gives its URL. An embedded
    /// database has a default.
    pub fn lacks_url(&self) -> Option<String> {
        let name = match self.driver {
            Driver::Postgres => "postgres",
            Driver::Mysql => "mysql",
            // What runs elsewhere has its own message.
            Driver::Sqlite | Driver::D1 => return None,
        };
        let lacks = || {
            format!(
                "`database.driver` is {name}, but neither `database.url` nor DATABASE_URL is set"
            )
        };
        self.url.is_none().then(lacks)
    }

    /// Takes the URL from `DATABASE_URL`. It also decides the driver when the file names none, or
    /// names one that only another runtime can reach.
    ///
    /// # Errors
    /// The URL does not fit the driver that the file names.
    pub(super) fn take_from_environment(&mut self, url: &str) -> Result<(), String> {
        let url = Secret::new(url);
        let of_url = Driver::of_scheme(scheme_of(&url));
        match of_url {
            Some(of_url)
                if of_url == self.driver || !self.driver_given || self.driver == Driver::D1 =>
            {
                self.driver = of_url;
                self.url = Some(url);
                Ok(())
            }
            _ => Err(format!(
                "DATABASE_URL starts with `{}:`, which does not match `database.driver`",
                scheme_of(&url)
            )),
        }
    }
}

impl Driver {
    fn of_scheme(scheme: &str) -> Option<Self> {
        match scheme {
            "sqlite" => Some(Self::Sqlite),
            "postgres" | "postgresql" => Some(Self::Postgres),
            "mysql" | "mariadb" => Some(Self::Mysql),
            _ => None,
        }
    }
}

/// The scheme of a URL, or an empty text: what stands before the first colon may also be part of a
/// password.
fn scheme_of(url: &Secret) -> &str {
    let before = url.expose().split_once(':').map_or("", |(before, _)| before);
    let is_scheme = before.len() <= 20
        && before.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    if is_scheme { before } else { "" }
}

/// Whether the URL of a database server can be parsed and has a host; an SQLite URL always passes.
fn is_readable(url: &Secret) -> bool {
    scheme_of(url) == "sqlite" || Url::parse(url.expose()).is_ok_and(|url| url.has_host())
}

/// Which forwarding headers are believed when the client's address is determined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProxyTrust {
    /// Nobody: the client is the peer of the socket, and forwarding headers are ignored.
    None,
    /// This many proxies stand in front, whoever they are; 1 to 16.
    Hops(usize),
    /// Forwarding headers count when the peer is in these networks.
    Networks(Networks),
}

impl ProxyTrust {
    /// A sentence when a client can forge its address: with a number of hops, headers count whoever
    /// sends them.
    pub fn weakness(&self) -> Option<&'static str> {
        matches!(self, Self::Hops(_)).then_some(
            "a client that reaches this port without the proxy can fake its address in \
             X-Forwarded-For and bypass allowed_ips and ip_rate_limit; list the networks of the \
             proxies in server.trusted_proxies",
        )
    }
}

/// The section `server`: how requests reach tidehook, and which addresses it may reach itself.
#[derive(Debug, Clone)]
pub struct Server {
    /// The address to listen on; all IPv4 addresses by default.
    pub bind: IpAddr,
    /// The port to listen on; 8888 by default, and 0 takes a free one.
    pub port: u16,
    /// The base URL under which others reach this server, for callback links and for signatures
    /// that cover the URL. Without it, signatures are checked against the host that the request
    /// names.
    pub public_url: Option<Url>,
    /// The largest request body in bytes, unless a source sets its own; 1 MiB by default.
    pub body_bytes_max: usize,
    /// How many requests are processed at once, counted when their bodies are there; further ones
    /// are answered 503. 100 by default.
    pub inbound_max: u32,
    /// Requests per second for each client address; `None` is unlimited.
    pub ip_rate_limit: Option<u32>,
    /// Which forwarding headers are believed.
    pub trust: ProxyTrust,
    /// Which private addresses and which ports calls may reach.
    pub policy: Policy,
    /// Whether `/_echo` is served, which answers what it is sent; follows `allow_private_urls`
    /// unless the file says otherwise.
    pub echo: bool,
    /// Whether outbound endpoints start active without a challenge; not used yet.
    pub skip_endpoint_verification: bool,
}

impl Server {
    pub(super) fn read(mut s: Section<'_>) -> Self {
        let mut policy = Policy {
            allow_private: s.bool("allow_private_urls").unwrap_or(false),
            ..Policy::default()
        };
        read_allowed(&mut s, &mut policy);
        policy.denied_ports = read_ports(&mut s);
        let bind = s.text("bind").and_then(|text| match text.parse() {
            Ok(address) => Some(address),
            Err(_) => {
                s.error(
                    "wrong_type",
                    "bind",
                    format!("`server.bind` must be an IP address like `127.0.0.1`, not `{text}`"),
                );
                None
            }
        });
        let public_url = super::urls::base(&mut s, "public_url");
        let trusts = s.bool("trust_proxy").unwrap_or(false);
        let trust = read_trust(&mut s, trusts);
        let server = Self {
            bind: bind.unwrap_or(IpAddr::from([0, 0, 0, 0])),
            port: s.number("port").and_then(|n| u16::try_from(n).ok()).unwrap_or(8888),
            public_url,
            body_bytes_max: s
                .number("max_body_size")
                .and_then(|n| usize::try_from(n).ok())
                .unwrap_or(1 << 20),
            inbound_max: s.number32("max_inbound").unwrap_or(100),
            ip_rate_limit: s.number32("ip_rate_limit").filter(|n| *n > 0),
            trust,
            echo: s.bool("echo").unwrap_or(policy.allow_private),
            policy,
            skip_endpoint_verification: s.bool("skip_endpoint_verification").unwrap_or(false),
        };
        s.finish();
        server
    }
}

fn read_ports(s: &mut Section<'_>) -> Vec<u16> {
    let mut ports = Vec::new();
    for entry in s.texts("denied_ports").unwrap_or_default() {
        match entry.value.parse::<u16>() {
            Ok(port) => ports.push(port),
            Err(_) => {
                let message =
                    format!("`server.denied_ports` must list port numbers, not `{}`", entry.value);
                s.error("wrong_type", "denied_ports", message);
            }
        }
    }
    ports
}

fn read_trust(s: &mut Section<'_>, trusts: bool) -> ProxyTrust {
    let entries = s.texts("trusted_proxies");
    if !trusts {
        return ProxyTrust::None;
    }
    let Some(entries) = entries else { return ProxyTrust::Hops(1) };
    if let [one] = entries.as_slice()
        && let Ok(hops) = one.value.parse::<usize>()
        && (1..=16).contains(&hops)
    {
        return ProxyTrust::Hops(hops);
    }
    match Networks::parse(entries.iter().map(|e| e.value.as_str())) {
        Ok(networks) if !networks.is_empty() => ProxyTrust::Networks(networks),
        Ok(_) => ProxyTrust::Hops(1),
        Err(why) => {
            s.error("bad_address", "trusted_proxies", format!("`server.trusted_proxies`: {why}"));
            ProxyTrust::Hops(1)
        }
    }
}

/// Reads `allowed_private_hosts` into a policy: names and globs, addresses and networks.
pub(super) fn read_allowed(s: &mut Section<'_>, policy: &mut Policy) {
    for entry in s.texts("allowed_private_hosts").unwrap_or_default() {
        let text = entry.value.trim().to_ascii_lowercase();
        let looks_like_address =
            text.contains([':', '/']) || text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        if looks_like_address {
            if let Err(why) = policy.networks.push(&text) {
                s.error("bad_address", "allowed_private_hosts", why);
            }
        } else if text.is_empty() || text.trim_start_matches("*.").contains('*') {
            let help = "write a host name, a pattern like `*.corp.example`, or a network like \
                `10.0.0.0/8`";
            s.problem(
                Severity::Error,
                "bad_address",
                "allowed_private_hosts",
                format!("`{text}` is not a host name, pattern or network"),
                Some(help.into()),
            );
        } else {
            policy.hosts.push(text);
        }
    }
}

/// The section `api`: who may use the management routes.
#[derive(Debug, Clone, Default)]
pub struct Api {
    /// The bearer token of `/events` and `/api`. Without it, `/events` is open and `/api` answers
    /// only clients on this machine.
    pub auth_token: Option<Secret>,
    /// Whether `/api` answers everyone when there is no token.
    pub open: bool,
    /// The bearer token of `/metrics`, which is open without one.
    pub metrics_auth_token: Option<Secret>,
}

impl Api {
    pub(super) fn read(mut s: Section<'_>) -> Self {
        let api = Self {
            auth_token: s.secret("auth_token"),
            open: s.bool("open").unwrap_or(false),
            metrics_auth_token: s.secret("metrics_auth_token"),
        };
        s.finish();
        api
    }
}

/// The key that signs deliveries; it is never printed.
#[derive(Clone)]
pub struct SigningKey(pub Vec<u8>);

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// The section `delivery`: defaults of the calls to handlers and steps.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Signs deliveries as Standard Webhooks describes it; `None` sends them without a signature.
    pub signing_key: Option<SigningKey>,
    /// The deadline of one attempt as a whole, unless a handler or step sets its own; 30 s by
    /// default.
    pub timeout: Duration,
    /// The retry policies of handlers, steps and workflows that set none.
    pub retry: Vec<RetryPolicy>,
    /// Deliveries that wait longer than this are given up; `None` (0 in the file) never gives up.
    pub event_ttl: Option<Duration>,
    /// How long idempotency keys are remembered; 168 h by default.
    pub idempotency_ttl: Duration,
}

impl Delivery {
    pub(super) fn read(mut s: Section<'_>) -> Self {
        let signing_key = s.secret("signing_secret").map(|secret| signing_key(&mut s, &secret));
        let retry = read_retry(&mut s, "default_retry", &[RetryPolicy::default()]);
        let delivery = Self {
            signing_key,
            timeout: read_timeout(&mut s).unwrap_or(Duration::from_secs(30)),
            retry,
            event_ttl: s.duration("event_ttl").filter(|d| !d.is_zero()),
            idempotency_ttl: s
                .duration("idempotency_ttl")
                .unwrap_or(Duration::from_secs(168 * 3600)),
        };
        s.finish();
        delivery
    }
}

/// The bytes of the signing key. A text that starts with `whsec_` and is not base64 is used as it
/// stands, with a warning, because published overlays hold such texts.
fn signing_key(s: &mut Section<'_>, secret: &Secret) -> SigningKey {
    let text = secret.expose();
    SigningKey(signature::key(text).unwrap_or_else(|_| {
        let why = "`delivery.signing_secret` starts with whsec_, but the rest is not base64, so \
            the whole string is used as the key: fix the base64, or remove whsec_";
        s.warn("weak_secret", "signing_secret", why);
        text.as_bytes().to_vec()
    }))
}

/// Reads `timeout`: at least a millisecond, at most an hour.
pub(super) fn read_timeout(s: &mut Section<'_>) -> Option<Duration> {
    let timeout = s.duration("timeout")?;
    let range = Duration::from_millis(1)..=Duration::from_secs(3600);
    if range.contains(&timeout) {
        return Some(timeout);
    }
    let path = s.path().to_owned();
    s.error("out_of_range", "timeout", format!("`{path}.timeout` must be between 1ms and 1h"));
    None
}

/// Reads retry policies: one, or a list. Of a list, the first that lists a failure applies. `base`
/// gives the values that a policy leaves out.
pub(super) fn read_retry(s: &mut Section<'_>, key: &str, base: &[RetryPolicy]) -> Vec<RetryPolicy> {
    if !s.has(key) {
        return base.to_vec();
    }
    let first = base.first().cloned().unwrap_or_default();
    let of_list = RetryPolicy { errors: vec![ErrorName::All], ..first.clone() };
    s.one_or_more(key, |in_list, section| {
        read_policy(section, if in_list { &of_list } else { &first })
    })
}

fn read_policy(mut s: Section<'_>, base: &RetryPolicy) -> RetryPolicy {
    let rate = match s.one_of("backoff").as_deref() {
        Some("fixed") => 1.0,
        Some(_) if base.rate <= 1.0 => RetryPolicy::default().rate,
        _ => base.rate,
    };
    if s.has("max_delay") && s.has("max_interval") {
        s.error(
            "twice",
            "max_interval",
            "`max_delay` and `max_interval` are two names of the same key: remove one".to_owned(),
        );
    }
    let policy = RetryPolicy {
        max: s.number32("max").unwrap_or(base.max),
        rate: s.fraction("rate").unwrap_or(rate),
        interval: s.duration("interval").unwrap_or(base.interval),
        max_delay: s
            .duration("max_delay")
            .or_else(|| s.duration("max_interval"))
            .unwrap_or(base.max_delay),
        jitter: read_jitter(&mut s).unwrap_or(base.jitter),
        errors: read_errors(&mut s).unwrap_or_else(|| base.errors.clone()),
        deadline: s.duration("deadline").or(base.deadline),
        heeds_receiver: s.bool("respect_retry_after").unwrap_or(base.heeds_receiver),
    };
    s.finish();
    policy
}

fn read_jitter(s: &mut Section<'_>) -> Option<Jitter> {
    let text = s.text("jitter")?;
    match text.trim() {
        "full" | "FULL" => return Some(Jitter::Full),
        "none" | "NONE" => return Some(Jitter::Share(0.0)),
        _ => {}
    }
    match text.trim().parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Some(Jitter::Share(share)),
        _ => {
            let path = s.path().to_owned();
            s.error(
                "wrong_type",
                "jitter",
                format!(
                    "`{path}.jitter` must be a number from 0 to 1, `full` or `none`, not `{text}`"
                ),
            );
            None
        }
    }
}

/// Reads the failures that `errors` lists; `None` when it is absent.
pub(super) fn read_errors(s: &mut Section<'_>) -> Option<Vec<ErrorName>> {
    let texts = s.texts("errors")?;
    let mut errors = Vec::new();
    for error in texts {
        match error.value.parse::<ErrorName>() {
            Ok(name) => errors.push(name),
            Err(_) => {
                let words: Vec<&str> = GROUPS.iter().chain(&CLASSES).copied().collect();
                s.not_one_of("errors", &error.value, &words);
            }
        }
    }
    Some(errors)
}

/// The section `worker`: how jobs are claimed, and how long finished ones are kept.
#[derive(Debug, Clone)]
pub struct Worker {
    /// The upper bound of a lease, 300 s by default. The engine leases for 30 s or for this,
    /// whichever is shorter.
    pub lease_max: Duration,
    /// How long finished events, jobs and runs are kept; 72 h by default.
    pub retention: Retention,
    /// How long a graceful shutdown waits for deliveries in flight; 30 s by default.
    pub drain: Duration,
    /// How many deliveries one process makes at the same time; 10 by default.
    pub concurrency: u32,
    /// The most jobs that one claim takes; 10 by default.
    pub batch: u32,
}

impl Worker {
    pub(super) fn read(mut s: Section<'_>) -> Self {
        let age = Duration::from_secs(s.number("retention_hours").unwrap_or(72) * 3600);
        let mut by_status = s.section("retention");
        let mut keep = |status: &str| {
            let mut s = by_status.section(status);
            let keep = Keep { age: s.duration("age").unwrap_or(age), count: s.number32("count") };
            s.finish();
            keep
        };
        let retention = Retention { completed: keep("completed"), dead: keep("dead") };
        by_status.finish();
        let worker = Self {
            lease_max: Duration::from_secs(s.number("stale_threshold_secs").unwrap_or(300)),
            retention,
            drain: Duration::from_secs(s.number("drain_timeout_secs").unwrap_or(30)),
            concurrency: s.number32("max_concurrency").unwrap_or(10),
            batch: s.number32("batch_size").unwrap_or(10),
        };
        s.finish();
        worker
    }
}

/// The section `compat`: which behaviour of qhook 0.6 is kept for files that were written for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compat {
    /// Sends `X-Qhook-*` headers in addition to `X-Tidehook-*`; true by default.
    pub qhook_headers: bool,
    /// Emits `qhook_*` metrics in addition to `tidehook_*`; true by default.
    pub qhook_metrics: bool,
    /// A catch target receives only the error, as in qhook, and not the payload with it.
    pub qhook_catch_payload: bool,
    /// Conditions and patterns are read as qhook 0.6 reads them.
    pub qhook_expressions: bool,
    /// Unknown keys are warnings and not errors.
    pub lenient_keys: bool,
}

impl Compat {
    pub(super) fn read(mut s: Section<'_>) -> Self {
        let compat = Self {
            qhook_headers: s.bool("qhook_headers").unwrap_or(true),
            qhook_metrics: s.bool("qhook_metrics").unwrap_or(true),
            qhook_catch_payload: s.one_of("catch_payload").as_deref() == Some("qhook"),
            qhook_expressions: s.one_of("expressions").as_deref() == Some("qhook"),
            lenient_keys: s.one_of("unknown_keys").as_deref() == Some("warn"),
        };
        s.finish();
        compat
    }
}
