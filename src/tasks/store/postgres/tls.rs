//! TLS to the database server. The certificate and its host name are always verified.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject},
};
use rustls_platform_verifier::BuilderVerifierExt;
use thiserror::Error;

use crate::text_file;

/// The root certificates that the server's certificate must chain to.
pub(super) enum Roots<'a> {
    /// None: the connection does not use TLS.
    Unused,
    /// Those of the operating system.
    System,
    /// Those in a file in PEM form.
    File(&'a str),
}

/// Why the root certificates cannot be loaded.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[expect(missing_docs, reason = "the error texts say what the variants mean")]
pub enum TlsError {
    #[error("has an sslrootcert that is not a readable file of PEM certificates")]
    File,
    #[error("requires TLS, but this system's root certificates cannot be loaded: set sslrootcert")]
    System,
}

pub(super) fn client_config(roots: &Roots<'_>) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| TlsError::System)?;
    let builder = match roots {
        Roots::Unused => builder.with_root_certificates(RootCertStore::empty()),
        Roots::System => builder
            .with_platform_verifier()
            .map_err(|_| TlsError::System)?,
        Roots::File(file) => builder.with_root_certificates(read_roots(file)?),
    };
    Ok(builder.with_no_client_auth())
}

/// A handshake error in words that name the remedy.
pub(super) fn explain(error: &rustls::Error) -> String {
    use rustls::{CertificateError, Error};
    let problem = match error {
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => {
            "the server's certificate is for another name. The host in DATABASE_URL must be among \
             its subject alternative names: a name in the CN alone does not count"
        }
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "the server's certificate was issued by an unknown authority: set sslrootcert to the \
             file with the authority's certificate"
        }
        Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => "the server's certificate has expired",
        // The library has no variants for these two.
        error if error.to_string().contains("CaUsedAsEndEntity") => {
            "the server's certificate is the certificate of an authority: issue one for the server, \
             with CA:FALSE"
        }
        error if error.to_string().contains("UnsupportedCertVersion") => {
            "the server's certificate has version 1: issue one of version 3, with the host as a \
             subject alternative name"
        }
        error => return format!("TLS: {error}"),
    };
    format!("TLS: {problem}")
}

fn read_roots(file: &str) -> Result<RootCertStore, TlsError> {
    let pem = text_file::read(Path::new(file)).map_err(|_| TlsError::File)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|_| TlsError::File)?;
        roots.add(certificate).map_err(|_| TlsError::File)?;
    }
    if roots.is_empty() {
        return Err(TlsError::File);
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The other handshake errors are tested with a server.
    #[test]
    fn unknown_handshake_error_is_printed_unchanged() {
        let error = rustls::Error::HandshakeNotComplete;
        assert_eq!(explain(&error), "TLS: handshake not complete");
    }
}
