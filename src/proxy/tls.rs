//! TLS on both sides, with rustls and its ring provider.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use x509_parser::prelude::FromDer as _;

/// What may be wrong with certificates and keys.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read as PEM.
    #[error("{path}: {what}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// rustls does not accept the combination.
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
    /// The client CA is of no use.
    #[error("client CA: {0}")]
    ClientCa(String),
}

/// Installs the process's one TLS provider. Later calls do nothing.
pub fn install_provider() {
    // Fails only when a provider is installed already, which is then the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |what: String| TlsError::File { path: path.to_owned(), what };
    let certificates: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|error| failed(error.to_string()))?.collect();
    let certificates = certificates.map_err(|error| failed(error.to_string()))?;
    if certificates.is_empty() { Err(failed("no certificate in it".to_owned())) } else { Ok(certificates) }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path)
        .map_err(|error| TlsError::File { path: path.to_owned(), what: error.to_string() })
}

fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path)? {
        store.add(certificate)?;
    }
    Ok(store)
}

/// Our side towards agents.
#[derive(Clone, Debug)]
pub struct AgentTls {
    /// rustls's configuration.
    pub config: Arc<ServerConfig>,
    /// `tls-server-end-point` channel-binding data (RFC 5929, section 4.1) of our certificate.
    pub end_point: Vec<u8>,
}

impl AgentTls {
    /// Reads certificate chain, key, and the CA that client certificates must come from, if any.
    ///
    /// # Errors
    /// Names the file that is of no use.
    pub fn load(certificate: &Path, key: &Path, client_ca: Option<&Path>) -> Result<Self, TlsError> {
        install_provider();
        let chain = certificates(certificate)?;
        let end_point = chain.first().map(|leaf| end_point(leaf)).unwrap_or_default();
        let builder = ServerConfig::builder();
        let builder = match client_ca {
            Some(path) => {
                // An agent may still come with a password: a certificate is asked for, not demanded.
                let verifier = WebPkiClientVerifier::builder(Arc::new(roots(path)?))
                    .allow_unauthenticated()
                    .build()
                    .map_err(|error| TlsError::ClientCa(error.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, private_key(key)?)?;
        config.alpn_protocols = vec![b"postgresql".to_vec()];
        // As in Postgres, no session is resumed: a certificate is looked at each time, so that one that
        // has expired, or whose authority was taken out of the configuration, is not let in by a ticket.
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self { config: Arc::new(config), end_point })
    }
}

/// The hash that RFC 5929 wants of a certificate: the one of its signature algorithm, but SHA-256 in
/// place of MD5 and SHA-1. Algorithms without a hash of their own (Ed25519) get SHA-256, as in libpq.
#[must_use]
pub fn end_point(certificate: &CertificateDer<'_>) -> Vec<u8> {
    let algorithm = x509_parser::certificate::X509Certificate::from_der(certificate)
        .map(|(_, parsed)| parsed.signature_algorithm.algorithm.to_id_string())
        .unwrap_or_default();
    match algorithm.as_str() {
        // sha384WithRSAEncryption, ecdsa-with-SHA384
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => Sha384::digest(certificate).to_vec(),
        // sha512WithRSAEncryption, ecdsa-with-SHA512
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => Sha512::digest(certificate).to_vec(),
        _ => Sha256::digest(certificate).to_vec(),
    }
}

/// How much TLS towards upstream, in libpq's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpstreamTlsMode {
    /// None.
    Disable,
    /// Encrypted, but the server may be anybody.
    Require,
    /// The certificate must come from a known CA.
    VerifyCa,
    /// And it must be made out to the host's name.
    VerifyFull,
}

/// Our side towards upstream.
///
/// # Errors
/// Names the file that is of no use.
pub fn upstream_config(
    mode: UpstreamTlsMode,
    ca: Option<&Path>,
    client: Option<(&Path, &Path)>,
) -> Result<Option<Arc<ClientConfig>>, TlsError> {
    install_provider();
    if mode == UpstreamTlsMode::Disable {
        return Ok(None);
    }
    let store = match ca {
        Some(path) => roots(path)?,
        None => {
            let mut store = RootCertStore::empty();
            // What the system trusts; certificates in it that rustls cannot read are left out.
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            store
        }
    };
    let builder = ClientConfig::builder();
    let builder = match mode {
        UpstreamTlsMode::VerifyFull => builder.with_root_certificates(store),
        UpstreamTlsMode::VerifyCa | UpstreamTlsMode::Require | UpstreamTlsMode::Disable => {
            let roots = (mode == UpstreamTlsMode::VerifyCa).then(|| Arc::new(store));
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Lenient::new(roots)))
        }
    };
    let config = match client {
        Some((certificate, key)) => {
            builder.with_client_auth_cert(certificates(certificate)?, private_key(key)?)?
        }
        None => builder.with_no_client_auth(),
    };
    Ok(Some(Arc::new(config)))
}

/// Checks less than rustls would: not the name (`verify-ca`), or nothing of the chain (`require`).
/// That the peer holds the certificate's key is always checked.
#[derive(Debug)]
struct Lenient {
    roots: Option<Arc<RootCertStore>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Lenient {
    fn new(roots: Option<Arc<RootCertStore>>) -> Self {
        let provider: CryptoProvider = rustls::crypto::ring::default_provider();
        Self { roots, algorithms: provider.signature_verification_algorithms }
    }
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(roots) = &self.roots {
            let parsed = rustls::server::ParsedCertificate::try_from(end_entity)?;
            rustls::client::verify_server_cert_signed_by_trust_anchor(
                &parsed,
                roots,
                intermediates,
                now,
                self.algorithms.all,
            )?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
