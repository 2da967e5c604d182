//! From the mailbox to the outboxes.

use std::mem;
use std::sync::atomic::Ordering::Relaxed;

use bytes::{Bytes, BytesMut};
use dunlin_protocol::names::SocketId;
use smallvec::SmallVec;

use super::Shard;
use super::socket_id::slot_in;
use crate::hub::mailbox::{Audience, Mail};
use crate::storage::keys::ChannelKey;

/// Frames of one channel that arrived together.
pub(super) struct Group {
    pub(super) channel: u32,
    pub(super) frames: SmallVec<[(Bytes, Audience<u32>); 4]>,
}

impl Audience<u32> {
    fn is_many(self) -> bool {
        !matches!(self, Self::Only(_))
    }

    /// Whether this slot is singled out, either way.
    fn names(self, slot: u32) -> bool {
        match self {
            Self::All => false,
            Self::AllBut(named) | Self::Only(named) => named == slot,
        }
    }

    fn includes(self, slot: u32) -> bool {
        self.names(slot) != self.is_many()
    }
}

impl Shard {
    /// One turn: everything in the mailbox into outboxes, then a chunk of connections flushed. Whether there is more to do.
    pub fn turn(&mut self) -> bool {
        self.sort_mail();
        for _ in 0..self.bounds.flush_chunk {
            let Some(slot) = self.dirty.pop_front() else { break };
            if let Some(connection) = self
                .slots
                .get_mut(slot as usize)
                .and_then(|slot| slot.connection.as_mut())
            {
                connection.dirty = false;
                self.flush(slot);
            }
        }
        while let Some(slot) = self.overflowed.pop() {
            self.cut(slot);
        }
        !self.dirty.is_empty()
    }

    pub(super) fn sort_mail(&mut self) {
        let mut mail = mem::take(&mut self.mail);
        self.hub.mailbox(self.worker).drain(&mut mail);
        for letter in mail.drain(..) {
            match letter {
                Mail::Publication {
                    channel,
                    frame,
                    audience,
                } => self.collect(&channel, frame, audience),
                Mail::Joined {
                    to,
                    channel,
                    app,
                    answer,
                } => self.answered(to, &channel, &app, *answer),
                Mail::Direct { to, frame } => self.send(to, frame),
                Mail::Received { from, messages } => {
                    let now_s = self.now_s;
                    if let Some(connection) = self.connection(from) {
                        connection.heard(now_s);
                    }
                    for message in messages {
                        self.receive(from, &message);
                    }
                }
                Mail::Gone { connection } => self.gone(connection),
                Mail::Admitted { to, app, granted } => self.admitted(to, &app, granted),
                Mail::TerminateUser { app, user_id } => self.terminate_user(app, &user_id),
                Mail::Drain { seconds } => self.start_draining(seconds),
            }
        }
        self.mail = mail;
        for index in 0..self.groups.len() {
            self.deliver(index);
        }
        self.groups.clear();
    }

    /// Adds a frame to its channel's group.
    pub(super) fn collect(&mut self, key: &ChannelKey, frame: Bytes, audience: Audience<SocketId>) {
        let Some(index) = self.channel_index.get(key.borrowed()).copied() else {
            return;
        };
        let audience = match audience {
            Audience::All => Audience::All,
            Audience::AllBut(socket_id) => self.slot_of(socket_id).map_or(Audience::All, Audience::AllBut),
            Audience::Only(socket_id) => match self.slot_of(socket_id) {
                Some(slot) => Audience::Only(slot),
                None => return,
            },
        };
        let next = self.groups.len();
        let channel = &mut self.channels[index as usize];
        let group = *channel
            .group
            .get_or_insert_with(|| u32::try_from(next).unwrap_or(u32::MAX)) as usize;
        if group == next {
            self.groups.push(Group {
                channel: index,
                frames: SmallVec::new(),
            });
        }
        self.groups[group].frames.push((frame, audience));
    }

    /// Appends a group's frames, joined, to the outbox of everybody in its channel.
    pub(super) fn deliver(&mut self, group: usize) {
        let Group {
            channel: index,
            ref mut frames,
        } = self.groups[group];
        let frames = mem::take(frames);
        if frames.is_empty() {
            return; // Delivered before, or the channel is gone and its index may be another's.
        }
        let channel = &mut self.channels[index as usize];
        channel.group = None;
        if channel.members.is_empty() {
            return;
        }
        let shared = || frames.iter().filter(|(_, audience)| audience.is_many());
        let joined = match &frames[..] {
            [(frame, audience)] if audience.is_many() => frame.clone(),
            _ => {
                let mut joined = BytesMut::with_capacity(shared().map(|(frame, _)| frame.len()).sum());
                for (frame, _) in shared() {
                    joined.extend_from_slice(frame);
                }
                joined.freeze()
            }
        };
        let has_exceptions = frames.iter().any(|(_, audience)| *audience != Audience::All);
        let members = mem::take(&mut channel.members);
        for slot in &members {
            if has_exceptions && frames.iter().any(|(_, audience)| audience.names(*slot)) {
                for (frame, audience) in &frames {
                    if audience.includes(*slot) {
                        self.append(*slot, frame.clone());
                    }
                }
            } else if !joined.is_empty() {
                self.append(*slot, joined.clone());
            }
        }
        let deliveries = (members.len() * shared().count()) as u64;
        self.counters().deliveries.fetch_add(deliveries, Relaxed);
        let channel = &mut self.channels[index as usize];
        channel.members = members;
        if let Some(app) = &channel.app {
            app.counters.deliveries.fetch_add(deliveries, Relaxed);
        }
    }

    /// The slot of a connection of this worker by its id.
    pub(super) fn slot_of(&self, socket_id: SocketId) -> Option<u32> {
        let slot = slot_in(socket_id, self.worker)?;
        let connection = self.slots.get(slot as usize)?.connection.as_ref()?;
        (connection.session.socket_id == socket_id).then_some(slot)
    }
}
