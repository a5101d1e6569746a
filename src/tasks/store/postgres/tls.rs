//! How far a database server's certificate is trusted.
//!
//! libpq's `sslmode` has steps that a verifier of certificates does not: no check at all, and a check of
//! who signed it but not of the name.

use std::sync::Arc;

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use rustls_platform_verifier::Verifier;

use super::config::DatabaseUrlError;

/// Whose certificate will do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Trust {
    /// Anybody's: encrypted, but to whoever answers.
    Anyone,
    /// One signed by a trusted root, for whatever name.
    AnyName,
    /// One signed by a trusted root for the name in the URL.
    Name,
}

/// Trusts the roots in the file, or those of this system.
pub(super) fn client_config(
    trust: Trust,
    roots: Option<&str>,
) -> Result<ClientConfig, DatabaseUrlError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let signed: Option<Arc<dyn ServerCertVerifier>> = match (trust, roots) {
        (Trust::Anyone, _) => None,
        (Trust::AnyName | Trust::Name, Some(file)) => Some(
            WebPkiServerVerifier::builder_with_provider(
                Arc::new(read_roots(file)?),
                Arc::clone(&provider),
            )
            .build()
            .map_err(|_| DatabaseUrlError::RootCertificates)?,
        ),
        (Trust::AnyName | Trust::Name, None) => Some(Arc::new(
            Verifier::new(Arc::clone(&provider))
                .map_err(|_| DatabaseUrlError::SystemCertificates)?,
        )),
    };
    let verifier = match (trust, signed) {
        (Trust::Name, Some(signed)) => signed,
        (Trust::Name | Trust::AnyName | Trust::Anyone, signed) => Arc::new(Lenient {
            signed,
            provider: Arc::clone(&provider),
        }),
    };
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| DatabaseUrlError::SystemCertificates)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth())
}

fn read_roots(file: &str) -> Result<RootCertStore, DatabaseUrlError> {
    let mut roots = RootCertStore::empty();
    let certificates =
        CertificateDer::pem_file_iter(file).map_err(|_| DatabaseUrlError::RootCertificates)?;
    for certificate in certificates {
        let added = certificate
            .ok()
            .and_then(|certificate| roots.add(certificate).ok());
        added.ok_or(DatabaseUrlError::RootCertificates)?;
    }
    Ok(roots)
}

/// Less than a full check of the certificate. That the server holds its key is always checked.
#[derive(Debug)]
struct Lenient {
    /// Who must have signed the certificate; `None` if anybody may.
    signed: Option<Arc<dyn ServerCertVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(signed) = &self.signed else {
            return Ok(ServerCertVerified::assertion());
        };
        match signed.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
        {
            // Names are looked at last: everything else was right.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
