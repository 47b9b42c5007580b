//! Masks secrets in what is shown of a configuration: quoted lines keep their columns, URLs keep
//! their host.

use std::sync::LazyLock;

use regex_lite::{Captures, Regex};

use super::keys::{Keys, TOP, Takes};

/// Matches a key that takes a secret, with its value. The key `url` is left out: of a database URL
/// only the password is secret, which `USER_INFO` matches.
static SECRET: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let mut names = vec!["secrets"];
    collect(&TOP, &mut names);
    names.sort_unstable();
    names.dedup();
    names.retain(|name| *name != "url");
    let names = names.join("|");
    // The key; then a quoted text, a flow list, or a plain text up to what ends it.
    let quoted = r#""[^"\n]*"?|'[^'\n]*'?"#;
    let plain = r#"(?:\$\{[^}\n]*\}|[^\s,}\]#"'\[])(?:\$\{[^}\n]*\}|[^,}\n])*"#;
    let value = format!(r"{quoted}|\[[^\]\n]*\]?|{plain}");
    Regex::new(&format!(r#"(["']?\b(?:{names})["']?\s*:\s*)({value})"#)).ok()
});
/// Matches the user name and the password of a URL.
static USER_INFO: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"(//)([^/@\s]+)(@)").ok());

/// Matches a URL parameter whose name says that its value is a secret.
static PARAMETER: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let names = SECRET_PARAMETERS.join("|");
    Regex::new(&format!(r#"(?i)([?&](?:{names})=)([^&\s"'#,}}]+)"#)).ok()
});
/// Matches a header or a field whose name says that its value is a credential.
static CREDENTIAL: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let name = r"authorization|cookie|[\w-]*(?:token|secret|api[-_]?key|password)";
    let value = r#""[^"\n]*"?|'[^'\n]*'?|(?:\$\{[^}\n]*\}|[^\s,}"'\[{])(?:\$\{[^}\n]*\}|[^,}\n])*"#;
    Regex::new(&format!(r#"(?i)(["']?\b(?:{name})["']?\s*:\s+)({value})"#)).ok()
});

fn collect(keys: &'static Keys, names: &mut Vec<&'static str>) {
    for key in keys.iter() {
        match key.takes {
            Takes::Secret => names.push(key.name),
            Takes::Section(keys)
            | Takes::Named(keys)
            | Takes::Items(keys)
            | Takes::OneOrMore(keys) => collect(keys, names),
            _ => {}
        }
    }
}

/// The text with a star for each character of its secrets, so that columns stay true. `${VAR}`
/// stays readable: it holds no secret itself.
pub fn masked(text: &str) -> String {
    let text = match &*SECRET {
        Some(secret) => secret.replace_all(text, |found: &Captures<'_>| {
            format!("{}{}", &found[1], starred(&found[2]))
        }),
        None => text.into(),
    };
    let text = match &*USER_INFO {
        Some(user) => user.replace_all(&text, |found: &Captures<'_>| {
            format!("{}{}{}", &found[1], starred(&found[2]), &found[3])
        }),
        None => text,
    };
    [&PARAMETER, &CREDENTIAL].into_iter().fold(text.into_owned(), |text, part| match &**part {
        Some(part) => part
            .replace_all(&text, |found: &Captures<'_>| {
                format!("{}{}", &found[1], starred(&found[2]))
            })
            .into_owned(),
        None => text,
    })
}

/// Stars for every character except quotes, brackets, commas, spaces and variables without a
/// default.
fn starred(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let mut rest = value;
    while let Some(c) = rest.chars().next() {
        let variable = rest.strip_prefix("${").and_then(|inner| inner.find('}')).map(|end| end + 3);
        // The default of a variable may be a secret; its name is none.
        let name = variable.filter(|end| !rest[..*end].contains(":-"));
        let kept = name.unwrap_or(c.len_utf8());
        match name.is_some() || "\"'[], ".contains(c) {
            true => out.push_str(&rest[..kept]),
            false => out.push('*'),
        }
        rest = &rest[kept..];
    }
    out
}

/// The text that stands in place of a secret.
pub const STARS: &str = "***";
/// The shortest run of letters and digits that may be taken for a token.
const TOKEN_LEAST: usize = 16;
/// URL parameters whose values are always secret, however short.
const SECRET_PARAMETERS: [&str; 9] =
    ["token", "key", "secret", "sig", "signature", "password", "access_token", "api_key", "apikey"];

