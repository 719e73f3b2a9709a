//! Owns the reasons for which a connection ends. It never decides what to do about them.
//!
//! Invariant: each reason tells the peer's fault, a fault of the way and our own wish apart.

use crate::model::DeviceId;
use std::io;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Closed {
    /// The peer closed it in an orderly way.
    #[error("the peer closed the connection")]
    Peer,
    /// The host asked for it.
    #[error("the connection was closed here")]
    Local,
    /// The way broke: a reset, a time-out of the network.
    #[error("the connection broke: {0}")]
    Reset(#[source] io::Error),
    /// It never came to be.
    #[error("no connection: {0}")]
    Connect(#[source] io::Error),
    /// TCP or TLS was not established within [`crate::model::limits::HANDSHAKE_TIMEOUT_MS`].
    #[error("the peer did not complete the handshake in time")]
    HandshakeTimeout,
    /// This side expects TLS, and the peer's first bytes are something else.
    #[error("the peer does not speak TLS")]
    NotTls,
    /// This side expects a plain connection, and the peer's first bytes are TLS.
    #[error("the peer speaks TLS, and this side does not")]
    IsTls,
    /// The peer hung up during the TLS handshake without a word, as one that expects a plain
    /// connection does.
    #[error("the peer hung up during the TLS handshake")]
    HungUp,
    /// The server's key is not the one that was expected.
    #[error("the server has another key than expected")]
    WrongServer {
        /// Whose key it is.
        found: DeviceId,
    },
    /// The peer does not offer the protocol `syncline/1` (ALPN).
    #[error("the peer speaks TLS, but not this protocol")]
    NoCommonProtocol,
    /// The client showed no certificate.
    #[error("the client showed no certificate")]
    NoCertificate,
    /// TLS failed in another way; the text is for people.
    #[error("TLS failed: {0}")]
    Tls(String),
}
