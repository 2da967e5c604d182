//! What everything in Redis is called.
//!
//! Every name begins with the deployment's prefix and, in braces, its partition: Redis Cluster keeps all names with the
//! same text in braces in one slot, so that one script sees all that belongs to a channel, on any kind of Redis.

use std::fmt;

use dunlin_protocol::names::AppId;

/// Partitions of a deployment. All nodes must agree, and what is in Redis is lost to them when it changes.
pub const PARTITIONS: u16 = 64;

/// A number from 0 to [`PARTITIONS`] - 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition(u16);

impl Partition {
    /// The partition of a thing of an app: the same on every node and in every version, hence a hash of our own: FNV-1a
    /// of 64 bits, then mixed as Murmur3 ends, because FNV leaves the last letters of a name in its lower bits. Names that
    /// collide cost balance, nothing else.
    pub fn of(app: &str, name: &str) -> Self {
        let bytes = app.bytes().chain([0]).chain(name.bytes());
        let mut hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        Self(u16::try_from((hash ^ (hash >> 33)) % u64::from(PARTITIONS)).unwrap_or_default())
    }

    pub fn all() -> impl Iterator<Item = Self> {
        (0..PARTITIONS).map(Self)
    }

    pub fn from_number(number: u16) -> Option<Self> {
        (number < PARTITIONS).then_some(Self(number))
    }

    pub fn number(self) -> u16 {
        self.0
    }
}

/// What a node can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Channel,
    /// A signed-in user.
    User,
    /// An app's connections.
    Quota,
}

impl Kind {
    fn letter(self) -> char {
        match self {
            Self::Channel => 'c',
            Self::User => 'u',
            Self::Quota => 'q',
        }
    }
}

/// Something that nodes hold, by its name: unique in a deployment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Thing {
    pub kind: Kind,
    pub app: AppId,
    /// Of the channel or the user; empty for a quota.
    pub name: Box<str>,
}

impl Thing {
    pub fn partition(&self) -> Partition {
        Partition::of(self.app.as_str(), &self.name)
    }

    /// Reads what `Display` has written.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, ':');
        let kind = match parts.next()? {
            "c" => Kind::Channel,
            "u" => Kind::User,
            "q" => Kind::Quota,
            _ => return None,
        };
        Some(Self {
            kind,
            app: parts.next()?.parse().ok()?,
            name: parts.next()?.into(),
        })
    }
}

/// `c:APP:NAME`. An app's id has no colon.
impl fmt::Display for Thing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.kind.letter(), self.app, self.name)
    }
}

/// The names of one deployment.
#[derive(Clone, Debug)]
pub struct Names {
    prefix: Box<str>,
}

impl Names {
    /// `prefix` has no braces: the configuration was validated.
    pub fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.into(),
        }
    }

    fn name(&self, partition: Partition, rest: fmt::Arguments<'_>) -> String {
        format!("{}:{{{}}}:{rest}", self.prefix, partition.0)
    }

    fn of(&self, thing: &Thing, part: &str) -> String {
        self.name(thing.partition(), format_args!("{part}:{thing}"))
    }

    /// Its state, and the topic of its messages: keys and topics do not meet.
    pub fn state(&self, thing: &Thing) -> String {
        self.of(thing, "state")
    }

    pub fn members(&self, thing: &Thing) -> String {
        self.of(thing, "members")
    }

    pub fn history(&self, thing: &Thing) -> String {
        self.of(thing, "history")
    }

    pub fn cached(&self, thing: &Thing) -> String {
        self.of(thing, "cached")
    }

    /// The users whom a node holds in a channel.
    pub fn held(&self, thing: &Thing, node: &str) -> String {
        self.name(thing.partition(), format_args!("held:{node}:{thing}"))
    }

    /// Whom the outside was told to be bound to a channel by a node.
    pub fn bound(&self, thing: &Thing, node: &str) -> String {
        self.name(thing.partition(), format_args!("bound:{node}:{thing}"))
    }

    /// What a node holds in a partition.
    pub fn index(&self, partition: Partition, node: &str) -> String {
        self.name(partition, format_args!("index:{node}"))
    }

    /// Says that a node was declared dead.
    pub fn fence(&self, partition: Partition, node: &str) -> String {
        self.name(partition, format_args!("fence:{node}"))
    }

    pub fn occupied(&self, partition: Partition, app: &AppId) -> String {
        self.name(partition, format_args!("occupied:{app}"))
    }

    pub fn due(&self, partition: Partition) -> String {
        self.name(partition, format_args!("due"))
    }

    pub fn outbox(&self, partition: Partition) -> String {
        self.name(partition, format_args!("outbox"))
    }

    /// How many entries of the outbox were read, or are known to be lost.
    pub fn outbox_gone(&self, partition: Partition) -> String {
        self.name(partition, format_args!("outbox:gone"))
    }

    /// Whose turn it is to read the outbox.
    pub fn reader(&self, partition: Partition) -> String {
        self.name(partition, format_args!("reader"))
    }

    /// Who reads the outbox, by when they are forgotten.
    pub fn readers(&self) -> String {
        format!("{}:{{nodes}}:readers", self.prefix)
    }

    /// An idempotency key of an app.
    pub fn once(&self, partition: Partition, app: &AppId, key: &str) -> String {
        self.name(partition, format_args!("once:{app}:{key}"))
    }

    pub fn leases(&self) -> String {
        format!("{}:{{nodes}}:leases", self.prefix)
    }

    /// With a node's id behind it, the topic by which the node is seen to be there.
    pub fn alive(&self) -> String {
        format!("{}:{{nodes}}:alive:", self.prefix)
    }

    /// What all nodes are told: the log, and the topic.
    pub fn control(&self) -> String {
        format!("{}:{{nodes}}:control", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thing(kind: Kind, app: &str, name: &str) -> Thing {
        Thing {
            kind,
            app: app.parse().unwrap(),
            name: name.into(),
        }
    }

    #[test]
    fn partitions_are_the_same_for_ever_and_spread() {
        assert_eq!(Partition::of("1", "a"), Partition::of("1", "a"));
        assert_eq!(Partition::of("app-id", "presence-room").number(), 20);
        let mut counts = [0; PARTITIONS as usize];
        for n in 0..64_000 {
            counts[usize::from(Partition::of("1", &format!("channel-{n}")).number())] += 1;
        }
        assert!(
            counts.iter().all(|count| (800..1200).contains(count)),
            "{counts:?}"
        );
    }

    #[test]
    fn a_thing_survives_its_text() {
        for thing in [
            thing(Kind::Channel, "1", "presence-a"),
            thing(Kind::User, "a-b", "u:with:colons"),
            thing(Kind::Quota, "1", ""),
        ] {
            assert_eq!(Thing::parse(&thing.to_string()), Some(thing));
        }
        for text in ["", "c", "c:1", "x:1:a", "c::a"] {
            assert_eq!(Thing::parse(text), None, "{text}");
        }
    }

    #[test]
    fn everything_of_a_channel_is_in_one_slot() {
        let names = Names::new("dunlin");
        let thing = thing(Kind::Channel, "app-id", "presence-room");
        let partition = thing.partition();
        for name in [
            names.state(&thing),
            names.members(&thing),
            names.held(&thing, "n1"),
            names.bound(&thing, "n1"),
            names.index(partition, "n1"),
            names.fence(partition, "n1"),
            names.occupied(partition, &thing.app),
            names.outbox(partition),
            names.outbox_gone(partition),
        ] {
            assert!(name.starts_with("dunlin:{20}:"), "{name}");
        }
    }
}
