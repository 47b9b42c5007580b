//! The section `alerts`: where operators are notified of dead deliveries, failed runs and the like.

use std::time::Duration;

use url::Url;

use super::Handler;
use super::keys::ALERT_KINDS;
use super::read::Section;
use super::urls;
use crate::decide::address::Policy;
use crate::decide::alert::{Channel, KINDS};
use crate::decide::pattern::Pattern;
use crate::decide::retry::RetryPolicy;
use crate::model::lane::BreakerRules;
use crate::model::{Method, Secret};

/// The name of the one channel that a file can have.
pub const NAME: &str = "alerts";
/// The address of PagerDuty's Events API v2, which files need not repeat.
const PAGERDUTY: &str = "https://events.pagerduty.com/v2/enqueue";
/// The time limit of one attempt.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The attempts of one alert. With the delays below, they take a day and a half.
const ATTEMPTS_MAX: u32 = 40;
/// The longest delay between two of them.
const DELAY_MAX: Duration = Duration::from_secs(3600);

/// The section `alerts`: where operators are notified.
#[derive(Debug, Clone)]
pub struct Alerts {
    /// The http or https URL that alerts are posted to.
    pub url: Url,
    /// The format of the messages.
    pub channel: Channel,
    /// Which kinds of alert are sent, words of [`ALERT_KINDS`]; the first two when the file does
    /// not say.
    pub kinds: Vec<String>,
    /// The request, its retries and its limits, as a handler has them.
    pub handler: Handler,
}

impl Alerts {
    pub(super) fn read(section: Option<Section<'_>>, policy: &Policy) -> Option<Self> {
        let mut s = section?;
        let word = s.text("type").unwrap_or_else(|| "generic".to_owned());
        let key = s.secret("routing_key");
        let channel = match (word.as_str(), key) {
            ("slack", _) => Channel::Slack,
            ("discord", _) => Channel::Discord,
            ("pagerduty", Some(key)) => Channel::PagerDuty(key),
            ("pagerduty", None) => {
                if !s.has("routing_key") {
                    s.error(
                        "missing_key",
                        "type",
                        "alerts of type 'pagerduty' have no routing_key: add the integration key \
                         of the service",
                    );
                }
                Channel::PagerDuty(Secret::new(String::new()))
            }
            ("generic", _) => Channel::Generic,
            (other, _) => {
                let message = format!(
                    "alerts.type '{other}' is not supported: use generic, slack, discord or \
                     pagerduty"
                );
                s.error("unknown_word", "type", message);
                Channel::Generic
            }
        };
        let text = match &channel {
            Channel::PagerDuty(_) if !s.has("url") => Some(PAGERDUTY.to_owned()),
            _ => s.required_text("url"),
        };
        let url = text.and_then(|text| match Url::parse(&text) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && s.has("url") => {
                urls::call(&mut s, "url", "alerts", policy)
            }
            Ok(url) if matches!(url.scheme(), "http" | "https") => Some(url),
            _ => {
                s.error("bad_url", "url", "alerts.url must start with http:// or https://");
                None
            }
        });
        let kinds = s
            .words("on")
            .unwrap_or_else(|| ALERT_KINDS[..2].iter().map(|k| (*k).to_owned()).collect());
        s.finish();
        let url = url?;
        let handler = handler(&url, policy);
        Some(Self { url, channel, kinds, handler })
    }

    /// The patterns of the events that are sent. A test is always sent.
    pub fn patterns(&self) -> Vec<Pattern> {
        let wanted = |kind: &str| kind == "custom" || self.kinds.iter().any(|k| k == kind);
        let types = KINDS.iter().filter(|(kind, _)| wanted(kind)).flat_map(|(_, types)| *types);
        types.map(|kind| Pattern::parse(kind)).collect()
    }
}

/// A handler that posts to the channel.
fn handler(url: &Url, policy: &Policy) -> Handler {
    Handler {
        name: NAME.to_owned(),
        was: Vec::new(),
        source: crate::decide::alert::SOURCE.to_owned(),
        events: Vec::new(),
        filter: None,
        idempotency_key: None,
        url: url.clone(),
        // The path of a chat's webhook is its secret.
        shown_url: format!("{}/{}", url.origin().ascii_serialization(), super::STARS),
        method: Method::Post,
        headers: Vec::new(),
        transform: None,
        retry: vec![RetryPolicy {
            max: ATTEMPTS_MAX,
            max_delay: DELAY_MAX,
            ..RetryPolicy::default()
        }],
        timeout: TIMEOUT,
        rate_limit: None,
        breaker: BreakerRules::default(),
        policy: policy.clone(),
    }
}
