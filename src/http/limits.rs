//! Limits requests per client address, in this process only. Limits that must hold over all
//! processes are in the store.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;

use arc_swap::ArcSwap;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

/// The most addresses that are remembered; beyond it, idle ones are forgotten, then all.
const ADDRESSES_MAX: usize = 50_000;

/// A rate limit for each client address; one IPv6 client is a whole /64.
pub struct PerAddress {
    quota: Quota,
    limiter: ArcSwap<DefaultKeyedRateLimiter<IpAddr>>,
}

impl PerAddress {
    /// Allows each address this many requests a second, and as many at once.
    pub fn new(per_second: NonZeroU32) -> Self {
        let quota = Quota::per_second(per_second);
        Self { quota, limiter: ArcSwap::from(Arc::new(RateLimiter::keyed(quota))) }
    }

    /// Whether one more request of this address may pass now; a request that passes is counted.
    pub fn allows(&self, address: IpAddr) -> bool {
        let limiter = self.limiter.load();
        if limiter.len() >= ADDRESSES_MAX {
            limiter.retain_recent();
            // Still full: a flood from many addresses. It is forgotten whole, so that new clients
            // are served.
            if limiter.len() >= ADDRESSES_MAX {
                self.limiter.store(Arc::new(RateLimiter::keyed(self.quota)));
            }
        }
        limiter.check_key(&client_key(address)).is_ok()
    }

    /// How many addresses are remembered.
    pub fn remembered(&self) -> usize {
        self.limiter.load().len()
    }
}

/// The address under which a client is counted: itself for IPv4, its /64 network for IPv6.
pub(super) fn client_key(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => {
            let s = v6.segments();
            IpAddr::V6(Ipv6Addr::new(s[0], s[1], s[2], s[3], 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_own_budget() {
        let limit = PerAddress::new(NonZeroU32::new(2).unwrap());
        let (a, b) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        assert_eq!(
            [limit.allows(a), limit.allows(a), limit.allows(a), limit.allows(b)],
            [true, true, false, true]
        );
    }

    #[test]
    fn a_flood_of_addresses_is_bounded_and_locks_nobody_out() {
        let limit = PerAddress::new(NonZeroU32::new(1).unwrap());
        for n in 0..120_000u32 {
            assert!(limit.allows(IpAddr::from(n.to_be_bytes())), "{n}");
        }
        assert!(limit.remembered() <= ADDRESSES_MAX);
    }
}
