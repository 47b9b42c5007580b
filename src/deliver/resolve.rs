//! Looks host names up, and judges every address before any is dialled.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::decide::address::{Author, Policy};

/// How long one query to one name server may take. It is asked twice.
const QUESTION_TIME_MAX: Duration = Duration::from_secs(2);
/// The longest time an answer is cached, even if its time to live is longer.
const KEPT_MAX: Duration = Duration::from_secs(30);
/// How long the absence of a name is cached.
const MISSING_KEPT_MAX: Duration = Duration::from_secs(1);

/// The address rules refuse a destination. Nothing was sent.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Blocked(pub String);

/// A name without an address.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NoAddress(pub String);

/// Asks the system's name servers, with its hosts file and search domains: the URLs are the
/// operator's own, and the names of the operator's network are defined there.
///
/// # Errors
/// The resolver cannot be set up.
pub fn system() -> Result<TokioResolver, String> {
    let mut builder = TokioResolver::builder_tokio().unwrap_or_else(|error| {
        tracing::warn!(%error, "The DNS settings of the system cannot be read. Only IP addresses \
            and names in the hosts file resolve.");
        TokioResolver::builder_with_config(
            ResolverConfig::default(),
            TokioRuntimeProvider::default(),
        )
    });
    let options = builder.options_mut();
    // All addresses are asked for, because one forbidden address refuses the name.
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.timeout = QUESTION_TIME_MAX;
    options.attempts = 2;
    options.positive_max_ttl = Some(KEPT_MAX);
    options.negative_max_ttl = Some(MISSING_KEPT_MAX);
    builder.build().map_err(|e| format!("the DNS resolver cannot be created: {e}"))
}

/// A resolver with the address rules of one destination.
#[derive(Clone)]
pub struct GuardedResolver {
    /// The DNS resolver that looks names up, shared by all destinations. See `system`.
    pub resolver: TokioResolver,
    /// Which private addresses may be reached.
    pub policy: Arc<Policy>,
    /// Who wrote the URL, the operator or a caller of the API. The address rules are stricter for
    /// the second.
    pub author: Author,
}

impl GuardedResolver {
    async fn addresses(
        self,
        name: String,
    ) -> Result<Addrs, Box<dyn std::error::Error + Send + Sync>> {
        let found = self.resolver.lookup_ip(name.as_str()).await.map_err(|e| {
            match e.is_no_records_found() {
                true => NoAddress(format!("{name} has no IP address")),
                false => NoAddress(format!("{name}: {e}")),
            }
        })?;
        let addresses: Vec<std::net::IpAddr> = found.iter().collect();
        if addresses.is_empty() {
            return Err(NoAddress(format!("{name} has no IP address")).into());
        }
        for address in &addresses {
            self.policy.judge(self.author, &name, *address).map_err(Blocked)?;
        }
        // Port 0 stands for the URL's own.
        Ok(Box::new(addresses.into_iter().map(|address| SocketAddr::new(address, 0))))
    }
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(self.clone().addresses(name.as_str().to_owned()))
    }
}
