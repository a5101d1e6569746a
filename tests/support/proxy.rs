//! A proxy between the service and its database that simulates network faults.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream},
    sync::watch,
};

/// The address of the real server.
#[derive(Clone, Debug)]
pub enum Upstream {
    Socket(PathBuf),
    Address(String, u16),
}

/// A network fault.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// Data is forwarded.
    None,
    /// New and existing connections are closed.
    Refuse,
    /// Connections stay open, but nothing is forwarded.
    Stall,
    /// This many bytes of the next data from the service are forwarded; then the connection is closed.
    CutAfter(usize),
    /// The service's statements reach the server, but the replies are dropped. The connection is closed after a call.
    LoseAnswers,
}

/// The end of the server's reply to a call that created a task (`CommandComplete`).
const COMMITTED: &[u8] = b"SELECT 1\0";

/// A running proxy on a loopback port.
pub struct Proxy {
    pub port: u16,
    fault: watch::Sender<Fault>,
    transfers: Arc<AtomicUsize>,
}

impl Proxy {
    pub async fn start(upstream: Upstream, fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let (fault, changes) = watch::channel(fault);
        let transfers = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&transfers);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(forward(
                    client,
                    upstream.clone(),
                    changes.clone(),
                    Arc::clone(&counted),
                ));
            }
        });
        Self {
            port,
            fault,
            transfers,
        }
    }

    /// How often data was received since the start, in either direction.
    pub fn transfers(&self) -> usize {
        self.transfers.load(Ordering::SeqCst)
    }

    pub fn set_fault(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }
}

async fn forward(
    client: TcpStream,
    upstream: Upstream,
    mut changes: watch::Receiver<Fault>,
    transfers: Arc<AtomicUsize>,
) -> io::Result<()> {
    if *changes.borrow_and_update() == Fault::Refuse {
        return Ok(());
    }
    match upstream {
        Upstream::Socket(path) => {
            forward_both_ways(
                client,
                UnixStream::connect(path).await?,
                changes,
                &transfers,
            )
            .await
        }
        Upstream::Address(host, port) => {
            forward_both_ways(
                client,
                TcpStream::connect((host, port)).await?,
                changes,
                &transfers,
            )
            .await
        }
    }
}

/// Forwards data in both directions. Returning drops both sockets, which closes the connection.
async fn forward_both_ways(
    mut client: TcpStream,
    mut server: impl AsyncRead + AsyncWrite + Unpin,
    mut changes: watch::Receiver<Fault>,
    transfers: &AtomicUsize,
) -> io::Result<()> {
    let (mut sent, mut answered) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        let fault = *changes.borrow_and_update();
        let is_forwarding = !matches!(fault, Fault::Stall);
        tokio::select! {
            biased;
            _ = changes.changed() => {
                if *changes.borrow() == Fault::Refuse {
                    return Ok(());
                }
            }
            read = client.read(&mut sent), if is_forwarding => {
                let length = read?;
                transfers.fetch_add(1, Ordering::SeqCst);
                if length == 0 {
                    return Ok(());
                }
                if let Fault::CutAfter(limit) = fault {
                    return server.write_all(&sent[..length.min(limit)]).await;
                }
                server.write_all(&sent[..length]).await?;
            }
            read = server.read(&mut answered), if is_forwarding => {
                let length = read?;
                transfers.fetch_add(1, Ordering::SeqCst);
                let answer = &answered[..length];
                if fault != Fault::LoseAnswers {
                    client.write_all(answer).await?;
                }
                let is_committed = answer.windows(COMMITTED.len()).any(|bytes| bytes == COMMITTED);
                if length == 0 || (fault == Fault::LoseAnswers && is_committed) {
                    return Ok(());
                }
            }
        }
    }
}
