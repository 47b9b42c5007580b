//! The trace headers of a request. Well-formed ones are kept with its event and passed on to
//! receivers. Source: W3C Trace Context, "traceparent header"; `X-Request-Id` has no standard.

/// The name of the W3C header that carries a trace from service to service.
pub const TRACEPARENT: &str = "traceparent";
/// The name of the header with a request's id.
pub const REQUEST_ID: &str = "x-request-id";
/// The longest request id that is accepted.
const REQUEST_ID_CHARS_MAX: usize = 128;

/// Whether a header is one of these two, and well-formed.
pub fn is_kept(name: &str, value: &str) -> bool {
    match name {
        TRACEPARENT => parse(value).is_some(),
        REQUEST_ID => is_request_id(value),
        _ => false,
    }
}

/// Whether an id is safe to put into logs and headers unchanged.
pub fn is_request_id(id: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:+/=@".contains(&byte);
    !id.is_empty() && id.len() <= REQUEST_ID_CHARS_MAX && id.bytes().all(fits)
}

/// The trace id and the flags of a `traceparent`.
pub fn parse(value: &str) -> Option<(&str, &str)> {
    let mut parts = value.trim().split('-');
    let (version, trace, span, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_hex = |text: &str, len: usize| {
        text.len() == len && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let is_set = |text: &str| text.bytes().any(|b| b != b'0');
    let fits = is_hex(version, 2)
        && version != "ff"
        && is_hex(trace, 32)
        && is_set(trace)
        && is_hex(span, 16)
        && is_set(span);
    // Version 00 has four parts; a later one may have more.
    (fits && is_hex(flags, 2) && (version != "00" || parts.next().is_none()))
        .then_some((trace, flags))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_well_formed_trace_is_taken_over() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(parse(&format!("00-{trace}-00f067aa0ba902b7-01")), Some((trace, "01")));
        assert_eq!(parse(&format!("cc-{trace}-00f067aa0ba902b7-00-later")), Some((trace, "00")));
        for wrong in [
            "".to_owned(),
            "00".to_owned(),
            format!("00-{trace}-00f067aa0ba902b7"),
            format!("00-{trace}-00f067aa0ba902b7-01-more"),
            format!("ff-{trace}-00f067aa0ba902b7-01"),
            format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            format!("00-{trace}-{}-01", "0".repeat(16)),
            format!("00-{}-00f067aa0ba902b7-01", trace.to_uppercase()),
            format!("00-{trace}-00f067aa0ba902b7-0g"),
        ] {
            assert_eq!(parse(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_id_of_a_request_is_taken_over_unless_it_could_be_something_else() {
        for fits in ["1", "req_01J:a.b-c", "Root=1-5e-0"] {
            assert!(is_request_id(fits), "{fits}");
        }
        for wrong in ["", "a b", "a\"b", "<x>", "\u{e4}", &"x".repeat(129)] {
            assert!(!is_request_id(wrong), "{wrong}");
        }
    }
}
