//! Reads URLs and headers of the configuration, and refuses what could not be called anyway.

use url::Url;

use super::mask::masked_url;
use super::problem::Severity;
use super::read::Section;
use crate::decide::address::{Policy, UrlRefusal};
use crate::decide::template::Template;
use crate::decide::workflow::flow::Address;

/// The text that stands in for a placeholder when a URL is checked before its value is known.
const FILLER: &str = "tidehook-placeholder";

/// The URL under a key for display, without the secrets in it.
pub(super) fn shown(s: &Section<'_>, key: &str) -> String {
    s.shown_text(key).map_or(String::new(), |(text, shown)| masked_url(text, shown))
}

/// Reads a URL that may hold placeholders. Its fixed parts are checked now, the rest when the call
/// is made.
pub(super) fn address(
    s: &mut Section<'_>,
    key: &str,
    who: &str,
    policy: &Policy,
) -> Option<Address> {
    let (written, shown) = (s.text(key)?, shown(s, key));
    if !written.contains("{{") {
        return call(s, key, who, policy).map(Address::Fixed);
    }
    let text = match Template::text(&written) {
        Ok(text) => text,
        Err(bad) => {
            s.error(
                "bad_template",
                key,
                format!("{who} URL '{shown}' is not a valid template: {}", bad.message),
            );
            return None;
        }
    };
    if text.is_fixed() {
        s.error(
            "bad_template",
            key,
            format!("{who} URL '{shown}' has a `{{{{` without the closing braces"),
        );
        return None;
    }
    let filled = text.with_filler(FILLER).unwrap_or_default();
    if filled.starts_with(FILLER) {
        return Some(Address::Template { text, is_foreign: true });
    }
    let url = judge(s, key, who, policy, (&filled, &shown))?;
    let is_foreign = url.host_str().is_none_or(|host| host.contains(FILLER));
    Some(Address::Template { text, is_foreign })
}

/// Reads a URL without placeholders that will be called. `who` names the caller in messages, as
/// `handler 'billing'`.
pub(super) fn call(s: &mut Section<'_>, key: &str, who: &str, policy: &Policy) -> Option<Url> {
    let text = s.text(key)?;
    if text.contains("{{") {
        let message = format!(
            "{who} has a placeholder in its URL, but this URL does not support placeholders"
        );
        let help = "write a fixed URL, or use a workflow step: its URL supports placeholders";
        s.problem(Severity::Error, "bad_template", key, message, Some(help.into()));
        return None;
    }
    let shown = shown(s, key);
    judge(s, key, who, policy, (&text, &shown))
}

/// Checks a URL against the rules of what may be called. Messages show it as `shown`, without
/// secrets.
fn judge(
    s: &mut Section<'_>,
    key: &str,
    who: &str,
    policy: &Policy,
    (text, shown): (&str, &str),
) -> Option<Url> {
    if text.trim().is_empty() {
        s.error("bad_url", key, format!("{who} URL is empty: set `url` to the address to call"));
        return None;
    }
    let lower = text.trim_start().to_ascii_lowercase();
    if text.starts_with(char::is_whitespace)
        || !(lower.starts_with("http://") || lower.starts_with("https://"))
    {
        s.error(
            "bad_url",
            key,
            format!("{who} URL must start with http:// or https://, got '{shown}'"),
        );
        return None;
    }
    let url = match Url::parse(text) {
        Ok(url) => url,
        Err(why) => {
            s.error("bad_url", key, format!("{who} URL '{shown}' is invalid: {why}"));
            return None;
        }
    };
    match policy.judge_url(&url) {
        Ok(()) => Some(url),
        Err(UrlRefusal::Private) => {
            let message = format!(
                "{who} URL '{shown}' points to a private/loopback address. Set \
                 server.allow_private_urls: true to allow this (dev only)"
            );
            let help = "or list the host or network in server.allowed_private_hosts";
            s.problem(Severity::Error, "private_url", key, message, Some(help.into()));
            None
        }
        Err(why @ UrlRefusal::Special) => {
            let help = "use a public address of the receiver; `allow_private_urls` does not allow \
                these addresses";
            let message = format!("{who} URL '{shown}' cannot be called: {why}");
            s.problem(Severity::Error, "private_url", key, message, Some(help.into()));
            None
        }
        Err(UrlRefusal::UserInfo) => {
            let help = "remove them from the URL, and send credentials in `headers`";
            let message = format!("{who} URL must not contain a user name or password");
            s.problem(Severity::Error, "bad_url", key, message, Some(help.into()));
            None
        }
        Err(why @ (UrlRefusal::Scheme | UrlRefusal::Port)) => {
            s.error("bad_url", key, format!("{who} URL '{shown}' cannot be called: {why}"));
            None
        }
    }
}

