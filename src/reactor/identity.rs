//! Owns a device's key and certificate, and what TLS makes of them. It never stores them and never
//! decides whom to trust: with one exception (`expected`) any key is accepted and reported.
//!
//! Invariant: whoever is reported as a [`DeviceId`] has proved to hold that key. Certificates are
//! only a wrapping for keys: names, dates and issuers in them mean nothing, so no clock matters.

use crate::model::DeviceId;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, GetRandomFailed, KeyProvider, SecureRandom, WebPkiSupportedAlgorithms, ring, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::SigningKey;
use rustls::version::TLS13;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, OtherError};
use rustls::{ServerConfig, SignatureScheme};
use sha2::{Digest, Sha256};
use std::fmt;
use std::sync::{Arc, OnceLock};

/// The protocol's name in TLS (ALPN); required on both sides.
pub(super) const ALPN: &[u8] = b"syncline/1";

/// A device's key with its self-signed certificate. Cheap to clone.
#[derive(Clone)]
pub struct Identity(Arc<Inner>);

struct Inner {
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
    device: DeviceId,
    provider: Arc<CryptoProvider>,
    server: Arc<ServerConfig>,
    /// For connections to the server that was expected first: thousands of one device share it.
    client: OnceLock<(Option<DeviceId>, Arc<ClientConfig>)>,
}

/// A key or certificate that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// No key could be made.
    #[error("a key cannot be made: {0}")]
    Generate(String),
    /// The stored key or certificate is damaged, or they do not belong together.
    #[error("the key or certificate cannot be used: {0}")]
    Unusable(String),
}

impl Identity {
    /// Makes a new Ed25519 key and a self-signed certificate for it.
    ///
    /// # Errors
    /// [`IdentityError::Generate`] when the system gives no randomness.
    pub fn generate() -> Result<Identity, IdentityError> {
        let failed = |error: rcgen::Error| IdentityError::Generate(error.to_string());
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).map_err(failed)?;
        let parameters = rcgen::CertificateParams::new(vec!["syncline".to_owned()]).map_err(failed)?;
        let certificate = parameters.self_signed(&key).map_err(failed)?;
        Identity::from_der(certificate.der(), key.serialized_der())
    }

    /// Takes a stored identity: the certificate (X.509 DER) and its private key (PKCS #8 DER).
    ///
    /// # Errors
    /// [`IdentityError::Unusable`] when one of them is damaged or they do not belong together.
    pub fn from_der(certificate: &[u8], key_pkcs8: &[u8]) -> Result<Identity, IdentityError> {
        let unusable = |error: rustls::Error| IdentityError::Unusable(error.to_string());
        let certificate = CertificateDer::from(certificate.to_vec());
        let device = device_of(&certificate).map_err(unusable)?;
        let provider = Arc::new(provider());
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(unusable)?
            .with_client_cert_verifier(Arc::new(AnyClient(provider.clone())))
            .with_single_cert(vec![certificate.clone()], private_key(key_pkcs8))
            .map_err(unusable)?;
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.send_tls13_tickets = 0;
        server.max_early_data_size = 0;
        server.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        let server = Arc::new(server);
        Ok(Identity(Arc::new(Inner {
            certificate,
            key: key_pkcs8.to_vec(),
            device,
            provider,
            server,
            client: OnceLock::new(),
        })))
    }

    /// The certificate, X.509 DER.
    #[must_use]
    pub fn cert_der(&self) -> &[u8] {
        &self.0.certificate
    }

    /// The private key, PKCS #8 DER. Keep it in a file that only its owner can read.
    #[must_use]
    pub fn key_der(&self) -> &[u8] {
        &self.0.key
    }

    /// The device that this is.
    #[must_use]
    pub fn device(&self) -> DeviceId {
        self.0.device
    }

    pub(super) fn server_config(&self) -> Arc<ServerConfig> {
        self.0.server.clone()
    }

    pub(super) fn client_config(&self, expected: Option<DeviceId>) -> Result<Arc<ClientConfig>, rustls::Error> {
        if let Some((_, config)) = self.0.client.get().filter(|(of, _)| *of == expected) {
            return Ok(config.clone());
        }
        let config = self.make_client_config(expected)?;
        // Who expects another server later gets a config of its own.
        let _ = self.0.client.set((expected, config.clone()));
        Ok(config)
    }

    fn make_client_config(&self, expected: Option<DeviceId>) -> Result<Arc<ClientConfig>, rustls::Error> {
        let provider = self.0.provider.clone();
        let mut config = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(PinnedServer { provider, expected }))
            .with_client_auth_cert(vec![self.0.certificate.clone()], private_key(&self.0.key))?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        config.enable_sni = false;
        Ok(Arc::new(config))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({:?})", self.0.device)
    }
}

