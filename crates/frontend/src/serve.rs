//! Accepts connections and speaks HTTP/1.1 on them, within limits that hold against slow and silent peers.

mod stall;

use axum::Router;
use axum::body::Body;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use stall::StallGuard;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tower::Service;
use tracing::{debug, info, warn};

/// Limits of the connections.
#[derive(Clone, Debug)]
pub struct ServeConfig {
    /// Most connections at once; the next ones wait in the listener's backlog. 4,096: four for each request that the
    /// frontend takes by default, and within the usual limits on open files.
    pub connections_max: usize,
    /// Longest a peer may take to send a request's headers, and stay idle between two requests.
    pub header_timeout: Duration,
    /// Most bytes of a request's headers.
    pub header_bytes_max: usize,
    /// Most headers of a request.
    pub headers_max: usize,
    /// Longest a peer may take no bytes of a response; then its connection is closed and its requests cancelled.
    pub write_stall: Duration,
    /// How long requests under way may go on after the shutdown began.
    pub drain_timeout: Duration,
}

impl Default for ServeConfig {
    fn default() -> Self {
        Self {
            connections_max: 4096,
            header_timeout: Duration::from_secs(30),
            header_bytes_max: 32 << 10,
            headers_max: 100,
            write_stall: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(25),
        }
    }
}

/// [`serve_with`] the default limits.
///
/// # Errors
/// If the listener breaks.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    serve_with(listener, router, ServeConfig::default(), shutdown).await
}

/// Serves until `shutdown` is done; then takes no more connections, lets the requests under way finish for as long as
/// [`ServeConfig::drain_timeout`], and cancels the rest.
///
/// # Errors
/// If the listener breaks.
pub async fn serve_with(
    listener: TcpListener,
    router: Router,
    config: ServeConfig,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let (drain, draining) = watch::channel(false);
    let places = Arc::new(Semaphore::new(config.connections_max));
    let config = Arc::new(config);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = accept(&listener, &places) => accepted,
        };
        match accepted {
            Ok((stream, place)) => {
                connections.spawn(connection(
                    stream,
                    place,
                    router.clone(),
                    Arc::clone(&config),
                    draining.clone(),
                ));
            }
            Err(error) => pause_after(error).await?,
        }
    }
    drop(listener);
    let _ = drain.send(true);
    let finish = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(config.drain_timeout, finish).await.is_err() {
        warn!(connections = connections.len(), "the time to finish is over; cancelling what still runs");
        connections.shutdown().await;
    }
    info!("all connections are closed");
    Ok(())
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

/// Accepting fails for reasons that pass: the peer is gone already, or this process has too many files open.
async fn pause_after(error: io::Error) -> io::Result<()> {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, InvalidInput};
    match error.kind() {
        ConnectionAborted | ConnectionRefused | ConnectionReset => Ok(()),
        InvalidInput => Err(error),
        _ => {
            warn!(%error, "cannot accept a connection; trying again");
            tokio::time::sleep(Duration::from_millis(100)).await;
            Ok(())
        }
    }
}

async fn connection(
    stream: TcpStream,
    _place: OwnedSemaphorePermit,
    router: Router,
    config: Arc<ServeConfig>,
    mut draining: watch::Receiver<bool>,
) {
    // A token must not wait for the acknowledgement of the one before it.
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "a connection broke before it began");
        return;
    }
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        // A router is always ready.
        router.clone().call(request.map(Body::new))
    });
    let mut connection = pin!(
        http1::Builder::new()
            // A frame is a few hundred bytes: copying them costs less than a write of several parts.
            .writev(false)
            .timer(TokioTimer::new())
            .header_read_timeout(config.header_timeout)
            .max_headers(config.headers_max)
            .max_header_size(config.header_bytes_max)
            .serve_connection(TokioIo::new(StallGuard::new(stream, config.write_stall)), service)
    );
    let result = tokio::select! {
        result = connection.as_mut() => result,
        _ = draining.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        debug!(%error, "a connection ended early");
    }
}
