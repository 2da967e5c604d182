//! Why there was no answer, in words for the customer.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use rustls::CertificateError;

use super::resolver::Unresolved;
use super::url::RefusedUrl;

/// A POST without an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub kind: FailureKind,
    /// A sentence for the customer. It never has an address that a name led to.
    pub note: String,
}

/// What kept a POST from its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// The rules do not let it go there.
    Refused,
    /// The name has no address.
    Dns,
    /// Nobody took the connection.
    Connect,
    /// The receiver could not show who it is.
    Tls,
    /// It took too long.
    TimedOut,
    /// The connection ended before the answer did, or what came was no answer.
    Broken,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.note)
    }
}

impl Error for Failure {}

impl Failure {
    fn new(kind: FailureKind, note: impl Into<String>) -> Self {
        Self {
            kind,
            note: note.into(),
        }
    }

    pub(super) fn refused(why: &RefusedUrl) -> Self {
        Self::new(FailureKind::Refused, format!("The URL {why}."))
    }

    pub(super) fn timed_out(time: Duration) -> Self {
        Self::new(
            FailureKind::TimedOut,
            format!("There was no complete answer within {time:?}."),
        )
    }

    /// The texts are our own: those of the client's errors have addresses in them.
    pub(super) fn of(error: &reqwest::Error) -> Self {
        if let Some(why) = cause::<Unresolved>(error) {
            let kind = match why {
                Unresolved::Refused => FailureKind::Refused,
                Unresolved::Unknown | Unresolved::TimedOut => FailureKind::Dns,
            };
            return Self::new(kind, why.to_string());
        }
        if let Some(why) = cause::<rustls::Error>(error) {
            return Self::new(FailureKind::Tls, tls(why));
        }
        if error.is_timeout() {
            return Self::new(FailureKind::TimedOut, "No connection could be made in time.");
        }
        if error.is_connect() {
            let is_refusal = cause::<io::Error>(error)
                .is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
            let note = if is_refusal {
                "The connection was refused."
            } else {
                "No connection could be made."
            };
            return Self::new(FailureKind::Connect, note);
        }
        Self::new(
            FailureKind::Broken,
            "The connection ended before the answer was complete, or what came was no valid answer.",
        )
    }
}

fn tls(error: &rustls::Error) -> &'static str {
    use CertificateError::{
        Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet, NotValidYetContext,
        UnknownIssuer,
    };
    match error {
        rustls::Error::InvalidCertificate(why) => match why {
            Expired | ExpiredContext { .. } => "The receiver's certificate has expired.",
            NotValidYet | NotValidYetContext { .. } => "The receiver's certificate is not valid yet.",
            NotValidForName | NotValidForNameContext { .. } => {
                "The receiver's certificate is for another name than the URL's."
            }
            UnknownIssuer => {
                "The receiver's certificate is from an unknown authority, or one between it and the authority is missing."
            }
            _ => "The receiver's certificate is not valid.",
        },
        _ => "The receiver and we could not agree on TLS.",
    }
}

/// The first error of this type among the causes. What an [`io::Error`] wraps is a cause as well, though it passes it over
/// when it is asked for its own.
fn cause<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match wrapped {
            Some(wrapped) => Some(wrapped as &(dyn Error + 'static)),
            None => error.source(),
        };
    }
    None
}
