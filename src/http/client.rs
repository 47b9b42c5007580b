//! The address of a request's client, as far as its headers can be trusted.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;

use crate::config::server::ProxyTrust;

/// The peer of the socket, put into each request by the code that accepts connections. Callers
/// inside the process have none.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// Marks a request that came over a socket of this server, so that rules of HTTP on the wire apply
/// to it.
#[derive(Debug, Clone, Copy)]
pub struct OverSocket;

/// The client's address: the right-most entry of `X-Forwarded-For` that no trusted proxy added,
/// else the peer. Entries further left are the client's own claims and never used.
pub fn address(peer: IpAddr, headers: &HeaderMap, trust: &ProxyTrust) -> IpAddr {
    let peer = peer.to_canonical();
    // A proxy appends to the list; several headers of the name are one list.
    let forwarded: Vec<Option<IpAddr>> = headers
        .get_all("x-forwarded-for")
        .iter()
        .flat_map(|v| v.to_str().unwrap_or("").split(','))
        .map(read)
        .collect();
    let real = || headers.get("x-real-ip").and_then(|v| v.to_str().ok()).and_then(read);
    match trust {
        ProxyTrust::None => peer,
        ProxyTrust::Hops(hops) => match forwarded.len().checked_sub(*hops) {
            // An entry that is no address means that the chain is not what it should be: believe
            // the socket.
            Some(at) => forwarded[at].unwrap_or(peer),
            None if forwarded.is_empty() => real().unwrap_or(peer),
            // Fewer entries than hops: the left-most was added by a trusted proxy.
            None => forwarded[0].unwrap_or(peer),
        },
        ProxyTrust::Networks(networks) => {
            if !networks.contains(peer) {
                return peer;
            }
            if forwarded.is_empty() {
                return real().unwrap_or(peer);
            }
            let mut client = peer;
            for entry in forwarded.iter().rev() {
                let Some(address) = entry else { return client };
                client = *address;
                if !networks.contains(client) {
                    break;
                }
            }
            client
        }
    }
}

/// Reads an address with or without a port: `192.0.2.7`, `192.0.2.7:4711`, `2001:db8::1`,
/// `[2001:db8::1]:4711`.
fn read(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|t| t.split(']').next()).unwrap_or(text);
    bare.parse::<IpAddr>()
        .ok()
        .or_else(|| text.parse::<SocketAddr>().ok().map(|a| a.ip()))
        .map(|a| a.to_canonical())
}

/// The scheme and host that the sender used, for signatures that cover the URL. Forwarding headers
/// count only where a proxy is trusted.
pub fn origin(headers: &HeaderMap, trust: &ProxyTrust) -> String {
    let text = |name: &str| {
        headers
            .get(name)
            .and_then(|v| v.to_str().ok())
            .and_then(|v| v.split(',').next())
            .map(str::trim)
    };
    let trusted = |name: &str| if *trust == ProxyTrust::None { None } else { text(name) };
    let scheme = match trusted("x-forwarded-proto") {
        Some("https") => "https",
        _ => "http",
    };
    let host = trusted("x-forwarded-host").or_else(|| text("host")).unwrap_or("localhost");
    format!("{scheme}://{host}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::cidr::Networks;
    use axum::http::HeaderValue;

    fn from(peer: &str, forwarded: &[&'static str], trust: &ProxyTrust) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("x-forwarded-for", HeaderValue::from_static(value));
        }
        address(peer.parse().unwrap(), &headers, trust).to_string()
    }

    #[test]
    fn a_forged_list_changes_nothing() {
        let hop = ProxyTrust::Hops(1);
        assert_eq!(from("10.0.0.1", &["203.0.113.9"], &hop), "203.0.113.9");
        assert_eq!(from("10.0.0.1", &["6.6.6.6, 7.7.7.7, 203.0.113.9"], &hop), "203.0.113.9");
        assert_eq!(from("10.0.0.1", &["6.6.6.6", "203.0.113.9"], &hop), "203.0.113.9");
        assert_eq!(from("10.0.0.1", &["6.6.6.6"], &ProxyTrust::None), "10.0.0.1");
        assert_eq!(from("10.0.0.1", &["203.0.113.9, nonsense"], &hop), "10.0.0.1");
        assert_eq!(
            from("10.0.0.1", &["6.6.6.6, 203.0.113.9, 10.0.0.2"], &ProxyTrust::Hops(2)),
            "203.0.113.9"
        );
    }

    #[test]
    fn only_proxies_of_the_list_are_believed() {
        let trust = ProxyTrust::Networks(Networks::parse(["10.0.0.0/8"]).unwrap());
        assert_eq!(from("10.0.0.1", &["6.6.6.6, 203.0.113.9, 10.1.1.1"], &trust), "203.0.113.9");
        assert_eq!(from("192.0.2.1", &["203.0.113.9"], &trust), "192.0.2.1");
        assert_eq!(from("::ffff:10.0.0.1", &["[2001:db8::1]:443"], &trust), "2001:db8::1");
    }
}
