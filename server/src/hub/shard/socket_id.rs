//! Ids of connections, from which the connection is found without a map.

use dunlin_protocol::names::SocketId;

use crate::presence::ConnectionRef;

/// The lower bits of an id's second number hold the slot and the worker, so that an excluded connection is found
/// without a map; the rest is random, so that knowing one id does not give another.
const SLOT_BITS: u32 = 22;
const WORKER_BITS: u32 = 6;
/// The second number stays below 2^53, so that a client that reads it as a floating-point number keeps it whole.
const RANDOM_BITS: u32 = 53 - SLOT_BITS - WORKER_BITS;

pub(super) fn new_socket_id(at: ConnectionRef) -> SocketId {
    let random: u64 = rand::random();
    let place = u64::from(at.worker) << SLOT_BITS | u64::from(at.slot);
    let second = (random & ((1 << RANDOM_BITS) - 1)) << (SLOT_BITS + WORKER_BITS) | place;
    SocketId::new(u32::try_from(random >> 32).unwrap_or_default(), second)
}

/// Whether a connection of this id would be one of this worker, if it is one of this node.
pub fn is_on(socket_id: SocketId, worker: u16) -> bool {
    slot_in(socket_id, worker).is_some()
}

pub(super) fn slot_in(socket_id: SocketId, worker: u16) -> Option<u32> {
    let place = socket_id.second() & ((1 << (SLOT_BITS + WORKER_BITS)) - 1);
    (place >> SLOT_BITS == u64::from(worker))
        .then(|| u32::try_from(place & ((1 << SLOT_BITS) - 1)).ok())
        .flatten()
}
