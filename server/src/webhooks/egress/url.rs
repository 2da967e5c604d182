//! What a customer may write as the URL of an endpoint.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use reqwest::Url;

use super::address::Range;
use super::guard::{Forbidden, Guard};

/// Bytes of a URL.
const MAX_URL: usize = 2048;

/// Bytes of a host's name and of each of its labels (RFC 1035).
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

/// The URL of an endpoint, that somebody who means no harm could have written and that every reader understands alike.
///
/// It is plain ASCII. An international name is written as it is looked up (`xn--…`) and must be what the standard makes of
/// it. A number in any notation is the address that it means.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EndpointUrl(Url);

/// Why a URL is none that webhooks may be sent to. Completes the sentence "The URL …".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefusedUrl {
    #[error("must have at most {MAX_URL} bytes")]
    TooLong,
    #[error(
        "must consist of visible ASCII characters, without backslashes: write an international name as xn--…, and \
         anything else percent-encoded"
    )]
    Characters,
    #[error("must begin with https:// or http://")]
    Scheme,
    #[error("must not have a user name or password in it: use headers of the endpoint")]
    UserInfo,
    #[error("must not have a fragment (#…), which would never be sent")]
    Fragment,
    #[error("must name its host by letters, digits, hyphens and dots, or by an IP address")]
    Host,
    #[error("must not have a dot at the end of its host")]
    TrailingDot,
    #[error("is not well-formed")]
    Malformed,
    #[error("must not use port {0}: 80, 443 and most of those from 1024 on are possible")]
    Port(u16),
    #[error("must lead to a public address: {address} is in {range}")]
    Address { address: IpAddr, range: &'static Range },
    #[error("must lead to a public host: {0} is a name inside a private network")]
    PrivateName(String),
    #[error("must not lead to this platform itself")]
    OwnHost,
}

impl EndpointUrl {
    /// # Errors
    /// See [`RefusedUrl`].
    pub fn parse(text: &str, guard: &Guard) -> Result<Self, RefusedUrl> {
        if text.len() > MAX_URL {
            return Err(RefusedUrl::TooLong);
        }
        // The parser drops tabs and newlines, takes a backslash for a slash, and folds full-width characters.
        if !text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\') {
            return Err(RefusedUrl::Characters);
        }
        let (scheme, rest) = text.split_once("://").ok_or(RefusedUrl::Scheme)?;
        if !["http", "https"]
            .iter()
            .any(|known| scheme.eq_ignore_ascii_case(known))
        {
            return Err(RefusedUrl::Scheme);
        }
        if rest.contains('#') {
            return Err(RefusedUrl::Fragment);
        }
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        if authority.contains('@') {
            return Err(RefusedUrl::UserInfo);
        }
        let written = host_of(authority);
        check_host(written)?;
        let url = Self(Url::parse(text).map_err(|_| RefusedUrl::Malformed)?);
        if url.address().is_none() && url.host() != written.to_ascii_lowercase() {
            return Err(RefusedUrl::Host);
        }
        url.judge(guard)?;
        Ok(url)
    }

    /// Asks the rules again, which may be others than those that it was parsed with.
    pub(super) fn judge(&self, guard: &Guard) -> Result<(), RefusedUrl> {
        let port = self.0.port_or_known_default().ok_or(RefusedUrl::Malformed)?;
        if !guard.allows_port(port) {
            return Err(RefusedUrl::Port(port));
        }
        if guard.is_own_name(self.host()) {
            return Err(RefusedUrl::OwnHost);
        }
        match self.address() {
            Some(address) => guard.check_address(address).map_err(|why| match why {
                Forbidden::Range(range) => RefusedUrl::Address { address, range },
                Forbidden::OwnHost => RefusedUrl::OwnHost,
            }),
            None if guard.is_private_name(self.host()) => {
                Err(RefusedUrl::PrivateName(self.host().to_owned()))
            }
            None => Ok(()),
        }
    }

    /// In lower case; an IPv6 address in brackets.
    pub fn host(&self) -> &str {
        self.0.host_str().unwrap_or_default()
    }

    /// Of a host that was written as an address. The parser has made four decimal numbers of every IPv4 notation.
    fn address(&self) -> Option<IpAddr> {
        let host = self.host();
        match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(v6) => v6.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            None => host.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        }
    }

    /// As it is sent to, which may differ from what was written in notation.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    pub(super) fn as_url(&self) -> &Url {
        &self.0
    }
}

