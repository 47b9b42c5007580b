//! The token bucket of a lane's rate limit, as pure functions of state and time.

use crate::model::Timestamp;
use crate::model::lane::Bucket;

/// The bucket refilled up to `now`. It holds at most one second's worth of tokens.
pub fn refilled(bucket: &Bucket, now: Timestamp) -> Bucket {
    let rate = f64::from(bucket.rate);
    let tokens = (bucket.tokens + now.since(bucket.refilled_at).as_secs_f64() * rate).min(rate);
    // A clock that was set back must not freeze the bucket: its mark follows.
    Bucket { tokens, refilled_at: now, ..*bucket }
}

/// How many whole tokens the bucket holds, which is how many jobs may be claimed now.
pub fn available(bucket: &Bucket) -> u32 {
    // The value is within 0..=rate, which is a u32.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to the range of the rate"
    )]
    let whole = bucket.tokens.clamp(0.0, f64::from(bucket.rate)).floor() as u32;
    whole
}

/// The bucket after `taken` tokens were used.
pub fn spent(bucket: &Bucket, taken: u32) -> Bucket {
    Bucket { tokens: (bucket.tokens - f64::from(taken)).max(0.0), ..*bucket }
}

/// The instant when the next whole token will be available.
pub fn next_token(bucket: &Bucket) -> Timestamp {
    let missing = (1.0 - bucket.tokens).max(0.0);
    let wait = std::time::Duration::from_secs_f64(missing / f64::from(bucket.rate.max(1)));
    bucket.refilled_at.plus(wait + std::time::Duration::from_millis(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_bucket_gives_its_rate_each_second_and_no_more() {
        let start = Timestamp(0);
        let mut bucket = Bucket { rate: 5, tokens: 5.0, refilled_at: start };
        assert_eq!(available(&bucket), 5);
        bucket = spent(&bucket, 5);
        assert_eq!(available(&bucket), 0);
        assert_eq!(available(&refilled(&bucket, start.plus(Duration::from_millis(400)))), 2);
        assert_eq!(available(&refilled(&bucket, start.plus(Duration::from_secs(3600)))), 5);
        assert!(available(&refilled(&bucket, next_token(&bucket))) >= 1);
    }

    #[test]
    fn a_clock_set_back_does_not_freeze_it() {
        let bucket = Bucket { rate: 1, tokens: 0.0, refilled_at: Timestamp(1_000_000) };
        let back = refilled(&bucket, Timestamp(0));
        assert_eq!(available(&refilled(&back, Timestamp(1_000))), 1);
    }
}
