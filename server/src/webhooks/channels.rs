//! Of which channels an endpoint is told.

use dunlin_protocol::names::ChannelName;

/// Stands for any number of characters, also none.
const ANY: char = '*';

/// In front of a pattern of channels that are left out. No channel's name has it.
const NOT: char = '!';

/// The channels that a prefix and a list of patterns let through.
#[derive(Debug)]
pub(super) struct Channels {
    prefix: String,
    /// One of them has to match; none: there need not be one.
    wanted: Vec<String>,
    /// None of them may match.
    unwanted: Vec<String>,
}

impl Channels {
    /// What is not sound lets nothing through.
    pub(super) fn new(prefix: &str, patterns: &[String]) -> Self {
        let (mut wanted, mut unwanted) = (Vec::new(), Vec::new());
        for pattern in patterns {
            match pattern.strip_prefix(NOT) {
                Some(pattern) => unwanted.push(pattern.to_owned()),
                None => wanted.push(pattern.clone()),
            }
        }
        Self {
            prefix: prefix.to_owned(),
            wanted,
            unwanted,
        }
    }

    pub(super) fn has(&self, channel: &ChannelName) -> bool {
        let name = channel.as_str();
        let any = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern, name));
        name.starts_with(&self.prefix)
            && (self.wanted.is_empty() || any(&self.wanted))
            && !any(&self.unwanted)
    }
}

/// Whether there can be a channel that the pattern is about, of those that anybody is told of.
pub(super) fn is_pattern(text: &str) -> bool {
    let text = text.strip_prefix(NOT).unwrap_or(text);
    is_beginning(&text.replace(ANY, "x"))
}

/// Whether the name of such a channel can begin so.
pub(super) fn is_beginning(text: &str) -> bool {
    text.parse::<ChannelName>()
        .is_ok_and(|name| !name.kind().is_user())
}

fn matches(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once(ANY) else {
        return pattern == name;
    };
    let Some(mut left) = name.strip_prefix(first) else {
        return false;
    };
    let (between, last) = rest.rsplit_once(ANY).unwrap_or(("", rest));
    // Where a part is found first, the most is left for those behind it.
    for part in between.split(ANY) {
        let Some((_, behind)) = left.split_once(part) else {
            return false;
        };
        left = behind;
    }
    left.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, name, is_match) in [
            ("orders", "orders", true),
            ("orders", "orders-1", false),
            ("*", "orders", true),
            ("orders-*", "orders-1", true),
            ("orders-*", "orders-", true),
            ("orders-*", "my-orders-1", false),
            ("*-eu", "orders-eu", true),
            ("*-eu", "orders-eu-1", false),
            ("a*b", "ab", true),
            ("a*b", "a-b-b", true),
            ("a*b", "a", false),
            ("ab*b", "ab", false),
            ("a*b*c", "a-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("a*b*b", "ab", false),
            ("a**b", "ab", true),
            ("*a*a*", "a-a", true),
            ("*a*a*", "a", false),
        ] {
            assert_eq!(matches(pattern, name), is_match, "{pattern} {name}");
        }
    }

    #[test]
    fn a_channel_has_to_be_wanted_and_not_unwanted() {
        for (prefix, patterns, name, passes) in [
            ("", &[][..], "a", true),
            ("", &["a", "b-*"], "b-1", true),
            ("", &["a", "b-*"], "c", false),
            ("", &["!private-encrypted-*"], "private-a", true),
            ("", &["!private-encrypted-*"], "private-encrypted-a", false),
            ("", &["b-*", "!b-1"], "b-2", true),
            ("", &["b-*", "!b-1"], "b-1", false),
            ("b-", &["*-eu"], "b-eu", true),
            ("b-", &["*-eu"], "c-eu", false),
        ] {
            let patterns: Vec<String> = patterns.iter().map(ToString::to_string).collect();
            let channels = Channels::new(prefix, &patterns);
            assert_eq!(
                channels.has(&name.parse().unwrap()),
                passes,
                "{prefix} {patterns:?} {name}"
            );
        }
    }

    #[test]
    fn what_no_channel_can_be_called_is_no_pattern() {
        for text in [
            "*",
            "a",
            "orders-*",
            "!private-encrypted-*",
            "*;x",
            "presence-*-eu",
        ] {
            assert!(is_pattern(text), "{text}");
        }
        for text in ["", "!", "!!a", "a b", "a/*", "#server-to-user-*", "a?"] {
            assert!(!is_pattern(text), "{text}");
        }
    }
}
