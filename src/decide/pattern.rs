//! Event type patterns.
//!
//! `*` is everything; `prefix.*` is the dot and one or more segments; `prefix*` is a plain prefix;
//! text without `*` is exact; `*` and `**` elsewhere are dot-segment globs (one segment, one or
//! more).

/// A compiled event type pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    kind: PatternKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum PatternKind {
    All,
    Exact,
    /// The text without its star.
    Prefix(String),
    Globs(Vec<String>),
}

impl Pattern {
    /// Compiles a pattern. Every text is a valid one.
    pub fn parse(text: &str) -> Self {
        Self { text: text.to_owned(), kind: kind(text) }
    }

    /// Compiles a pattern as qhook 0.6 reads it: `prefix.*` matches any text that begins with
    /// `prefix`, with or without a dot.
    pub fn parse_qhook(text: &str) -> Self {
        let kind = match text.strip_suffix(".*") {
            Some(prefix) if !prefix.contains('*') => PatternKind::Prefix(prefix.to_owned()),
            _ => kind(text),
        };
        Self { text: text.to_owned(), kind }
    }

    /// The pattern as written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether an event type matches.
    pub fn matches(&self, event_type: &str) -> bool {
        match &self.kind {
            PatternKind::All => true,
            PatternKind::Exact => self.text == event_type,
            PatternKind::Prefix(prefix) => {
                // `order.*` keeps its dot in the prefix, so something must follow it.
                event_type.starts_with(prefix.as_str())
                    && !(prefix.ends_with('.') && event_type.len() == prefix.len())
            }
            PatternKind::Globs(globs) => {
                let segments: Vec<&str> = event_type.split('.').collect();
                match_segments(globs, &segments)
            }
        }
    }
}

fn kind(text: &str) -> PatternKind {
    match text.find('*') {
        _ if text == "*" || text == "**" => PatternKind::All,
        None => PatternKind::Exact,
        Some(at) if at == text.len() - 1 => PatternKind::Prefix(text[..at].to_owned()),
        Some(_) => PatternKind::Globs(text.split('.').map(str::to_owned).collect()),
    }
}

/// Matches dot segments against globs. It backtracks over the last `**` only, so its time is at
/// most the product of both lengths.
fn match_segments(globs: &[String], segments: &[&str]) -> bool {
    let (mut g, mut s) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while s < segments.len() {
        if g < globs.len() && globs[g] == "**" {
            retry = Some((g + 1, s + 1));
            g += 1;
            s += 1;
        } else if g < globs.len() && segment_matches(&globs[g], segments[s]) {
            g += 1;
            s += 1;
        } else if let Some((after, from)) = retry {
            g = after;
            s = from;
            retry = Some((after, from + 1));
        } else {
            return false;
        }
    }
    g == globs.len()
}

/// `*` in a segment stands for any text without a dot.
fn segment_matches(glob: &str, segment: &str) -> bool {
    let Some((head, rest)) = glob.split_once('*') else { return glob == segment };
    let Some(mut left) = segment.strip_prefix(head) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let tail = parts.pop().unwrap_or("");
    for part in parts {
        match left.find(part) {
            Some(at) => left = &left[at + part.len()..],
            None => return false,
        }
    }
    left.ends_with(tail) && !(glob == "*" && segment.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_documented() {
        let cases = [
            ("*", "anything.at.all", true),
            ("order.paid", "order.paid", true),
            ("order.paid", "Order.paid", false),
            ("customer.*", "customer.subscription.created", true),
            ("customer.*", "customer", false),
            ("customer.*", "customer.", false),
            ("order.*", "orderly.x", false),
            ("order*", "orderly.x", true),
            ("order*", "order", true),
            ("*.created", "user.created", true),
            ("*.created", "a.b.created", false),
            ("**.created", "a.b.created", true),
            ("a.*.c", "a.b.c", true),
            ("a.*.c", "a.b.x.c", false),
            ("a.**.c", "a.b.x.c", true),
            ("a.**.c", "a.c", false),
            ("**.a.**.b", "x.a.y.a.z.b", true),
            ("x*y.z", "xqy.z", true),
            ("run:completed", "run:completed", true),
        ];
        for (pattern, event, expected) in cases {
            assert_eq!(Pattern::parse(pattern).matches(event), expected, "{pattern} on {event}");
        }
    }

    #[test]
    fn the_qhook_reading_needs_no_dot() {
        assert!(Pattern::parse_qhook("order.*").matches("orderly"));
        assert!(!Pattern::parse("order.*").matches("orderly"));
    }
}
