//! Raw TLS clients: a session of rustls that is not ours, over a blocking socket.

use super::raw::RawClient;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, ServerConfig, ServerConnection, SignatureScheme, StreamOwned,
};
use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use syncline::reactor::Identity;

/// Takes any server: these tests are about what the server does.
#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// A client of this identity that would take tickets, resume and send early data if it could.
pub fn eager_config(identity: &Identity) -> Arc<ClientConfig> {
    let certificate = CertificateDer::from(identity.cert_der().to_vec());
    let key = PrivatePkcs8KeyDer::from(identity.key_der().to_vec());
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer))
        .with_client_auth_cert(vec![certificate], key.into())
        .unwrap();
    config.alpn_protocols = vec![b"syncline/1".to_vec()];
    config.enable_early_data = true;
    Arc::new(config)
}

/// The TLS session with the server, handshake not yet made.
pub fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> StreamOwned<ClientConnection, TcpStream> {
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let name = ServerName::try_from("syncline.invalid").unwrap();
    StreamOwned::new(ClientConnection::new(config.clone(), name).unwrap(), socket)
}

/// Listens with a key of its own and takes anybody. Gives its address, and in the end what the first one who came
/// told it once the handshake was over, up to the first word.
pub fn in_between(identity: &Identity) -> (SocketAddr, JoinHandle<Vec<u8>>) {
    let certificate = CertificateDer::from(identity.cert_der().to_vec());
    let key = PrivatePkcs8KeyDer::from(identity.key_der().to_vec());
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key.into())
        .unwrap();
    config.alpn_protocols = vec![b"syncline/1".to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let heard = std::thread::spawn(move || {
        let (socket, _) = listener.accept().unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut stream = StreamOwned::new(ServerConnection::new(Arc::new(config)).unwrap(), socket);
        let mut buffer = vec![0; 4096];
        let count = stream.read(&mut buffer).unwrap_or(0);
        buffer.truncate(count);
        buffer
    });
    (address, heard)
}

/// A raw client that has said hello over TLS.
pub fn greeted(address: SocketAddr, identity: &Identity) -> RawClient {
    let mut client = RawClient::over(connect(address, &eager_config(identity)));
    client.greet();
    client
}
