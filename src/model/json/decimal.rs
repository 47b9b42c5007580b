//! Compares numbers by value, at any precision. A number stays text; it never becomes a double.

use std::cmp::Ordering;

/// A number taken apart as `0.digits × 10^scale`. The digits have no zeros at either end; zero has
/// no digits.
struct Decimal<'a> {
    is_negative: bool,
    whole: &'a str,
    fraction: &'a str,
    scale: i128,
}

impl<'a> Decimal<'a> {
    fn read(text: &'a str) -> Self {
        let is_negative = text.starts_with('-');
        let text = text.trim_start_matches(['-', '+']);
        let (mantissa, exponent) = match text.find(['e', 'E']) {
            Some(at) => (&text[..at], &text[at + 1..]),
            None => (text, ""),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
        // An exponent beyond 38 digits is as good as endless.
        let far = if exponent.starts_with('-') { i128::MIN / 4 } else { i128::MAX / 4 };
        let exponent = if exponent.is_empty() { 0 } else { exponent.parse().unwrap_or(far) };
        let length = |text: &str| i128::try_from(text.len()).unwrap_or(i128::MAX / 4);
        let (scale, fraction) = if whole.is_empty() {
            let cut = fraction.trim_start_matches('0');
            (-(length(fraction) - length(cut)), cut)
        } else {
            (length(whole), fraction)
        };
        let whole = if fraction.is_empty() { whole.trim_end_matches('0') } else { whole };
        Self { is_negative, whole, fraction, scale: scale.saturating_add(exponent) }
    }

    fn digits(&self) -> impl Iterator<Item = u8> {
        self.whole.bytes().chain(self.fraction.bytes())
    }

    fn is_zero(&self) -> bool {
        self.whole.is_empty() && self.fraction.is_empty()
    }
}

/// Compares two numbers as JSON writes them.
pub fn compare(a: &str, b: &str) -> Ordering {
    let (a, b) = (Decimal::read(a), Decimal::read(b));
    match (a.is_zero(), b.is_zero()) {
        (true, true) => return Ordering::Equal,
        (true, false) => return if b.is_negative { Ordering::Greater } else { Ordering::Less },
        (false, true) => return if a.is_negative { Ordering::Less } else { Ordering::Greater },
        (false, false) => {}
    }
    match (a.is_negative, b.is_negative) {
        (false, true) => Ordering::Greater,
        (true, false) => Ordering::Less,
        (is_negative, _) => {
            let size = a.scale.cmp(&b.scale).then_with(|| a.digits().cmp(b.digits()));
            if is_negative { size.reverse() } else { size }
        }
    }
}

/// One common text for all spellings of the same number.
pub fn canonical(text: &str) -> String {
    let number = Decimal::read(text);
    if number.is_zero() {
        return "0".to_owned();
    }
    let sign = if number.is_negative { "-" } else { "" };
    format!("{sign}{}{}e{}", number.whole, number.fraction, number.scale)
}

/// Whether a number is zero.
pub fn is_zero(text: &str) -> bool {
    Decimal::read(text).is_zero()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_compared_by_their_value() {
        for (a, order, b) in [
            ("100", Ordering::Equal, "100.0"),
            ("1e2", Ordering::Equal, "100"),
            ("0.001", Ordering::Equal, "1e-3"),
            ("-0", Ordering::Equal, "0.0e9"),
            ("100000000000000000001", Ordering::Less, "100000000000000000002"),
            ("1152921504606846977", Ordering::Greater, "1152921504606846976"),
            ("1e999", Ordering::Greater, "1e998"),
            ("-1e999", Ordering::Less, "1"),
            ("0.1", Ordering::Less, "0.10000000000000000000000001"),
            ("1e-99999999999999999999999999999999999999999999", Ordering::Less, "1"),
            ("9", Ordering::Less, "10"),
            ("-9", Ordering::Greater, "-10"),
            ("0.05", Ordering::Less, "0.5"),
            ("120", Ordering::Greater, "12"),
        ] {
            assert_eq!(compare(a, b), order, "{a} {b}");
            assert_eq!(compare(b, a), order.reverse(), "{b} {a}");
        }
        let long = "7".repeat(1_000_000);
        assert_eq!(compare(&long, &format!("{long}.0")), Ordering::Equal);
    }

    proptest! {
        #[test]
        fn whole_numbers_are_in_their_order(a: i64, b: i64, zeros in 0usize..4) {
            let padded = format!("{b}.{}", "0".repeat(zeros + 1));
            prop_assert_eq!(compare(&a.to_string(), &padded), a.cmp(&b));
        }
    }
}
