//! Clients: those that subscribe, those that publish, and what both are made of.

pub(crate) mod audit;
pub(crate) mod crew;
pub(crate) mod http;
pub(crate) mod load;
pub(crate) mod receiver;
pub(crate) mod record;
pub(crate) mod roll;
pub(crate) mod sentry;
pub(crate) mod socket;
pub(crate) mod subscriber;
