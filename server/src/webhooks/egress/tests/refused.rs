//! What nobody may write as the URL of an endpoint.

use crate::webhooks::egress::{EndpointUrl, Guard, Hosts, RefusedUrl};

/// A URL, with `PORT` for a port, and a part of the text that it is refused with.
pub(super) const REFUSED: &[(&str, &str)] = &[
    // This machine, in every notation.
    ("http://127.0.0.1:PORT/", "loopback"),
    ("https://127.0.0.1:PORT/", "loopback"),
    ("HTTP://127.0.0.1:PORT/", "loopback"),
    ("http://127.1:PORT/", "loopback"),
    ("http://127.0.1:PORT/", "loopback"),
    ("http://127.255.255.254:PORT/", "loopback"),
    ("http://2130706433:PORT/", "loopback"),
    ("http://0x7f000001:PORT/", "loopback"),
    ("http://0X7F000001:PORT/", "loopback"),
    ("http://0x7f.1:PORT/", "loopback"),
    ("http://0x7f.0x0.0x0.0x1:PORT/", "loopback"),
    ("http://017700000001:PORT/", "loopback"),
    ("http://0177.0.0.1:PORT/", "loopback"),
    ("http://0177.0.0.01:PORT/", "loopback"),
    ("http://0:PORT/", "this network"),
    ("http://0.0.0.0:PORT/", "this network"),
    ("http://00000000000:PORT/", "this network"),
    ("http://0.1.2.3:PORT/", "this network"),
    ("http://[::]:PORT/", "unspecified"),
    ("http://[::1]:PORT/", "loopback"),
    ("http://[0:0:0:0:0:0:0:1]:PORT/", "loopback"),
    (
        "http://[0000:0000:0000:0000:0000:0000:0000:0001]:PORT/",
        "loopback",
    ),
    ("http://[::ffff:127.0.0.1]:PORT/", "loopback"),
    ("http://[::FFFF:7F00:1]:PORT/", "loopback"),
    ("http://[::127.0.0.1]:PORT/", "IPv4-compatible"),
    ("http://[64:ff9b::7f00:1]:PORT/", "loopback"),
    ("http://[64:ff9b::127.0.0.1]:PORT/", "loopback"),
    ("http://[64:ff9b:1::7f00:1]:PORT/", "NAT64"),
    ("http://[2002:7f00:1::]:PORT/", "6to4"),
    ("http://[2001:0:7f00:1::80ff:fffe]:PORT/", "Teredo"),
    // Networks that are not for everybody.
    ("http://10.0.0.1:PORT/", "private use"),
    ("http://10.255.255.255:PORT/", "private use"),
    ("http://012.1:PORT/", "private use"),
    ("http://172.16.0.1:PORT/", "private use"),
    ("http://172.31.255.255:PORT/", "private use"),
    ("http://192.168.0.1:PORT/", "private use"),
    ("http://3232235777:PORT/", "private use"),
    ("http://100.64.0.1:PORT/", "carriers"),
    ("http://100.127.255.255:PORT/", "carriers"),
    ("http://169.254.1.1:PORT/", "link-local"),
    ("http://192.0.2.1:PORT/", "documentation"),
    ("http://192.88.99.1:PORT/", "6to4"),
    ("http://198.18.0.1:PORT/", "benchmarks"),
    ("http://198.19.255.255:PORT/", "benchmarks"),
    ("http://198.51.100.1:PORT/", "documentation"),
    ("http://203.0.113.1:PORT/", "documentation"),
    ("http://224.0.0.1:PORT/", "multicast"),
    ("http://239.255.255.250:PORT/", "multicast"),
    ("http://240.0.0.1:PORT/", "reserved"),
    ("http://255.255.255.255:PORT/", "broadcast"),
    ("http://4294967295:PORT/", "broadcast"),
    ("http://[fc00::1]:PORT/", "unique local"),
    ("http://[fdff::1]:PORT/", "unique local"),
    ("http://[fe80::1]:PORT/", "link-local"),
    ("http://[fec0::1]:PORT/", "site-local"),
    ("http://[ff02::1]:PORT/", "multicast"),
    ("http://[2001:db8::1]:PORT/", "documentation"),
    ("http://[100::1]:PORT/", "discard"),
    // Metadata services.
    ("http://169.254.169.254/latest/meta-data/", "link-local"),
    ("http://0xa9fea9fe/latest/meta-data/", "link-local"),
    ("http://[::ffff:169.254.169.254]/latest/meta-data/", "link-local"),
    ("http://[64:ff9b::a9fe:a9fe]/latest/meta-data/", "link-local"),
    ("http://[fd00:ec2::254]/latest/meta-data/", "unique local"),
    ("http://192.0.0.192/opc/v2/", "protocol assignments"),
    ("http://100.100.100.200/latest/meta-data/", "carriers"),
    ("http://metadata.google.internal/", "private network"),
    ("http://METADATA.Google.Internal/", "private network"),
    // Names inside a network, and the platform's own.
    ("http://localhost:PORT/", "private network"),
    ("http://LOCALHOST:PORT/", "private network"),
    ("http://a.localhost:PORT/", "private network"),
    ("http://redis:PORT/", "private network"),
    ("http://printer.local:PORT/", "private network"),
    ("https://sockets.example.com/", "platform"),
    ("https://Sockets.Example.COM:8443/", "platform"),
    ("https://a.nodes.example.com/", "platform"),
    ("https://8.8.4.4/", "platform"),
    ("https://134743044/", "platform"),
    ("https://[::ffff:8.8.4.4]/", "platform"),
    ("https://[64:ff9b::808:404]/", "platform"),
    // Ways of hiding a host.
    ("http://public@127.0.0.1:PORT/", "user name"),
    ("http://example.com@127.0.0.1:PORT/", "user name"),
    ("http://example.com:80@127.0.0.1:PORT/", "user name"),
    ("http://@127.0.0.1:PORT/", "user name"),
    ("http://127.0.0.1:PORT\\@example.com/", "backslashes"),
    ("http://example.com\\@127.0.0.1:PORT/", "backslashes"),
    ("http:\\\\127.0.0.1:PORT/", "backslashes"),
    ("http://127.0.0.1:PORT#@example.com/", "fragment"),
    ("http://example.com#@127.0.0.1:PORT/", "fragment"),
    ("http://example.com/#a", "fragment"),
    ("http://127.0.0.1:PORT/ ", "ASCII"),
    (" http://127.0.0.1:PORT/", "ASCII"),
    ("http://127.0.\t0.1:PORT/", "ASCII"),
    ("http://127.0.\n0.1:PORT/", "ASCII"),
    ("http://127.0.0.1:PORT/\r\nhost:%20a", "ASCII"),
    ("http://127.0.0.1\0.example.com:PORT/", "ASCII"),
    ("http://１２７。０。０。１:PORT/", "ASCII"),
    ("http://①②⑦.⓪.⓪.①:PORT/", "ASCII"),
    ("http://127。0。0。1:PORT/", "ASCII"),
    ("http://ⓛocalhost:PORT/", "ASCII"),
    ("http://bücher.example/", "ASCII"),
    ("http://exam\u{ad}ple.com/", "ASCII"),
    ("http://%31%32%37.0.0.1:PORT/", "letters, digits"),
    ("http://127.0.0.1%2e:PORT/", "letters, digits"),
    ("http://%ef%bc%91.0.0.1:PORT/", "letters, digits"),
    ("http://xn--/", "not well-formed"),
    ("http://xn--localhost-:PORT/", "not well-formed"),
    ("http://xn--a.example/", "not well-formed"),
    ("http://127.0.0.1.:PORT/", "dot at the end"),
    ("http://localhost.:PORT/", "dot at the end"),
    ("http://example.com./", "dot at the end"),
    ("http://[fe80::1%25eth0]:PORT/", "letters, digits"),
    ("http://[fe80::1%eth0]:PORT/", "letters, digits"),
    ("http://[::1:PORT/", "not well-formed"),
    ("http://[::1]example.com:PORT/", "not well-formed"),
    ("http://[127.0.0.1]:PORT/", "not well-formed"),
    ("http://256.0.0.1:PORT/", "not well-formed"),
    ("http://1.2.3.4.5:PORT/", "not well-formed"),
    ("http://127.0.0.1:PORT:80/", "not well-formed"),
    ("http://a..example.com/", "letters, digits"),
    ("http://.example.com/", "letters, digits"),
    ("http://a,b.example.com/", "letters, digits"),
    ("http://", "letters, digits"),
    ("http://:PORT/", "letters, digits"),
    ("http:///127.0.0.1:PORT/", "letters, digits"),
    ("http:127.0.0.1:PORT/", "begin with"),
    ("//127.0.0.1:PORT/", "begin with"),
    ("127.0.0.1:PORT", "begin with"),
    ("", "begin with"),
    // Other schemes.
    ("file:///etc/passwd", "begin with"),
    ("gopher://127.0.0.1:PORT/_GET", "begin with"),
    ("ftp://127.0.0.1:PORT/", "begin with"),
    ("unix:///run/redis.sock", "begin with"),
    ("http+unix://%2Frun%2Fredis.sock/", "begin with"),
    ("data:text/plain,a", "begin with"),
    ("dict://127.0.0.1:PORT/", "begin with"),
    ("ws://example.com/", "begin with"),
    ("javascript:alert(1)", "begin with"),
    // Ports.
    ("http://example.com:0/", "port 0"),
    ("http://example.com:22/", "port 22"),
    ("http://example.com:25/", "port 25"),
    ("http://example.com:81/", "port 81"),
    ("https://example.com:1023/", "port 1023"),
    ("http://example.com:5432/", "port 5432"),
    ("http://example.com:6379/", "port 6379"),
    ("http://example.com:06379/", "port 6379"),
    ("http://example.com:6001/", "port 6001"),
    ("http://example.com:65536/", "not well-formed"),
];

