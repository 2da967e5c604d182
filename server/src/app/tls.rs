//! The certificate of the port with TLS: read at the start, and again whenever its files change.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::config::TlsSection;

/// A certificate with its key, which may be exchanged while connections use it: those that are open keep the old one.
#[derive(Debug)]
pub struct Certificate {
    cert_path: PathBuf,
    key_path: PathBuf,
    current: ArcSwap<CertifiedKey>,
    /// What the files looked like when they were last read, whether they were any good or not.
    seen: Mutex<Option<[Fingerprint; 2]>>,
}

/// Tells a file from what it was before, without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fingerprint {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl Certificate {
    /// # Errors
    /// A file cannot be read, is not PEM, or the key is not the certificate's. The text names the option.
    pub fn load(section: &TlsSection) -> anyhow::Result<Arc<Self>> {
        let (cert_path, key_path) = (section.cert_path.clone(), section.key_path.clone());
        let seen = fingerprints(&cert_path, &key_path).ok();
        let current = ArcSwap::from_pointee(read(&cert_path, &key_path)?);
        Ok(Arc::new(Self {
            cert_path,
            key_path,
            current,
            seen: Mutex::new(seen),
        }))
    }

    /// Looks whether the files have changed, and takes them over if they are a pair. Whoever replaces two files does so
    /// one after the other: a pair that does not fit is warned of once, and looked at again when either changes.
    pub fn look(&self) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now = fingerprints(&self.cert_path, &self.key_path).ok();
        if *seen == now {
            return;
        }
        *seen = now;
        match read(&self.cert_path, &self.key_path) {
            Ok(pair) => {
                self.current.store(Arc::new(pair));
                tracing::info!("the certificate was read again: new connections get the new one");
            }
            Err(error) => {
                tracing::warn!("the certificate has changed and is no good; the one before stays: {error:#}")
            }
        }
    }

    /// What a listener is built from.
    ///
    /// # Errors
    /// The cryptography does not support the versions of TLS; it does.
    pub fn server_config(self: &Arc<Self>) -> Result<ServerConfig, rustls::Error> {
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        Ok(config)
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

fn fingerprints(cert_path: &Path, key_path: &Path) -> io::Result<[Fingerprint; 2]> {
    Ok([fingerprint(cert_path)?, fingerprint(key_path)?])
}

/// Follows symbolic links: that is how secrets are mounted and exchanged in containers.
fn fingerprint(path: &Path) -> io::Result<Fingerprint> {
    let file = fs::metadata(path)?;
    Ok(Fingerprint {
        device: file.dev(),
        inode: file.ino(),
        bytes: file.size(),
        modified: (file.mtime(), file.mtime_nsec()),
    })
}

fn read(cert_path: &Path, key_path: &Path) -> anyhow::Result<CertifiedKey> {
    let of_certificate = || format!("tls.cert_path: {}", cert_path.display());
    let of_key = || format!("tls.key_path: {}", key_path.display());
    let chain = CertificateDer::pem_file_iter(cert_path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(of_certificate)?;
    anyhow::ensure!(!chain.is_empty(), "{}: holds no certificate", of_certificate());
    let key = PrivateKeyDer::from_pem_file(key_path).with_context(of_key)?;
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())
        .with_context(|| format!("{} is not the key of {}", of_key(), of_certificate()))
}
