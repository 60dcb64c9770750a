//! A file server on loopback that misbehaves as told and remembers what it was asked.

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};

/// One file, and how its server behaves.
#[derive(Clone, Default)]
pub(crate) struct ServedFile {
    pub(crate) bytes: Vec<u8>,
    /// Sent as `ETag`, quotes included.
    pub(crate) etag: &'static str,
    /// Answers that break off in the middle, before the first whole one.
    pub(crate) cuts: usize,
    /// Answers of 503 before anything else.
    pub(crate) refusals: usize,
    /// Whether `Range` is ignored.
    pub(crate) no_ranges: bool,
    /// More headers.
    pub(crate) headers: Vec<(&'static str, String)>,
    /// Instead of 200.
    pub(crate) status: Option<StatusCode>,
}

/// What was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) range: Option<String>,
    pub(crate) if_range: Option<String>,
    pub(crate) authorization: Option<String>,
}

#[derive(Clone, Default)]
pub(crate) struct Server {
    files: Arc<Mutex<HashMap<String, ServedFile>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
    pub(crate) url: String,
    /// Holds the accept loop, which ends with the test's runtime.
    tasks: Arc<Mutex<tokio::task::JoinSet<()>>>,
}

impl Server {
    /// Serves `files` by path until the test's runtime ends.
    pub(crate) async fn start(files: impl IntoIterator<Item = (&'static str, ServedFile)>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let url = format!("http://{}", listener.local_addr().expect("has an address"));
        let files = files.into_iter().map(|(path, file)| (path.to_owned(), file)).collect();
        let server =
            Self { files: Arc::new(Mutex::new(files)), asked: Arc::default(), url, tasks: Arc::default() };
        let app = axum::Router::new().fallback(answer).with_state(server.clone());
        let serve = async move { axum::serve(listener, app).await };
        server.tasks.lock().expect("not poisoned").spawn(async move { drop(serve.await) });
        server
    }

    /// Requests with this method for paths that end so, in order.
    pub(crate) fn asked(&self, method: &str, path: &str) -> Vec<Asked> {
        let asked = self.asked.lock().expect("not poisoned");
        asked.iter().filter(|asked| asked.method == method && asked.path.ends_with(path)).cloned().collect()
    }
}

async fn answer(State(server): State<Server>, request: Request) -> Response {
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let asked = Asked {
        method: request.method().to_string(),
        path: request.uri().path().to_owned(),
        range: header(header::RANGE),
        if_range: header(header::IF_RANGE),
        authorization: header(header::AUTHORIZATION),
    };
    server.asked.lock().expect("not poisoned").push(asked.clone());
    let mut files = server.files.lock().expect("not poisoned");
    let Some(file) = files.get_mut(&asked.path) else { return StatusCode::NOT_FOUND.into_response() };
    if file.refusals > 0 {
        file.refusals -= 1;
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let mut response = file.answer(&asked, request.method() == Method::HEAD);
    let headers: &mut HeaderMap = response.headers_mut();
    if !file.etag.is_empty() {
        headers.insert(header::ETAG, file.etag.parse().expect("a header"));
    }
    for (name, value) in &file.headers {
        headers.insert(*name, value.parse().expect("a header"));
    }
    response
}

impl ServedFile {
    fn answer(&mut self, asked: &Asked, is_head: bool) -> Response {
        if let Some(status) = self.status {
            return status.into_response();
        }
        let same_version = asked.if_range.as_deref().is_none_or(|tag| tag == self.etag);
        let start = asked.range.as_deref().filter(|_| same_version && !self.no_ranges).map(|range| {
            let start = range.strip_prefix("bytes=").and_then(|range| range.strip_suffix('-'));
            start.and_then(|start| start.parse::<usize>().ok()).expect("an open range")
        });
        let body = self.bytes[start.unwrap_or(0)..].to_vec();
        let builder = Response::builder().header(header::CONTENT_LENGTH, body.len());
        let builder = match start {
            Some(start) => builder.status(StatusCode::PARTIAL_CONTENT).header(
                header::CONTENT_RANGE,
                format!("bytes {start}-{}/{}", self.bytes.len() - 1, self.bytes.len()),
            ),
            None => builder.status(StatusCode::OK),
        };
        if is_head {
            return builder.body(Body::empty()).expect("a response");
        }
        if self.cuts == 0 {
            return builder.body(Body::from(body)).expect("a response");
        }
        self.cuts -= 1;
        let half = Bytes::copy_from_slice(&body[..body.len() / 2]);
        let pieces = [Ok(half), Err(io::Error::other("cut by the test"))];
        // The pause lets the first half reach the socket before the error closes it.
        let stream = futures::StreamExt::then(futures::stream::iter(pieces), |piece| async {
            if piece.is_err() {
                tokio::time::sleep(std::time::Duration::from_millis(30)).await;
            }
            piece
        });
        builder.body(Body::from_stream(stream)).expect("a response")
    }
}
