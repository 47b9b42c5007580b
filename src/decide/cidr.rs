//! Lists of addresses and networks.

use std::net::IpAddr;

use ipnet::IpNet;

/// Addresses and CIDR networks; an IPv4-mapped IPv6 address counts as its IPv4 address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks(Vec<IpNet>);

impl Networks {
    /// Reads entries like `10.0.0.0/8`, `192.0.2.7` or `2001:db8::/32`.
    ///
    /// # Errors
    /// A sentence that names the entry that is neither.
    pub fn parse<'a>(entries: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        entries.into_iter().map(parse_one).collect::<Result<_, _>>().map(Self)
    }

    /// Whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an address is in one of the networks.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|net| net.contains(&address))
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// As [`Networks::parse`].
    pub fn push(&mut self, entry: &str) -> Result<(), String> {
        self.0.push(parse_one(entry)?);
        Ok(())
    }
}

fn parse_one(entry: &str) -> Result<IpNet, String> {
    let entry = entry.trim();
    let bad = || format!("`{entry}` is neither an IP address nor a network like `10.0.0.0/8`");
    match entry.parse::<IpAddr>() {
        Ok(address) => Ok(IpNet::from(address.to_canonical())),
        Err(_) => entry.parse::<IpNet>().map(|net| net.trunc()).map_err(|_| bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_addresses_and_networks_of_both_families_match() {
        let list = Networks::parse(["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"]).unwrap();
        for (address, expected) in [
            ("10.9.8.7", true),
            ("11.0.0.1", false),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("2001:db8::1", true),
            ("::ffff:10.1.1.1", true),
        ] {
            assert_eq!(list.contains(address.parse().unwrap()), expected, "{address}");
        }
        assert!(Networks::parse(["ten"]).is_err());
        assert!(Networks::parse(["10.0.0.0/33"]).is_err());
    }
}
