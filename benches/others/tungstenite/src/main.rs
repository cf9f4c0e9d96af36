//! Rust's tokio-tungstenite: a task for each connection, which waits for its client and for a broadcast channel.
//! Arguments: port, and for TLS the files of certificate and key. READ_BUFFER_BYTES may say how large each connection's
//! buffer is; without it, it is as large as the crate makes it.

use std::env;
use std::error::Error;
use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio_tungstenite::accept_async_with_config;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

type Failure = Box<dyn Error + Send + Sync>;

/// Messages that a slow subscriber may be behind, for all of them together.
const BEHIND_MAX: usize = 256;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let words: Vec<String> = env::args().skip(1).collect();
    let port: u16 = words.first().ok_or("no port")?.parse()?;
    let tls = match (words.get(1), words.get(2)) {
        (Some(certificate), Some(key)) => Some(acceptor(certificate, key)?),
        _ => None,
    };
    let mut config = WebSocketConfig::default();
    if let Ok(bytes) = env::var("READ_BUFFER_BYTES") {
        config = config.read_buffer_size(bytes.parse()?);
    }
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let (sender, _) = broadcast::channel(BEHIND_MAX);
    loop {
        let (stream, _) = listener.accept().await?;
        let (sender, tls) = (sender.clone(), tls.clone());
        // A client that breaks off is the client's affair. A task each, so that who has no TLS does not carry its state.
        match tls {
            Some(tls) => drop(tokio::spawn(async move {
                let stream = tls.accept(stream).await?;
                serve(stream, config, sender).await
            })),
            None => drop(tokio::spawn(serve(stream, config, sender))),
        }
    }
}

fn acceptor(certificate: &str, key: &str) -> Result<TlsAcceptor, Failure> {
    let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(key)?;
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn serve<S>(
    stream: S,
    config: WebSocketConfig,
    sender: broadcast::Sender<Message>,
) -> Result<(), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut socket = accept_async_with_config(stream, Some(config)).await?;
    let mut messages = sender.subscribe();
    loop {
        tokio::select! {
            from_client = socket.next() => match from_client {
                Some(Ok(message)) if message.is_text() || message.is_binary() => {
                    // There is at least one subscriber: this one.
                    let _ = sender.send(message);
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
                None => return Ok(()),
            },
            message = messages.recv() => match message {
                Ok(message) => socket.send(message).await?,
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return Ok(()),
            },
        }
    }
}
