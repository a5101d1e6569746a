//! Something between the service and its database that can fail as networks do.

use std::{io, path::PathBuf};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream},
    sync::watch,
};

/// Where the real server is.
#[derive(Clone, Debug)]
pub enum Upstream {
    Socket(PathBuf),
    Address(String, u16),
}

/// What becomes of what is sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// It arrives.
    None,
    /// Nobody is there, and who was connected no longer is.
    Refuse,
    /// Connections stand, and nothing moves on them.
    Stall,
    /// Of the next thing the service sends so many bytes arrive, and then the connection breaks.
    CutAfter(usize),
    /// All that the service sends arrives and is done, and the connection breaks instead of the answer.
    LoseAnswers,
}

/// How the server ends the answer to a transaction (`CommandComplete`).
const COMMITTED: &[u8] = b"COMMIT\0";

/// A running proxy on a port of loopback.
pub struct Proxy {
    pub port: u16,
    fault: watch::Sender<Fault>,
}

impl Proxy {
    pub async fn start(upstream: Upstream, fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let (fault, changes) = watch::channel(fault);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, upstream.clone(), changes.clone()));
            }
        });
        Self { port, fault }
    }

    pub fn set_fault(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }
}

async fn carry(
    client: TcpStream,
    upstream: Upstream,
    mut changes: watch::Receiver<Fault>,
) -> io::Result<()> {
    if *changes.borrow_and_update() == Fault::Refuse {
        return Ok(());
    }
    match upstream {
        Upstream::Socket(path) => {
            both_ways(client, UnixStream::connect(path).await?, changes).await
        }
        Upstream::Address(host, port) => {
            both_ways(client, TcpStream::connect((host, port)).await?, changes).await
        }
    }
}

/// Returning drops both ends: the connection breaks.
async fn both_ways(
    mut client: TcpStream,
    mut server: impl AsyncRead + AsyncWrite + Unpin,
    mut changes: watch::Receiver<Fault>,
) -> io::Result<()> {
    let (mut sent, mut answered) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        let fault = *changes.borrow_and_update();
        let moves = !matches!(fault, Fault::Stall);
        tokio::select! {
            biased;
            _ = changes.changed() => {
                if *changes.borrow() == Fault::Refuse {
                    return Ok(());
                }
            }
            read = client.read(&mut sent), if moves => {
                let length = read?;
                if length == 0 {
                    return Ok(());
                }
                if let Fault::CutAfter(limit) = fault {
                    return server.write_all(&sent[..length.min(limit)]).await;
                }
                server.write_all(&sent[..length]).await?;
            }
            read = server.read(&mut answered), if moves => {
                let length = read?;
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
