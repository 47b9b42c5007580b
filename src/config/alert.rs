//! The section `alerts`: where operators are notified. It is checked here; sending alerts is not
//! implemented yet.

use url::Url;

use super::keys::ALERT_KINDS;
use super::read::Section;

/// The section `alerts`: where operators are notified. It is checked, and `Config::cannot_run`
/// still refuses to start with it.
#[derive(Debug, Clone)]
pub struct Alerts {
    /// The http or https URL that alerts are posted to.
    pub url: Url,
    /// The format of the messages: `generic`, `slack` or `discord`.
    pub channel: String,
    /// Which kinds of alert are sent, words of [`ALERT_KINDS`]; the first two when the file does
    /// not say.
    pub kinds: Vec<String>,
}

impl Alerts {
    pub(super) fn read(section: Option<Section<'_>>) -> Option<Self> {
        let mut s = section?;
        let channel = s.text("type").unwrap_or_else(|| "generic".to_owned());
        if !["generic", "slack", "discord"].contains(&channel.as_str()) {
            s.error(
                "unknown_word",
                "type",
                format!("alerts.type '{channel}' is not supported: use generic, slack or discord"),
            );
        }
        let text = s.required_text("url");
        let url = text.and_then(|text| match Url::parse(&text) {
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
        Some(Self { url: url?, channel, kinds })
    }
}