/// A URL for display: its host, and the rest without what came from a variable or looks like a
/// token. The URLs of chat systems, for instance, are secrets themselves.
///
/// `shown` is the text with stars in place of variables.
pub fn masked_url(text: &str, shown: &str) -> String {
    let authority = |text: &str| {
        let (scheme, rest) = text.split_once("://")?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        Some((scheme.len() + 3 + end, rest[..end].to_owned()))
    };
    let (head, tail) = match (authority(shown), authority(text)) {
        (Some((end, host)), _) if !host.contains(STARS) && !shown[..end].starts_with(STARS) => {
            shown.split_at(end)
        }
        // A variable names the host, and perhaps all of it.
        (_, Some((end, _))) if end == text.len() => (text, ""),
        (_, Some((end, _))) => (&text[..end], "/***"),
        _ => (STARS, ""),
    };
    let head = match (head.find("://"), head.rfind('@')) {
        (Some(scheme), Some(at)) => format!("{}{STARS}{}", &head[..scheme + 3], &head[at..]),
        _ => head.to_owned(),
    };
    let (path, query) =
        tail.split_once('?').map_or((tail, None), |(path, query)| (path, Some(query)));
    let path: Vec<&str> =
        path.split('/').map(|part| if looks_like_token(part) { STARS } else { part }).collect();
    let query = query.map(|query| {
        let pairs = query.split('&').map(|pair| match pair.split_once('=') {
            Some((name, value)) if is_secret(name) || looks_like_token(value) => {
                format!("{name}={STARS}")
            }
            _ => pair.to_owned(),
        });
        format!("?{}", pairs.collect::<Vec<_>>().join("&"))
    });
    format!("{head}{}{}", path.join("/"), query.unwrap_or_default())
}

fn is_secret(parameter: &str) -> bool {
    SECRET_PARAMETERS.contains(&parameter.to_ascii_lowercase().as_str())
}

/// Whether a part of a URL looks like a token: a UUID, or a long run that mixes letters and digits,
/// or cases, as no word does.
fn looks_like_token(part: &str) -> bool {
    let is_uuid = part.len() == 36
        && part.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        });
    is_uuid
        || part
            .split(|c: char| !c.is_ascii_alphanumeric())
            .filter(|run| run.len() >= TOKEN_LEAST)
            .any(|run| {
                let count = |which: fn(&u8) -> bool| run.bytes().filter(which).count();
                let (digits, upper, lower) = (
                    count(u8::is_ascii_digit),
                    count(u8::is_ascii_uppercase),
                    count(u8::is_ascii_lowercase),
                );
                (digits >= 2 && upper + lower >= 2) || (upper >= 4 && lower >= 4)
            })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_for_people_has_its_host_and_no_secret() {
        for (text, shown, masked) in [
            (
                "https://a.example.com/orders",
                "https://a.example.com/orders",
                "https://a.example.com/orders",
            ),
            (
                "https://a.example.com:8443/x/tok?y=1",
                "https://a.example.com:8443/x/***?y=1",
                "https://a.example.com:8443/x/***?y=1",
            ),
            ("https://chat.example.com/hook/s3cr3t", "***", "https://chat.example.com/***"),
            ("https://chat.example.com", "***", "https://chat.example.com"),
            ("https://chat.example.com/a/b", "https://***/a/b", "https://chat.example.com/***"),
            (
                "https://chat.example.com/services/T01/B02/madeUpMadeUpMadeUp9x7",
                "https://chat.example.com/services/T01/B02/madeUpMadeUpMadeUp9x7",
                "https://chat.example.com/services/T01/B02/***",
            ),
            (
                "https://a.example.com/h/00000000-1111-2222-3333-444444444444",
                "https://a.example.com/h/00000000-1111-2222-3333-444444444444",
                "https://a.example.com/h/***",
            ),
            (
                "https://a.example.com/x?token=abc&page=2",
                "https://a.example.com/x?token=abc&page=2",
                "https://a.example.com/x?token=***&page=2",
            ),
            (
                "https://a.example.com/order-notifications-v2/internationalization",
                "https://a.example.com/order-notifications-v2/internationalization",
                "https://a.example.com/order-notifications-v2/internationalization",
            ),
            ("https://{{ $.host }}/x", "https://{{ $.host }}/x", "https://{{ $.host }}/x"),
            ("ftp://u:secret@h/x", "ftp://u:***@h/***", "ftp://***@h/***"),
            ("ftp://u:secret@h/x", "ftp://u:secret@h/x", "ftp://***@h/x"),
            ("nonsense", "***", "***"),
        ] {
            assert_eq!(masked_url(text, shown), masked, "{text}");
        }
    }

    #[test]
    fn secrets_are_starred_and_columns_stay() {
        for (text, shown) in [
            ("secret: abc def # note", "secret: *** *** * ****"),
            (
                "a: { type: webhook, secret: abc, verify: x }",
                "a: { type: webhook, secret: ***, verify: x }",
            ),
            ("secret: \"a b\"", "secret: \"* *\""),
            ("secrets: [\"ab\", cd]", "secrets: [\"**\", **]"),
            ("auth_token: ${TOKEN}", "auth_token: ${TOKEN}"),
            ("auth_token: ${TOKEN:-abc}", "auth_token: *************"),
            ("  \"signing_secret\" : 'abc'", "  \"signing_secret\" : '***'"),
            ("url: postgres://u:p@db/x", "url: postgres://***@db/x"),
            ("url: https://a.example.com/x", "url: https://a.example.com/x"),
            ("sekret: abc", "sekret: abc"),
        ] {
            let masked = masked(text);
            assert_eq!(masked, shown);
            assert_eq!(masked.chars().count(), text.chars().count());
        }
    }
}
