//! Which channels keep their past.

use dunlin_protocol::names::ChannelName;

use crate::clock;
use crate::config::HistoryRuleSection;

/// How much of their past the channels of a pattern keep.
#[derive(Debug)]
pub struct HistoryRule {
    channels: Pattern,
    /// Events, at least one.
    pub size: usize,
    /// How long an event is kept.
    pub age_s: u32,
}

#[derive(Debug)]
enum Pattern {
    Exact(Box<str>),
    Prefix(Box<str>),
}

impl HistoryRule {
    pub fn new(section: &HistoryRuleSection) -> Self {
        Self {
            channels: match section.channels.strip_suffix('*') {
                Some(prefix) => Pattern::Prefix(prefix.into()),
                None => Pattern::Exact(section.channels.as_str().into()),
            },
            size: section.size,
            age_s: clock::ceil_seconds(section.age),
        }
    }

    pub fn covers(&self, channel: &ChannelName) -> bool {
        match &self.channels {
            Pattern::Exact(name) => **name == *channel.as_str(),
            Pattern::Prefix(prefix) => channel.as_str().starts_with(&**prefix),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::App;
    use super::*;

    #[test]
    fn the_first_rule_that_covers_a_channel_counts() {
        let app = App::fresh(|section| {
            section.history = [("orders-vip", 3), ("orders-*", 2), ("*", 1)]
                .map(|(channels, size)| HistoryRuleSection::example(channels, size, 120))
                .into();
        });
        for (channel, size) in [
            ("orders-vip", 3),
            ("orders-vip2", 2),
            ("orders-", 2),
            ("order", 1),
        ] {
            let rule = app.history_of(&channel.parse().unwrap());
            assert_eq!(rule.map(|rule| rule.size), Some(size), "{channel}");
        }
        assert!(App::fresh(|_| {}).history_of(&"a".parse().unwrap()).is_none());
    }
}
