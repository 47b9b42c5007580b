//! Decides which URLs and IP addresses outgoing calls may reach, as protection against SSRF.
//!
//! Two checks: the URL as written when the configuration is read, and every resolved address when a
//! connection is made. A URL has one of two authors. The *operator* writes YAML and may name
//! private hosts of their network; a *stranger* sends URLs over an API and reaches public addresses
//! only.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

use super::cidr::Networks;

/// Who supplied a URL. An operator's URLs may name private hosts; a stranger's must resolve to
/// public addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Author {
    /// The person who wrote the configuration.
    Operator,
    /// Someone who called an API.
    Stranger,
}

/// What may be reached although it is private, and which ports may not be reached at all. The
/// configuration sets it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// `server.allow_private_urls`: private and loopback addresses are allowed everywhere.
    pub allow_private: bool,
    /// Host names or globs whose addresses may be private.
    pub hosts: Vec<String>,
    /// Networks that may be reached although private.
    pub networks: Networks,
    /// Ports that may not be reached.
    pub denied_ports: Vec<u16>,
}

/// How an IP address is classified for outgoing calls. The text in each variant names the range for
/// error messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressClass {
    /// Reachable for everyone.
    Public,
    /// Loopback, RFC 1918, ULA or CGNAT.
    Private(&'static str),
    /// Link-local, metadata, multicast or reserved. Allowed only where `Policy::networks` lists its
    /// network.
    Special(&'static str),
}

/// Classifies an address, looking through every way of writing IPv4 inside IPv6.
pub fn kind(address: IpAddr) -> AddressClass {
    match address {
        IpAddr::V4(v4) => kind_v4(v4),
        IpAddr::V6(v6) => kind_v6(v6),
    }
}

fn kind_v4(a: Ipv4Addr) -> AddressClass {
    let o = a.octets();
    match o {
        [169, 254, ..] => AddressClass::Special("link-local and metadata"),
        [100, 100, 100, 200] | [168, 63, 129, 16] | [192, 0, 0, 192] => {
            AddressClass::Special("cloud metadata")
        }
        [127, ..] => AddressClass::Private("loopback"),
        [10, ..] | [192, 168, ..] => AddressClass::Private("private"),
        [172, b, ..] if (16..32).contains(&b) => AddressClass::Private("private"),
        [100, b, ..] if (64..128).contains(&b) => AddressClass::Private("carrier-grade NAT"),
        // Linux connects 0.0.0.0 to loopback.
        [0, 0, 0, 0] => AddressClass::Private("unspecified"),
        [0, ..] => AddressClass::Special("this network"),
        [192, 0, 0, _] | [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => {
            AddressClass::Special("documentation or protocol")
        }
        [198, 18 | 19, ..] => AddressClass::Special("benchmarking"),
        [192, 88, 99, _] => AddressClass::Special("6to4 relay"),
        [224..=239, ..] => AddressClass::Special("multicast"),
        [240..=255, ..] => AddressClass::Special("reserved"),
        _ => AddressClass::Public,
    }
}

fn kind_v6(a: Ipv6Addr) -> AddressClass {
    if a == Ipv6Addr::LOCALHOST {
        return AddressClass::Private("loopback");
    }
    if a == Ipv6Addr::UNSPECIFIED {
        return AddressClass::Private("unspecified");
    }
    let s = a.segments();
    if let Some(v4) = a.to_ipv4_mapped() {
        return kind_v4(v4);
    }
    let embedded = Ipv4Addr::from(((u32::from(s[6])) << 16) | u32::from(s[7]));
    match s {
        // NAT64: judged by the IPv4 address it stands for; its local variant has no global meaning.
        [0x64, 0xff9b, 0, 0, 0, 0, _, _] => kind_v4(embedded),
        [0x64, 0xff9b, ..] => AddressClass::Special("local NAT64"),
        // Everything else in ::/8, IPv4-compatible and translated addresses among it.
        [first, ..] if first >> 8 == 0 => AddressClass::Special("IPv4 in disguise"),
        [_, _, _, _, 0 | 0x200, 0x5efe, _, _] => AddressClass::Special("ISATAP"),
        [0x2002, ..] => AddressClass::Special("6to4"),
        [0x2001, 0, ..] => AddressClass::Special("Teredo"),
        [0x2001, 0xdb8, ..] => AddressClass::Special("documentation"),
        [0x2001, b, ..] if b < 0x200 => AddressClass::Special("protocol assignments"),
        [0x3fff, b, ..] if b < 0x1000 => AddressClass::Special("documentation"),
        [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254] => AddressClass::Special("cloud metadata"),
        [first, ..] if first & 0xfe00 == 0xfc00 => AddressClass::Private("unique local"),
        [first, ..] if first & 0xffc0 == 0xfe80 => AddressClass::Special("link-local"),
        [first, ..] if first & 0xffc0 == 0xfec0 => AddressClass::Special("site-local"),
        [first, ..] if first & 0xff00 == 0xff00 => AddressClass::Special("multicast"),
        [first, ..] if first & 0xe000 != 0x2000 => AddressClass::Special("reserved"),
        _ => AddressClass::Public,
    }
}

/// Whether a host name is one that private networks use: a single label, or a well-known ending
/// such as `.internal`. An operator's URL with such a name may resolve to a private address.
pub fn is_private_name(host: &str) -> bool {
    const ENDINGS: [&str; 8] = [
        ".internal",
        ".local",
        ".lan",
        ".home.arpa",
        ".svc",
        ".cluster.local",
        ".test",
        ".localdomain",
    ];
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    host != "metadata.google.internal"
        && (!host.contains('.') || ENDINGS.iter().any(|e| host.ends_with(e)))
}

impl Policy {
    /// Checks an address that `host` has resolved to, or that `host` is.
    ///
    /// # Errors
    /// A sentence: what kind of address is refused.
    pub fn judge(&self, author: Author, host: &str, address: IpAddr) -> Result<(), String> {
        if self.networks.contains(address) {
            return Ok(());
        }
        let refuse = |what: &str| Err(format!("{host} resolves to {address}, a {what} address"));
        match kind(address) {
            AddressClass::Public => Ok(()),
            AddressClass::Private(_) if self.allow_private || self.lists(host) => Ok(()),
            AddressClass::Private(_) if author == Author::Operator && is_private_name(host) => {
                Ok(())
            }
            AddressClass::Private(what) | AddressClass::Special(what) => refuse(what),
        }
    }

    /// Checks a URL as written: its scheme, user info and port, and its host when that is an
    /// address or `localhost`.
    ///
    /// # Errors
    /// Why it may not be called.
    pub fn judge_url(&self, url: &Url) -> Result<(), UrlRefusal> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(UrlRefusal::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(UrlRefusal::UserInfo);
        }
        let port = url.port_or_known_default().unwrap_or(0);
        if port == 0 || self.denied_ports.contains(&port) {
            return Err(UrlRefusal::Port);
        }
        let (host, address) = match url.host() {
            None => return Err(UrlRefusal::Scheme),
            Some(Host::Ipv4(v4)) => (v4.to_string(), IpAddr::V4(v4)),
            Some(Host::Ipv6(v6)) => (v6.to_string(), IpAddr::V6(v6)),
            Some(Host::Domain(name)) => {
                let bare = name.trim_end_matches('.').to_ascii_lowercase();
                let forbidden = bare == "localhost" || bare.ends_with(".localhost");
                if bare == "metadata.google.internal" {
                    return Err(UrlRefusal::Special);
                }
                return if forbidden && !self.allow_private && !self.lists(&bare) {
                    Err(UrlRefusal::Private)
                } else {
                    Ok(())
                };
            }
        };
        if self.networks.contains(address) {
            return Ok(());
        }
        match kind(address) {
            AddressClass::Public => Ok(()),
            AddressClass::Private(_) if self.allow_private || self.lists(&host) => Ok(()),
            AddressClass::Private(_) => Err(UrlRefusal::Private),
            AddressClass::Special(_) => Err(UrlRefusal::Special),
        }
    }

    /// Whether `Policy::hosts` lists a host, by name or by a glob such as `*.example.com`.
    fn lists(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        self.hosts.iter().any(|entry| match entry.strip_prefix("*.") {
            Some(suffix) => {
                host.strip_suffix(suffix).is_some_and(|head| head.ends_with('.') && head.len() > 1)
            }
            None => *entry == host,
        })
    }
}

/// Why a URL as written is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlRefusal {
    /// The scheme is neither `http` nor `https`, or the URL has no host.
    #[error("the scheme must be http or https")]
    Scheme,
    /// A user name or password in the URL.
    #[error("it contains a user name or password")]
    UserInfo,
    /// Port 0, or one of the denied ones.
    #[error("its port is not allowed (see `server.denied_ports`)")]
    Port,
    /// A private or loopback address.
    #[error("it is a private or loopback address")]
    Private,
    /// Metadata, link-local, multicast or reserved. Reached only where `Policy::networks` lists its
    /// network.
    #[error("it is a link-local, metadata or reserved address")]
    Special,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refused(url: &str) -> bool {
        match Url::parse(url) {
            Ok(url) => Policy::default().judge_url(&url).is_err(),
            Err(_) => true,
        }
    }

    #[test]
    fn every_spelling_of_a_private_address_is_refused() {
        for url in [
            "http://127.0.0.1/",
            "http://localhost/",
            "http://LOCALHOST/",
            "http://localhost./",
            "http://foo.localhost/",
            "http://127.1/",
            "http://127.0.1/",
            "http://2130706433/",
            "http://017700000001/",
            "http://0x7f000001/",
            "http://0x7f.1/",
            "http://0177.0.0.1/",
            "http://0/",
            "http://0.0.0.0/",
            "http://0.1.2.3/",
            "http://[::1]/",
            "http://[0:0:0:0:0:0:0:1]/",
            "http://[::]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::ffff:a9fe:a9fe]/",
            "http://[::7f00:1]/",
            "http://[::ffff:0:7f00:1]/",
            "http://[::5efe:7f00:1]/",
            "http://[2001:db8::5efe:7f00:1]/",
            "http://[64:ff9b::a9fe:a9fe]/",
            "http://[64:ff9b:1::a9fe:a9fe]/",
            "http://[2002:a9fe:a9fe::1]/",
            "http://[2001:0:1::1]/",
            "http://[fec0::1]/",
            "http://[fe80::1%25eth0]/",
            "http://[fe80::1]/",
            "http://[fc00::1]/",
            "http://[ff02::1]/",
            "http://[100::1]/",
            "http://[5f00::1]/",
            "http://169.254.169.254/",
            "http://169.254.170.2/",
            "http://[fd00:ec2::254]/",
            "http://100.100.100.200/",
            "http://168.63.129.16/",
            "http://192.0.0.192/",
            "http://metadata.google.internal/",
            "http://10.0.0.1/",
            "http://172.16.0.1/",
            "http://192.168.1.1/",
            "http://100.64.0.1/",
            "http://192.0.0.1/",
            "http://192.0.2.1/",
            "http://198.18.0.1/",
            "http://198.51.100.1/",
            "http://203.0.113.1/",
            "http://192.88.99.1/",
            "http://224.0.0.1/",
            "http://240.0.0.1/",
            "http://255.255.255.255/",
            "http://user@127.0.0.1/",
            "http://a:b@169.254.169.254/",
            "http://evil.test:80@127.0.0.1/",
            "http://user@example.com/",
            "http://127.0.0.1?x",
            "http://127.0.0.1#x",
            "http://127.0.0.1\\@evil.test/",
            "http:\\\\127.0.0.1\\",
            "http://①②⑦.0.0.1/",
            "http://127。0。0。1/",
            "http://127.0\u{ad}.0.1/",
            "file:///etc/passwd",
            "ftp://example.com/",
            "gopher://example.com/",
            "javascript:alert(1)",
            "http:127.0.0.1",
            "//x",
            "http://example.com:0/",
            "http://example.com:65536/",
        ] {
            assert!(refused(url), "{url}");
        }
        for url in [
            "https://example.com/",
            "HTTP://example.com/",
            "http://billing:3000/x",
            "http://93.184.216.34/",
            "http://[2606:2800:220:1::1]/",
        ] {
            assert!(!refused(url), "{url}");
        }
    }

    #[test]
    fn operators_may_name_private_hosts_and_strangers_may_not() {
        let policy = Policy::default();
        let private: IpAddr = "10.1.2.3".parse().unwrap();
        let metadata: IpAddr = "169.254.169.254".parse().unwrap();
        assert!(policy.judge(Author::Operator, "billing", private).is_ok());
        assert!(policy.judge(Author::Operator, "api.internal", private).is_ok());
        assert!(policy.judge(Author::Operator, "public.example.com", private).is_err());
        assert!(policy.judge(Author::Operator, "billing", metadata).is_err());
        assert!(policy.judge(Author::Stranger, "billing", private).is_err());
    }

    #[test]
    fn exceptions_are_by_host_or_network() {
        let mut networks = Networks::default();
        networks.push("10.0.0.0/8").unwrap();
        let policy = Policy {
            allow_private: false,
            hosts: vec!["*.corp.example".into(), "db.example".into()],
            networks,
            denied_ports: Vec::new(),
        };
        let ok = |host: &str, ip: &str| {
            policy.judge(Author::Stranger, host, ip.parse().unwrap()).is_ok()
        };
        assert!(ok("any.example", "10.2.3.4"));
        assert!(ok("a.corp.example", "192.168.0.1"));
        assert!(!ok("corp.example", "192.168.0.1"));
        assert!(!ok("xcorp.example", "192.168.0.1"));
        assert!(ok("db.example", "192.168.0.1"));
        assert!(!ok("db.example", "169.254.169.254"));
        assert!(policy.judge_url(&Url::parse("http://10.9.9.9/").unwrap()).is_ok());
    }

    proptest! {
        #[test]
        fn nat64_is_judged_by_what_it_stands_for(v4: u32) {
            let v4 = Ipv4Addr::from(v4);
            let [a, b, c, d] = v4.octets().map(u16::from);
            let nat64 = Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, a << 8 | b, c << 8 | d);
            prop_assert_eq!(kind(IpAddr::V6(nat64)), kind(IpAddr::V4(v4)));
            prop_assert_eq!(kind(IpAddr::V6(v4.to_ipv6_mapped())), kind(IpAddr::V4(v4)));
        }

        #[test]
        fn no_url_text_panics(text in "\\PC{0,60}") {
            if let Ok(url) = Url::parse(&text) {
                let _ = Policy::default().judge_url(&url);
            }
        }
    }
}