impl fmt::Display for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Without path and query, in which customers have their tokens.
impl fmt::Debug for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EndpointUrl({}/…)", self.0.origin().ascii_serialization())
    }
}

/// The host in `host`, `host:port`, `[v6]` and `[v6]:port`.
fn host_of(authority: &str) -> &str {
    match authority.find(']') {
        Some(end) => &authority[..=end],
        None => authority.split(':').next().unwrap_or_default(),
    }
}

/// Whether a host is written in a way that leaves no doubt. The parser would decode `%31`, and take zones for nonsense.
fn check_host(host: &str) -> Result<(), RefusedUrl> {
    if let Some(v6) = host.strip_prefix('[') {
        let is_v6 = |byte: u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.' | b']');
        return v6.bytes().all(is_v6).then_some(()).ok_or(RefusedUrl::Host);
    }
    check_name(host)
}

/// The same for a name, or for an IPv4 address in any notation.
pub(super) fn check_name(host: &str) -> Result<(), RefusedUrl> {
    if host.len() > 1 && host.ends_with('.') {
        return Err(RefusedUrl::TrailingDot);
    }
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_label = |label: &str| (1..=MAX_LABEL).contains(&label.len()) && label.bytes().all(is_plain);
    if host.len() > MAX_NAME || !host.split('.').all(is_label) {
        return Err(RefusedUrl::Host);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_receivers_have_is_accepted_and_written_in_one_way() {
        let guard = Guard::default();
        for (text, means) in [
            ("https://example.com/hook", "https://example.com/hook"),
            ("https://example.com", "https://example.com/"),
            ("HTTPS://Example.COM/Hook", "https://example.com/Hook"),
            ("https://example.com:443/", "https://example.com/"),
            (
                "http://example.com:8080/a?b=c&d=%20",
                "http://example.com:8080/a?b=c&d=%20",
            ),
            (
                "https://example.com/@user?to=a@b",
                "https://example.com/@user?to=a@b",
            ),
            ("https://a_b.example.com/", "https://a_b.example.com/"),
            ("https://xn--bcher-kva.example/", "https://xn--bcher-kva.example/"),
            ("https://8.8.8.8/", "https://8.8.8.8/"),
            ("https://134744072/", "https://8.8.8.8/"),
            ("https://0x08.0x8.010.8/", "https://8.8.8.8/"),
            (
                "https://[2606:4700::1111]:8443/",
                "https://[2606:4700::1111]:8443/",
            ),
            ("https://[::ffff:8.8.8.8]/", "https://[::ffff:808:808]/"),
        ] {
            let url = EndpointUrl::parse(text, &guard).unwrap_or_else(|why| panic!("{text}: the URL {why}"));
            assert_eq!(url.as_str(), means);
        }
    }

    #[test]
    fn the_length_has_a_bound() {
        let guard = Guard::default();
        let url = |length: usize| format!("https://example.com/{:a<1$}", "", length - 20);
        assert!(EndpointUrl::parse(&url(MAX_URL), &guard).is_ok());
        assert_eq!(
            EndpointUrl::parse(&url(MAX_URL + 1), &guard),
            Err(RefusedUrl::TooLong)
        );
    }

    #[test]
    fn tokens_in_a_url_are_not_in_its_debug_output() {
        let url = EndpointUrl::parse("https://example.com/secret?token=secret", &Guard::default()).unwrap();
        assert_eq!(format!("{url:?}"), "EndpointUrl(https://example.com/…)");
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_accepted_is_accepted_again_as_it_was_written_down(
            text in "https?://[a-zA-Z0-9.:\\[\\]%@_-]{1,40}[!-~]{0,20}"
        ) {
            let guard = Guard::default();
            if let Ok(url) = EndpointUrl::parse(&text, &guard) {
                let again = EndpointUrl::parse(url.as_str(), &guard);
                proptest::prop_assert_eq!(again, Ok(url));
            }
        }
    }
}
