//! Secrets out of quoted lines: what is shown of a file keeps its columns and loses its secrets.

use std::sync::LazyLock;

use regex_lite::{Captures, Regex};

use super::keys::{Keys, TOP, Takes};

/// Every key that takes a secret, wherever it stands; `url` is one of a database, whose password stands
/// before an `@`.
static SECRET: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let mut names = vec!["secrets"];
    collect(&TOP, &mut names);
    names.sort_unstable();
    names.dedup();
    names.retain(|name| *name != "url");
    let names = names.join("|");
    // The key; then a quoted text, a flow list, or a plain text up to what ends it.
    let value = r#""[^"\n]*"?|'[^'\n]*'?|\[[^\]\n]*\]?|(?:\$\{[^}\n]*\}|[^\s,}\]#"'\[])(?:\$\{[^}\n]*\}|[^,}\n])*"#;
    Regex::new(&format!(r#"(["']?\b(?:{names})["']?\s*:\s*)({value})"#)).ok()
});
/// User name and password of a URL.
static USER_INFO: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"(//)([^/@\s]+)(@)").ok());

fn collect(keys: &'static Keys, names: &mut Vec<&'static str>) {
    for key in keys {
        match key.takes {
            Takes::Secret => names.push(key.name),
            Takes::Section(keys) | Takes::Named(keys) | Takes::Items(keys) | Takes::OneOrMore(keys) => collect(keys, names),
            _ => {}
        }
    }
}

/// A text with stars for its secrets, character by character. Variables stay: they hold no secret themselves.
pub fn masked(text: &str) -> String {
    let text = match &*SECRET {
        Some(secret) => secret.replace_all(text, |found: &Captures<'_>| format!("{}{}", &found[1], starred(&found[2]))),
        None => text.into(),
    };
    match &*USER_INFO {
        Some(user) => user.replace_all(&text, |found: &Captures<'_>| format!("{}{}{}", &found[1], starred(&found[2]), &found[3])),
        None => text,
    }
    .into_owned()
}

/// Stars for everything but quotes, brackets and variables.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_starred_and_columns_stay() {
        for (text, shown) in [
            ("secret: abc def # note", "secret: *** *** * ****"),
            ("a: { type: webhook, secret: abc, verify: x }", "a: { type: webhook, secret: ***, verify: x }"),
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