/// Of the platform that the table is about.
pub(super) fn own_hosts() -> Vec<Hosts> {
    let hosts = ["sockets.example.com", "*.nodes.example.com", "8.8.4.0/24"];
    hosts.map(|text| text.parse().unwrap()).into()
}

#[test]
fn each_of_these_is_refused_with_a_text_that_says_why() {
    let guard = Guard::new(Vec::new(), vec![5432, 6001, 6379], own_hosts());
    let mut complaints = Vec::new();
    for (url, text) in REFUSED {
        match EndpointUrl::parse(&url.replace("PORT", "8080"), &guard) {
            Ok(accepted) => complaints.push(format!("{url:?} was taken for {accepted}")),
            Err(why) if !why.to_string().contains(text) => {
                complaints.push(format!("{url:?}: {why}, not {text}"));
            }
            Err(_) => {}
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    assert!(REFUSED.len() >= 60);
}

#[test]
fn what_was_parsed_under_other_rules_is_judged_again() {
    let url = EndpointUrl::parse("https://example.com:8443/", &Guard::default()).unwrap();
    let stricter = Guard::new(Vec::new(), vec![8443], Vec::new());
    assert_eq!(url.judge(&stricter), Err(RefusedUrl::Port(8443)));
    let stricter = Guard::new(Vec::new(), Vec::new(), vec!["example.com".parse().unwrap()]);
    assert_eq!(url.judge(&stricter), Err(RefusedUrl::OwnHost));
}
