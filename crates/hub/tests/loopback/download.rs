//! One file over HTTP: cuts, other versions, wrong bytes, two at once.

use crate::server::{ServedFile, Server};
use crate::{content, names, options, sha256};
use axum::http::StatusCode;
use baton_hub::download::{Download, Downloader};
use baton_hub::progress::Silent;
use baton_hub::{HubError, HubOptions};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const LEN: usize = 300_000;

struct World {
    directory: TempDir,
    server: Server,
    options: HubOptions,
}

impl World {
    async fn new(file: ServedFile) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let server = Server::start([("/file", file)]).await;
        let options = options(directory.path(), &server.url);
        Self { directory, server, options }
    }

    fn destination(&self) -> PathBuf {
        self.directory.path().join("file")
    }

    async fn fetch(&self, sum: Option<&str>) -> Result<(), HubError> {
        fetch(&self.options, &format!("{}/file", self.server.url), &self.destination(), sum).await
    }

    /// What each GET asked for: its `Range` and `If-Range`.
    fn ranges(&self) -> Vec<(Option<String>, Option<String>)> {
        self.server.asked("GET", "/file").into_iter().map(|asked| (asked.range, asked.if_range)).collect()
    }

    fn leave_part(&self, bytes: &[u8], etag: Option<&str>) {
        std::fs::write(self.directory.path().join("file.part"), bytes).expect("writes");
        if let Some(etag) = etag {
            std::fs::write(self.directory.path().join("file.part.etag"), etag).expect("writes");
        }
    }

    fn assert_whole(&self, bytes: &[u8]) {
        assert!(std::fs::read(self.destination()).expect("reads") == bytes, "other bytes than were served");
        assert_eq!(names(self.directory.path()), ["file", "file.lock"], "nothing else is left behind");
    }
}

async fn fetch(
    options: &HubOptions,
    url: &str,
    destination: &Path,
    sum: Option<&str>,
) -> Result<(), HubError> {
    let lock = destination.with_extension("lock");
    let wanted = Download { url, destination, lock, sha256: sum, token: None, label: "file" };
    Downloader::new(options)?.fetch(&wanted, &Silent).await
}

fn served(bytes: Vec<u8>) -> ServedFile {
    ServedFile { bytes, etag: "\"v1\"", ..ServedFile::default() }
}

fn asked(start: usize, etag: &str) -> (Option<String>, Option<String>) {
    (Some(format!("bytes={start}-")), Some(etag.to_owned()))
}

#[tokio::test]
async fn a_cut_download_goes_on_where_it_stopped() {
    let bytes = content(LEN);
    let world = World::new(ServedFile { cuts: 1, ..served(bytes.clone()) }).await;
    world.fetch(Some(&sha256(&bytes))).await.expect("fetches");
    assert_eq!(world.ranges(), [(None, None), asked(LEN / 2, "\"v1\"")]);
    world.assert_whole(&bytes);
}

#[tokio::test]
async fn what_an_earlier_process_left_is_used() {
    let bytes = content(LEN);
    let world = World::new(served(bytes.clone())).await;
    world.leave_part(&bytes[..1000], Some("\"v1\""));
    world.fetch(None).await.expect("fetches");
    assert_eq!(world.ranges(), [asked(1000, "\"v1\"")]);
    world.assert_whole(&bytes);
}

#[tokio::test]
async fn bytes_of_two_versions_are_never_joined() {
    let bytes = content(LEN);
    let world = World::new(served(bytes.clone())).await;
    world.leave_part(&[7; 1000], Some("\"v0\""));
    world.fetch(None).await.expect("fetches");
    assert_eq!(world.ranges(), [asked(1000, "\"v0\"")], "the server decided by If-Range");
    world.assert_whole(&bytes);
}

#[tokio::test]
async fn a_bad_rest_of_unknown_origin_is_fetched_anew() {
    let bytes = content(LEN);
    let world = World::new(served(bytes.clone())).await;
    world.leave_part(&[7; 1000], None);
    world.fetch(Some(&sha256(&bytes))).await.expect("fetches");
    assert_eq!(world.ranges(), [(Some("bytes=1000-".to_owned()), None), (None, None)]);
    world.assert_whole(&bytes);
}

