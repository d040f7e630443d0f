//! https before a server of the harness that speaks only http, so that its requests are seen.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// Hands requests without a body on to a server that ends each connection after its answer.
/// Dropping it stops it.
pub struct TlsFront {
    host: String,
    stopped: Arc<AtomicBool>,
    listener: Option<JoinHandle<()>>,
}

impl TlsFront {
    /// Stands before `server` (`host:port`), with a certificate and its key, in PEM.
    ///
    /// # Errors
    /// When the files are not what they are to be, or no port can be had.
    pub fn start(server: &str, certificate: &Path, key: &Path) -> Result<Self> {
        let certificates = CertificateDer::pem_file_iter(certificate)?;
        let certificates = certificates.collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_file(key)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(certificates, key)?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let host = listener.local_addr()?.to_string();
        let stopped = Arc::new(AtomicBool::new(false));
        let (server, is_over) = (server.to_owned(), Arc::clone(&stopped));
        let config = Arc::new(config);
        let listener = thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if is_over.load(Ordering::SeqCst) {
                    return;
                }
                let (server, config) = (server.clone(), Arc::clone(&config));
                thread::spawn(move || {
                    if let Err(error) = hand_on(stream, &server, config) {
                        eprintln!("TLS before {server}: {error:#}");
                    }
                });
            }
        });
        Ok(Self {
            host,
            stopped,
            listener: Some(listener),
        })
    }

    /// `127.0.0.1:PORT`.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        // wakes the thread that accepts
        let woken = TcpStream::connect(&self.host).is_ok();
        if let (true, Some(listener)) = (woken, self.listener.take())
            && listener.join().is_err()
        {
            eprintln!("the thread of the TLS front panicked");
        }
    }
}

fn hand_on(stream: TcpStream, server: &str, config: Arc<ServerConfig>) -> Result<()> {
    let mut stream = StreamOwned::new(ServerConnection::new(config)?, stream);
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).context("read the request")?;
        request.push(byte[0]);
    }
    let mut behind = TcpStream::connect(server)?;
    behind.write_all(&request)?;
    std::io::copy(&mut behind, &mut stream).context("answer")?;
    stream.conn.send_close_notify();
    Ok(stream.flush()?)
}