/// Reads the base URL under which others reach this server.
pub(super) fn base(s: &mut Section<'_>, key: &str) -> Option<Url> {
    let text = s.text(key)?;
    match Url::parse(&text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Some(url),
        _ => {
            let path = s.path().to_owned();
            s.error(
                "bad_url",
                key,
                format!(
                    "`{path}.{key}` must be a URL like https://hooks.example.com, got '{text}'"
                ),
            );
            None
        }
    }
}

/// Header names that cannot be configured: they belong to the connection, or they would give access
/// to metadata services of clouds.
const RESERVED: [&str; 13] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "host",
    "content-length",
    "metadata-flavor",
    "x-aws-ec2-metadata-token",
];

/// Parses named texts that may hold placeholders, such as headers; wrong ones are reported and left
/// out.
pub(super) fn templates(
    s: &mut Section<'_>,
    key: &str,
    texts: Vec<(String, String)>,
) -> Vec<(String, Template)> {
    let mut all = Vec::new();
    for (name, text) in texts {
        if name.contains("{{") {
            s.error(
                "bad_template",
                key,
                format!(
                    "the name `{name}` contains a placeholder, but \
                names do not support placeholders: use a placeholder in the value only"
                ),
            );
            continue;
        }
        match Template::text(&text) {
            Ok(template) if template.is_fixed() && text.contains("{{") => {
                s.error(
                    "bad_template",
                    key,
                    format!("`{name}` has a `{{{{` without the closing braces"),
                );
            }
            Ok(template) => all.push((name, template)),
            Err(bad) => s.error(
                "bad_template",
                key,
                format!("`{name}` is not a valid template: {}", bad.message),
            ),
        }
    }
    all
}

/// Reads the mapping `headers`; names and values that cannot be sent are reported and left out.
pub(super) fn headers(s: &mut Section<'_>, who: &str) -> Vec<(String, String)> {
    let mut headers: Vec<(String, String)> = Vec::new();
    for (name, value) in s.text_map("headers") {
        let lower = name.text.to_ascii_lowercase();
        let mut refuse = |why: String| {
            s.problems().push(super::Problem {
                severity: Severity::Error,
                code: "bad_header",
                place: Some(name.place),
                key: value.key.clone(),
                message: why,
                help: None,
            });
        };
        if http::HeaderName::from_bytes(name.text.as_bytes()).is_err() {
            refuse(format!("{who}: `{}` is not a valid header name", name.text.escape_debug()));
        } else if RESERVED.contains(&lower.as_str()) {
            refuse(format!(
                "{who}: the header `{}` is reserved and cannot be set: remove it",
                name.text
            ));
        } else if http::HeaderValue::from_str(&value.value).is_err() {
            refuse(format!(
                "{who}: the value of the header `{}` contains characters that are not allowed, \
                 such as line breaks",
                name.text
            ));
        } else if headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(&lower)) {
            refuse(format!(
                "{who}: the header `{}` is listed twice: remove one (names are not case-sensitive)",
                name.text
            ));
        } else {
            headers.push((name.text.clone(), value.value));
        }
    }
    headers
}