#[tokio::test]
async fn a_rest_without_validator_and_sum_is_not_built_upon() {
    let bytes = content(LEN);
    let world = World::new(served(bytes.clone())).await;
    world.leave_part(&[7; 1000], None);
    world.fetch(None).await.expect("fetches");
    assert_eq!(world.ranges(), [(None, None)]);
    world.assert_whole(&bytes);
}

#[tokio::test]
async fn a_server_that_ignores_ranges_is_started_over() {
    let bytes = content(LEN);
    let world = World::new(ServedFile { cuts: 2, no_ranges: true, ..served(bytes.clone()) }).await;
    world.fetch(Some(&sha256(&bytes))).await.expect("fetches");
    assert_eq!(world.ranges().len(), 3);
    world.assert_whole(&bytes);
}

#[tokio::test]
async fn a_server_that_always_cuts_is_given_up_on() {
    let bytes = content(LEN);
    let world = World::new(ServedFile { cuts: usize::MAX, no_ranges: true, ..served(bytes) }).await;
    let error = world.fetch(None).await.expect_err("never whole");
    assert!(matches!(error, HubError::Interrupted { received, .. } if received == LEN as u64 / 2), "{error}");
    assert_eq!(world.ranges().len() as u32, world.options.limits.failures);
    assert!(!world.destination().exists());
    assert!(world.directory.path().join("file.part").exists(), "what arrived is kept");
}

#[tokio::test]
async fn wrong_bytes_are_refused_and_leave_nothing() {
    let world = World::new(served(content(LEN))).await;
    let error = world.fetch(Some(&sha256(b"other bytes"))).await.expect_err("another sum");
    assert!(matches!(error, HubError::HashMismatch { .. }), "{error}");
    assert!(error.to_string().contains(&sha256(&content(LEN))), "{error}");
    assert_eq!(names(world.directory.path()), ["file.lock"]);
}

#[tokio::test]
async fn a_whole_part_is_recognised() {
    let bytes = content(LEN);
    let not_satisfiable = ServedFile {
        status: Some(StatusCode::RANGE_NOT_SATISFIABLE),
        headers: vec![("content-range", format!("bytes */{LEN}"))],
        ..served(bytes.clone())
    };
    let world = World::new(not_satisfiable).await;
    world.leave_part(&bytes, Some("\"v1\""));
    world.fetch(Some(&sha256(&bytes))).await.expect("it was all there");
    world.assert_whole(&bytes);
}

#[tokio::test]
async fn a_busy_server_is_asked_again_and_a_missing_file_is_not() {
    let bytes = content(1000);
    let world = World::new(ServedFile { refusals: 2, ..served(bytes.clone()) }).await;
    world.fetch(None).await.expect("the third answer is whole");
    assert_eq!(world.ranges().len(), 3);
    world.assert_whole(&bytes);

    let url = format!("{}/absent", world.server.url);
    let destination = world.directory.path().join("absent");
    let error = fetch(&world.options, &url, &destination, None).await.expect_err("404");
    assert!(matches!(error, HubError::NotFound { .. }), "{error}");
    assert!(error.to_string().contains("/absent") && error.to_string().contains("HF_TOKEN"), "{error}");
    assert_eq!(world.server.asked("GET", "/absent").len(), 1);
    assert!(!destination.exists() && !destination.with_extension("part").exists());
}

#[tokio::test]
async fn no_server_is_said_plainly() {
    let directory = tempfile::tempdir().expect("a directory");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let url = format!("http://{}/file", listener.local_addr().expect("has an address"));
    drop(listener);
    let mut options = options(directory.path(), &url);
    options.limits.failures = 2;
    let error = fetch(&options, &url, &directory.path().join("file"), None).await.expect_err("nobody there");
    assert!(matches!(error, HubError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("--model PATH"), "{error}");
}

#[tokio::test]
async fn two_at_once_fetch_once() {
    let bytes = content(LEN);
    let world = World::new(ServedFile { cuts: 1, ..served(bytes.clone()) }).await;
    let sum = sha256(&bytes);
    let (one, two) = tokio::join!(world.fetch(Some(&sum)), world.fetch(Some(&sum)));
    one.expect("fetches");
    two.expect("finds it there");
    assert_eq!(world.ranges(), [(None, None), asked(LEN / 2, "\"v1\"")], "one download, continued once");
    world.assert_whole(&bytes);
}
