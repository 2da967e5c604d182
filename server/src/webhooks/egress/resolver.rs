//! Names become addresses here, and only those that were judged come out.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::Semaphore;

use super::guard::Guard;

/// How long a name may take to be looked up.
const TIME: Duration = Duration::from_secs(5);

/// Lookups at a time. One that nobody waits for any more goes on until the system gives it up, in a thread that it shares
/// with nobody; so it keeps its place until then.
const AT_A_TIME: usize = 64;

/// Finds the addresses of a name.
pub(super) type Lookup = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync>;

/// The resolver of the system.
pub(super) fn system() -> Lookup {
    let places = Arc::new(Semaphore::new(AT_A_TIME));
    Arc::new(move |name| {
        let places = Arc::clone(&places);
        Box::pin(async move {
            let place = places.acquire_owned().await.map_err(io::Error::other)?;
            let looking = tokio::task::spawn_blocking(move || {
                let _place = place;
                let found = (name.as_str(), 0).to_socket_addrs()?;
                Ok(found.map(|address| address.ip()).collect())
            });
            looking.await.map_err(io::Error::other)?
        })
    })
}

/// Why a name has no address that can be connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unresolved {
    #[error("The host's name could not be found.")]
    Unknown,
    #[error("The host's name could not be found within {TIME:?}.")]
    TimedOut,
    /// Does not say which address, because that would tell what our network looks like from the inside.
    #[error("The host's name leads to an address that is not public, or to this platform itself.")]
    Refused,
}

/// Looks names up, and lets out only what may be connected to.
pub(super) struct Resolver {
    pub(super) guard: Arc<Guard>,
    pub(super) lookup: Lookup,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = Arc::clone(&self.guard);
        let looking = (self.lookup)(name.as_str().to_owned());
        Box::pin(async move {
            let found = tokio::time::timeout(TIME, looking)
                .await
                .map_err(|_| Unresolved::TimedOut)?
                .map_err(|_| Unresolved::Unknown)?;
            if found.is_empty() {
                return Err(Unresolved::Unknown.into());
            }
            // One bad address spoils the name: nobody who means well has both kinds, and the customer is to hear of it now,
            // not at random.
            if !found.iter().all(|address| guard.allows_address(*address)) {
                return Err(Unresolved::Refused.into());
            }
            // The client puts in the port of the URL.
            let found = found.into_iter().map(|address| SocketAddr::new(address, 0));
            Ok(Box::new(found) as Addrs)
        })
    }
}
