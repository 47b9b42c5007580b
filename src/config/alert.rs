//! `alerts`: whom to tell. Checked here; sending them comes with the alert channels.

use url::Url;

use super::keys::ALERT_KINDS;
use super::read::Section;

/// Where alerts go.
#[derive(Debug, Clone)]
pub struct Alerts {
    /// Where they are posted.
    pub url: Url,
    /// generic, slack or discord.
    pub channel: String,
    /// Which ones.
    pub kinds: Vec<String>,
}

impl Alerts {
    pub(super) fn read(section: Option<Section<'_>>) -> Option<Self> {
        let mut s = section?;
        let channel = s.text("type").unwrap_or_else(|| "generic".to_owned());
        if !["generic", "slack", "discord"].contains(&channel.as_str()) {
            s.error("unknown_word", "type", format!("alerts.type '{channel}' is not supported"));
        }
        let text = s.required_text("url");
        let url = text.and_then(|text| match Url::parse(&text) {
            Ok(url) if matches!(url.scheme(), "http" | "https") => Some(url),
            _ => {
                s.error("bad_url", "url", "alerts.url must start with http:// or https://");
                None
            }
        });
        let kinds = s.words("on").unwrap_or_else(|| ALERT_KINDS[..2].iter().map(|k| (*k).to_owned()).collect());
        s.finish();
        Some(Self { url: url?, channel, kinds })
    }
}
