//! Addresses as `--listen` takes them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

/// An address to listen at, or none. No names but `localhost`: a daemon that has to work when nothing else does must not
/// wait for a resolver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenAddr {
    /// Don't listen.
    None,
    /// This address and port; port 0 lets the kernel choose one.
    Socket(SocketAddr),
}

/// The text is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not an address; write IP:PORT (127.0.0.1:19877, [::1]:19877, 0.0.0.0:19877 for every interface), localhost:PORT, or none"
)]
pub struct ListenAddrError(String);

impl ListenAddr {
    /// What is listened at if nothing is said: loopback only.
    pub const DEFAULT: ListenAddr = ListenAddr::Socket(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 19877));

    /// The address, if there is to be one.
    #[must_use]
    pub fn socket(&self) -> Option<SocketAddr> {
        match self {
            ListenAddr::None => None,
            ListenAddr::Socket(address) => Some(*address),
        }
    }
}

impl FromStr for ListenAddr {
    type Err = ListenAddrError;

    fn from_str(text: &str) -> Result<ListenAddr, ListenAddrError> {
        if text == "none" {
            return Ok(ListenAddr::None);
        }
        let wrong = || ListenAddrError(text.escape_debug().to_string());
        match text.strip_prefix("localhost:") {
            Some(port) => {
                port.parse().map(|port| ListenAddr::Socket(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port))).map_err(|_| wrong())
            }
            None => text.parse().map(ListenAddr::Socket).map_err(|_| wrong()),
        }
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddr::None => f.write_str("none"),
            ListenAddr::Socket(address) => write!(f, "{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn any_text_is_an_address_or_an_error(text: String) {
            if let Ok(address) = text.parse::<ListenAddr>() {
                proptest::prop_assert_eq!(address.to_string().parse::<ListenAddr>(), Ok(address));
            }
        }
    }

    #[test]
    fn addresses_are_read_and_shown() {
        for (text, shown) in [
            ("127.0.0.1:19877", "127.0.0.1:19877"),
            ("[::1]:0", "[::1]:0"),
            ("localhost:80", "127.0.0.1:80"),
            ("0.0.0.0:1", "0.0.0.0:1"),
            ("none", "none"),
        ] {
            assert_eq!(text.parse::<ListenAddr>().map(|address| address.to_string()).as_deref(), Ok(shown));
        }
        assert_eq!(ListenAddr::DEFAULT.to_string().parse(), Ok(ListenAddr::DEFAULT));
        for text in ["", "127.0.0.1", "::1:80", ":80", "host:80", "localhost:", "localhost:65536", "127.0.0.1:-1", "None", "1\n:2"] {
            let error = text.parse::<ListenAddr>().expect_err(text).to_string();
            assert!(error.contains("IP:PORT") && !error.contains('\n'), "{error}");
        }
    }
}
