//! Pages that run inside a frame of the customer's page. What a request says is reflected into them, so that it is
//! parsed first.

use crate::transports::fallback::frames;

const MAX_SCRIPT_CHARS: usize = 512;

/// The address of the script that the customer's page runs; the frame has to run the same.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Script(String);

impl Script {
    /// An absolute address of a `.js` file, without a character that means something in HTML.
    pub(super) fn parse(address: String) -> Option<Self> {
        let rest = ["https://", "http://", "//"]
            .iter()
            .find_map(|scheme| address.strip_prefix(scheme))?;
        let (host, file) = rest.split_once('/')?;
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/%?=".contains(&byte);
        let file = file.split('?').next()?;
        let ends_well = file
            .get(file.len().saturating_sub(3)..)
            .is_some_and(|end| end.eq_ignore_ascii_case(".js"));
        (!host.is_empty() && ends_well && address.len() <= MAX_SCRIPT_CHARS && rest.bytes().all(is_plain))
            .then_some(Self(address))
    }
}

/// What the frame may do: run that script, and talk to us. Whoever gets another script into it gets no further.
pub(super) fn policy(nonce: &str) -> String {
    format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; connect-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'self'"
    )
}

/// The page that the transports of `SockJS` in a frame load.
pub(super) fn frame(Script(address): &Script, nonce: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html>\n<head>\n<meta charset=\"UTF-8\">\n<title>SockJS</title>\n\
         <script nonce=\"{nonce}\" src=\"{address}\"></script>\n\
         <script nonce=\"{nonce}\">SockJS.bootstrap_iframe();</script>\n</head>\n<body></body>\n</html>\n"
    )
}

/// Old browsers run nothing of a page before so much of it has come.
const HTMLFILE_BYTES: usize = 1024;

/// The beginning of a page that never ends. `callback` is a name and nothing else.
pub(super) fn htmlfile(callback: &str) -> String {
    let mut page = format!(
        "<!DOCTYPE html>\n<html>\n<head>\n<meta charset=\"UTF-8\">\n</head>\n<body>\n<script>\n\
         var page = parent.{callback};\nfunction p(frame) {{ page.message(frame); }}\n\
         page.start();\nwindow.onload = page.stop;\n</script>\n"
    );
    while page.len() < HTMLFILE_BYTES {
        page.push(' ');
    }
    page.push_str("\r\n\r\n");
    page
}

/// One frame inside that page.
pub(super) fn call(frame: &str) -> String {
    format!(
        "<script>\np({});\n</script>\r\n",
        frames::quoted_for_script(frame)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_the_address_of_a_script() {
        for good in [
            "http://localhost/sockjs.min.js",
            "https://js.pusher.com/8.6.0/sockjs.min.js",
            "//127.0.0.1:8080/a/b.js?x=1",
            "http://h/A.JS",
        ] {
            assert!(Script::parse(good.to_owned()).is_some(), "{good}");
        }
        for bad in [
            "",
            "javascript:alert(1)",
            "data:text/javascript,alert(1)//.js",
            "\"><script>alert(1)</script>",
            "http://h/\"onload=x.js",
            "http://h/a.js#x",
            "http://h/a b.js",
            "http://h/a&b.js",
            "http://user@h/a.js",
            "http:///a.js",
            "http://h",
            "http://h/page.html",
            "sockjs.js",
            "http://h/é.js",
        ] {
            assert!(Script::parse(bad.to_owned()).is_none(), "{bad}");
        }
    }

    #[test]
    fn the_beginning_is_long_enough_for_old_browsers() {
        assert!(htmlfile("_jp.a").len() >= HTMLFILE_BYTES);
    }

    #[test]
    fn a_frame_cannot_leave_its_script() {
        assert_eq!(
            call("a[\"</script>\"]"),
            "<script>\np(\"a[\\\"\\u003c/script\\u003e\\\"]\");\n</script>\r\n"
        );
    }
}
