//! What of the past a connection's next subscriptions are to bring.

use std::collections::HashMap;

use dunlin_protocol::names::ChannelName;

use crate::presence::Since;

/// By channel, until it is subscribed to. A pointer while it is empty, as it is for nearly every connection.
#[derive(Debug, Default)]
pub struct Resumes(Option<Box<Asked>>);

#[derive(Debug, Default)]
struct Asked {
    channels: HashMap<ChannelName, Since>,
}

/// There are as many as may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl Resumes {
    /// Notes it for the channel, in place of what was noted before.
    ///
    /// # Errors
    /// It would be more than `limit` channels.
    pub fn put(&mut self, channel: ChannelName, since: Since, limit: usize) -> Result<(), Full> {
        let channels = &mut self.0.get_or_insert_default().channels;
        if channels.len() >= limit && !channels.contains_key(&channel) {
            return Err(Full);
        }
        channels.insert(channel, since);
        Ok(())
    }

    /// Gives what was noted for the channel, and forgets it.
    pub fn take(&mut self, channel: &str) -> Option<Since> {
        let channels = &mut self.0.as_mut()?.channels;
        let since = channels.remove(channel);
        if channels.is_empty() {
            self.0 = None;
        }
        since
    }
}
