//! A certificate authority of one use, and what it vouches for.

use crate::process::Scratch;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// Writes `ca.pem`, and `cert.pem` and `key.pem` of a server at 127.0.0.1, into the directory.
pub(crate) fn write_into(scratch: &Scratch) {
    let key = || KeyPair::generate().expect("a key can be made");
    let params = |names: &[&str]| {
        CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
            .expect("the names are names")
    };
    let mut authority = params(&[]);
    let name = scratch.path().display().to_string();
    authority.distinguished_name.push(DnType::CommonName, name);
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = key();
    let authority_certificate = authority
        .self_signed(&authority_key)
        .expect("a certificate can be signed");
    let server_key = key();
    let server_certificate = params(&["localhost", "127.0.0.1"])
        .signed_by(&server_key, &Issuer::new(authority, authority_key))
        .expect("a certificate can be signed");
    for (name, pem) in [
        ("ca.pem", authority_certificate.pem()),
        ("cert.pem", server_certificate.pem()),
        ("key.pem", server_key.serialize_pem()),
    ] {
        std::fs::write(scratch.file(name), pem).expect("the scratch directory can be written");
    }
}
