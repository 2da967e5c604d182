//! Clients: those that subscribe, those that publish, and what both are made of.

pub(crate) mod http;
pub(crate) mod load;
pub(crate) mod record;
pub(crate) mod roll;
pub(crate) mod socket;
pub(crate) mod subscriber;