/// The device that a certificate's key belongs to: the SHA-256 of its `SubjectPublicKeyInfo`, DER.
pub(super) fn device_of(certificate: &CertificateDer<'_>) -> Result<DeviceId, rustls::Error> {
    let parsed = webpki::EndEntityCert::try_from(certificate)
        .map_err(|_| rustls::Error::InvalidCertificate(CertificateError::BadEncoding))?;
    Ok(DeviceId(Sha256::digest(parsed.subject_public_key_info()).into()))
}

fn private_key(pkcs8: &[u8]) -> PrivateKeyDer<'static> {
    PrivatePkcs8KeyDer::from(pkcs8.to_vec()).into()
}

/// ring, and of it only what two devices need: keys are Ed25519, the exchange X25519. The cipher comes first
/// that this processor is fast at: AES-128 where it has instructions for it (AES-128-GCM), else ChaCha20.
fn provider() -> CryptoProvider {
    use ring::cipher_suite::{TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256};
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    let has_aes = std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    let has_aes = std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    let has_aes = false;
    let aes = [TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384];
    let chacha = [TLS13_CHACHA20_POLY1305_SHA256];
    let cipher_suites = if has_aes {
        [&aes[..], &chacha].concat()
    } else {
        [&chacha[..], &aes].concat()
    };
    CryptoProvider {
        cipher_suites,
        kx_groups: vec![ring::kx_group::X25519],
        signature_verification_algorithms: SIGNATURES,
        secure_random: &Ed25519Only,
        key_provider: &Ed25519Only,
    }
}

/// How a device proves to hold its key.
static SIGNATURES: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: &[webpki::ring::ED25519],
    mapping: &[(SignatureScheme::ED25519, &[webpki::ring::ED25519])],
};

/// Reads the keys of devices, and takes randomness from the system. In place of ring's defaults, which would
/// bring RSA and the curves of NIST along: 250 KB that nobody reaches.
#[derive(Debug)]
struct Ed25519Only;

impl KeyProvider for Ed25519Only {
    fn load_private_key(&self, key: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, rustls::Error> {
        match &key {
            PrivateKeyDer::Pkcs8(pkcs8) => ring::sign::any_eddsa_type(pkcs8),
            _ => Err(rustls::Error::General("a device's key is in PKCS #8".to_owned())),
        }
    }
}

impl SecureRandom for Ed25519Only {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
        getrandom::fill(bytes).map_err(|_| GetRandomFailed)
    }
}

/// The server's key is not the expected one.
#[derive(Debug)]
pub(super) struct OtherServer {
    pub(super) found: DeviceId,
}

impl fmt::Display for OtherServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server's key belongs to {}", self.found)
    }
}

impl std::error::Error for OtherServer {}

#[derive(Debug)]
struct PinnedServer {
    provider: Arc<CryptoProvider>,
    expected: Option<DeviceId>,
}

impl ServerCertVerifier for PinnedServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let found = device_of(end_entity)?;
        if self.expected.is_some_and(|expected| expected != found) {
            let error = CertificateError::Other(OtherError(Arc::new(OtherServer { found })));
            return Err(rustls::Error::InvalidCertificate(error));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not used".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[derive(Debug)]
struct AnyClient(Arc<CryptoProvider>);

impl ClientCertVerifier for AnyClient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        device_of(end_entity).map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not used".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Protects who expects a certain server: a config is shared only among those who expect the same.
    #[test]
    fn a_config_is_made_once_for_each_expectation() {
        let identity = Identity::generate().unwrap();
        let of = |expected| identity.client_config(expected).unwrap();
        let (first, other) = (of(None), of(Some(identity.device())));
        assert!(Arc::ptr_eq(&first, &of(None)), "it is shared");
        assert!(
            !Arc::ptr_eq(&first, &other),
            "it is not shared with who expects another server"
        );
        assert!(!Arc::ptr_eq(&of(Some(identity.device())), &first));
    }

    #[test]
    fn a_stored_identity_is_the_same_device_and_a_mixed_one_is_refused() {
        let identity = Identity::generate().unwrap();
        let again = Identity::from_der(identity.cert_der(), identity.key_der()).unwrap();
        assert_eq!(again.device(), identity.device());
        let other = Identity::generate().unwrap();
        assert_ne!(other.device(), identity.device());
        let mixed = Identity::from_der(identity.cert_der(), other.key_der());
        assert!(matches!(mixed, Err(IdentityError::Unusable(_))), "{mixed:?}");
        for damaged in [&[][..], b"nonsense", &identity.cert_der()[..40]] {
            assert!(Identity::from_der(damaged, identity.key_der()).is_err());
            assert!(Identity::from_der(identity.cert_der(), damaged).is_err());
        }
    }
}
